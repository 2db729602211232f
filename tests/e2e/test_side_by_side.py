"""The local copy takes no longer for a dead destination and a slow one beside it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import services
from tests.e2e.offsite import S3, keep_on
from tests.e2e.project import Project, sqlite_project
from tests.proxy import Fault, Proxy, proxy
from tests.services import S3Server

MEBIBYTE = 2**20
VOLUME = 8 * MEBIBYTE
RATE = 1_000_000
SIZE = 1024 * MEBIBYTE
RUNS = 5
RATIO = 1.2
LEAST_SECONDS = 5
"""A shorter run would measure the start of the program."""

SECONDS = 240
GIVE_UP_SOON = """
from botocore.config import Config
STORAGES["dead"]["OPTIONS"]["client_config"] = Config(
    read_timeout=4, retries={"max_attempts": 0}, s3={"addressing_style": "path"})
"""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with services.s3() as running:
        yield running


@pytest.fixture
def slow(server: S3Server) -> Iterator[Proxy]:
    with proxy(server.port) as running:
        running.rate = RATE
        yield running


@pytest.fixture(params=[pytest.param("nobody listens", marks=pytest.mark.rare), "nobody answers"])
def dead_port(request: pytest.FixtureRequest, server: S3Server) -> Iterator[int]:
    """A port of loopback where no service is to be had, for as long as the test runs."""
    if request.param == "nobody listens":
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield taken.getsockname()[1]
        return
    with proxy(server.port) as running:
        running.plan(Fault(action="stall", times=10**6))
        yield running.port


@pytest.fixture
def project(workdir: Path) -> Iterator[Project]:
    with sqlite_project(workdir, VOLUME_SIZE=VOLUME) as made:
        yield made


def test_local_and_slow_copies_are_whole_beside_a_dead_one(
    project: Project, server: S3Server, slow: Proxy, dead_port: int
) -> None:
    project.populate()
    place(project, server, slow=slow.port, dead=dead_port)
    project.more_settings += GIVE_UP_SOON
    project.write()

    made = project.manage("backup", check=False)
    (row,) = project.json("list_backups")
    checked = [
        verified
        for name in ("local", "slow")
        for verified in project.json("verify_backups", "--destination", name, "--level=content")
    ]

    assert made.returncode == 3, made.stderr
    assert row["status"] == "partial"
    assert {copy["destination"]: copy["status"] for copy in row["copies"]} == {
        "local": "complete",
        "slow": "complete",
        "dead": "failed",
    }
    assert [verified["ok"] for verified in checked] == [True, True]


@pytest.mark.torture
def test_local_copy_takes_no_longer(
    project: Project,
    server: S3Server,
    slow: Proxy,
    dead_port: int,
    tell: Callable[[str], None],
    scaled: Callable[[int, int], int],
) -> None:
    """In every run of a series: the backup before is there, and owed to those that are away.

    A slice is too short for a ratio that means anything: there the local copy is only to be
    whole before the slow destination can have taken it.
    """
    size, runs = scaled(SIZE, 64 * MEBIBYTE), scaled(RUNS, 1)
    project.manage("migrate", "--verbosity=0")
    place(project, server)
    project.backup()
    alone, beside, owed = [], [], []
    for _run in range(runs):
        place(project, server)
        alone.append(seconds_to_local_copy(project, size))
        place(project, server, dead=dead_port, slow=slow.port)
        beside.append(seconds_to_local_copy(project, size))
        owed.append(len([*project.state.glob("runs/*.json")]))

    ratio = statistics.median(beside) / statistics.median(alone)
    for name, seconds in {"alone": alone, "beside a dead and a slow one": beside}.items():
        each = ", ".join(f"{one:.1f}" for one in seconds)
        tell(f"{size // MEBIBYTE} MiB, {name}: {statistics.median(seconds):.2f} s of {each}")
    tell(f"ratio {ratio:.2f}, with {', '.join(map(str, owed))} backups owed after each")
    assert owed[0] > 0
    assert max(beside) < size / RATE
    if size == SIZE:
        assert statistics.median(alone) >= LEAST_SECONDS
        assert ratio <= RATIO


def place(project: Project, server: S3Server, **ports: int) -> None:
    """Keep backups locally, and on the S3 service as it is reached by each of the ports.

    Each time in a place that is empty yet.
    """
    fresh = secrets.token_hex(4)
    storages = {
        name: (
            S3,
            server.options(endpoint_url=f"http://127.0.0.1:{port}", location=f"{name}-{fresh}"),
        )
        for name, port in ports.items()
    }
    keep_on(project, storages, local=True)


def seconds_to_local_copy(project: Project, size: int) -> float:
    """Save media that are all new; return how long it took to the local copy's last file."""
    keep_the_newest(project.backups)
    write_noise(project.media, size)
    earlier = {*project.backups.glob("manual_*")}
    os.sync()  # what was written before is not to be waited for now
    log = project.root / "output"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            project.command("backup"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=project.root,
            env=project.environment(),
        )
    try:
        while not {p.parent for p in project.backups.glob("manual_*/manifest.json")} - earlier:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - began < SECONDS
            time.sleep(0.01)
        return time.monotonic() - began
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
        process.kill()
        process.wait()


def keep_the_newest(backups: Path) -> None:
    """Remove older backups, and packs that the newest does not need: the disk may be small."""
    manifests = [*backups.glob("manual_*/manifest.json")]
    manifests.sort(key=lambda file: file.stat().st_mtime)
    newest = manifests.pop().read_text()
    for manifest in manifests:
        shutil.rmtree(manifest.parent)
    for pack in backups.glob("pool/*"):
        if pack.name not in newest:
            shutil.rmtree(pack)


def write_noise(media: Path, size: int) -> None:
    """Write files of 1 MiB that cannot be compressed."""
    media.mkdir(exist_ok=True)
    for number in range(size // MEBIBYTE):
        (media / f"{number}").write_bytes(os.urandom(MEBIBYTE))
