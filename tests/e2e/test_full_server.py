"""The disk of the PostgreSQL server fills in the middle of a backup, a restore or an undo.

A server that cannot write its log stops, and comes back by itself once there is room, or gives up:
then the next round has another one.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest

from tests import private_postgresql, services
from tests.e2e.arena import change
from tests.e2e.project import Project, postgresql_project
from tests.e2e.test_full_disks import MEBIBYTE, Disk, disk

ROOM = 320 * MEBIBYTE
SECONDS = 120
TRIES = 300
VERBS = {
    "backup": ["backup"],
    "restore": ["restore", "--latest", "--no-input"],
    "undo": ["restore", "--undo", "--no-input"],
}
Tell = Callable[[str], None]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A small disk, on which the next private server lies."""
    folder = Path(mkdtemp(prefix="mb_server_", dir="/tmp"))
    try:
        with disk(folder, ROOM, "711") as mounted:
            monkeypatch.setattr(private_postgresql, "_roomy_place", lambda: folder)
            yield mounted
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.torture
def test_servers_disk_that_fills(
    place: Disk,
    tmp_path: Path,
    torture_random: random.Random,
    torture_rounds: int,
    tell: Tell,
) -> None:
    rounds = (torture_rounds + 3) // 4
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    done = 0
    while done < rounds:
        # The project cannot be taken off a server that has given up.
        with contextlib.suppress(psycopg.OperationalError), _project(tmp_path, done) as project:
            paces = {verb: _seconds(project, command) for verb, command in VERBS.items()}
            for _number in range(done, rounds):
                done += 1
                verb = torture_random.choice([*VERBS])
                problems += _round(project, place, verb, paces[verb], torture_random, outcomes)
                if outcomes["the server gave up"]:
                    outcomes["servers that gave up"] += outcomes.pop("the server gave up")
                    break
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    tell(f"full (exit statuses): {counts}, {len(problems)} problems")
    assert not problems, "\n".join(problems)


@contextlib.contextmanager
def _project(folder: Path, number: int) -> Iterator[Project]:
    with (
        services.postgresql() as server,
        postgresql_project(folder / str(number), server) as project,
    ):
        project.populate()
        project.backup()
        change(project)
        yield project


def _round(
    project: Project,
    place: Disk,
    verb: str,
    pace: float,
    chance: random.Random,
    outcomes: Counter[str],
) -> Iterator[str]:
    """Fill the disk once; what is live is what it was, or what the verb was to bring."""
    project.backup()
    saved = project.fingerprint()
    project.execute("UPDATE zoo_account SET balance = balance + 1")
    before = project.fingerprint()
    if verb == "undo":
        project.restore("--latest")
    expected = {"backup": before, "restore": saved, "undo": before}[verb]
    usual = saved if verb == "undo" else before
    moment = chance.uniform(0.1, 1.0) * pace
    status, said = _struck(project, VERBS[verb], place, moment)
    label = f"full at {moment:.2f} s of {verb}"
    outcomes[f"{verb}: {status}"] += 1
    if status not in {0, 1}:
        yield f"{label}: it ended with {status}: {said}"
    if "Traceback" in said:
        yield f"{label}: a traceback: {said}"
    if not _comes_back(project):
        outcomes["the server gave up"] += 1
        return
    live = project.fingerprint()
    if live not in (usual, expected):
        yield f"{label}: live data is torn after exit {status}: {said}"
    elif status == 0 and live != expected:
        yield f"{label}: live data is not new after exit 0: {said}"
    again = project.manage("backup", check=False)
    if again.returncode:
        yield f"{label}: the next backup ended with {again.returncode}: {again.stderr[-2000:]}"
    if project.fingerprint() not in (usual, expected):
        yield f"{label}: live data is torn after the next run: {again.stderr[-2000:]}"
    restored = project.manage("restore", "--latest", "--no-input", check=False)
    if restored.returncode:
        yield f"{label}: the next restore ended with {restored.returncode}: {restored.stderr}"
    if left := _beside(project):
        yield f"{label}: left on the server, and not in the journal: {left}"


def _seconds(project: Project, command: list[str]) -> float:
    began = time.monotonic()
    project.manage(*command)
    return time.monotonic() - began


def _struck(project: Project, command: list[str], place: Disk, moment: float) -> tuple[int, str]:
    """Run the command, and fill the disk at `moment` until it has ended."""
    output = project.root.parent / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            project.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=project.root,
            env=project.environment(),
        )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.send_signal(signal.SIGSTOP)  # nothing, where it has ended
        try:
            place.fill()
        finally:
            process.send_signal(signal.SIGCONT)
        status = process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()
        place.free()
    return status, output.read_text(errors="replace")[-3000:]


def _comes_back(project: Project) -> bool:
    """Say whether the server does: one that fills its disk while it recovers gives up."""
    for _try in range(TRIES):
        with contextlib.suppress(psycopg.OperationalError):
            project.execute("SELECT 1")
            return True
        time.sleep(0.1)
    return False


def _beside(project: Project) -> list[str]:
    """Remove what restores replaced, since the disk is small; return what none tells of."""
    assert project.server is not None
    records = [*(project.state / "restores").glob("*.json")]
    told = "".join(record.read_text() for record in records)
    live = str(project.database["NAME"])
    names = [str(name) for (name,) in project.server.execute("SELECT datname FROM pg_database")]
    others = [name for name in names if name.startswith(live) and name != live]
    for name in others:
        project.server.drop_database(name)
    for record in records:
        record.unlink()
    return [name for name in others if name not in told]
