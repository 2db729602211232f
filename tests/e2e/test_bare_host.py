"""A bucket, its credentials and the passphrase are enough: everything else may be gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import services
from tests.e2e.offsite import S3, keep_on
from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.fingerprint import MediaEntry, difference
from tests.services import S3Server

SECONDS = 240
TOOLS = ("gpg", "zstd")


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A project that is gone, what it held, its only `backup` by name, and who has that."""

    project: Project
    backup: str
    database: dict[str, str]
    media: dict[bytes, MediaEntry]
    server: S3Server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lost(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lost]:
    folder = tmp_path_factory.mktemp("bare")
    with services.s3() as bucket:
        if request.param == "sqlite":
            with sqlite_project(folder) as project:
                yield _saved_and_lost(project, bucket)
            return
        with services.postgresql() as server, postgresql_project(folder, server) as project:
            yield _saved_and_lost(project, bucket)


def test_restore_from_the_bucket(lost: Lost, workdir: Path, tell: Callable[[str], None]) -> None:
    host = lost.project.bare_host(workdir / "host")
    assert not host.database_exists()
    assert not host.media.exists()

    began = time.monotonic()
    host.manage("restore", "--latest", "--no-input")
    seconds = time.monotonic() - began

    tell(f"restored on a bare host in {seconds:.1f} s")
    assert difference(lost.database, host.fingerprint()) == []
    assert difference(lost.media, host.media_fingerprint()) == []
    assert [row["status"] for row in host.json("list_backups")] == ["complete"]


def test_restored_host_goes_on(lost: Lost, workdir: Path) -> None:
    """The backups of the new host follow those of the old one, and share their files."""
    host = lost.project.bare_host(workdir / "host")
    host.restore("--latest")
    before = _objects(lost.server)

    made = host.backup("--label", "of the new host")

    assert made["status"] == "complete"
    assert [name for name in _objects(lost.server) - before if name.startswith("pool/")] == []
    assert host.json("list_backups", "--sync")[0]["label"] == "of the new host"
    assert all(row["ok"] for row in host.json("verify_backups", "--level=content"))


@pytest.mark.skipif(not shutil.which("zstd"), reason="the program zstd is missing")
def test_recovery_program_in_a_downloaded_bucket(
    lost: Lost, workdir: Path, tell: Callable[[str], None]
) -> None:
    shutil.copyfile(lost.project.passphrase_file, workdir / "passphrase")
    (workdir / "passphrase").chmod(0o600)
    host, out = lost.project.bare_host(workdir / "host"), workdir / "out"

    began = time.monotonic()
    services.download(lost.server, workdir / "backups")
    downloaded = time.monotonic()
    listed = _recover(workdir, "list")
    _recover(workdir, "unpack", lost.backup, "--to", str(out))
    unpacked = time.monotonic()
    _load(out, host)
    loaded = time.monotonic()

    tell(
        f"downloaded in {downloaded - began:.1f} s, listed and unpacked in"
        f" {unpacked - downloaded:.1f} s, loaded in {loaded - unpacked:.1f} s"
    )
    assert lost.backup in listed
    assert "authentic: the key at hand made it" in listed
    before, after = dict(lost.database), host.fingerprint()
    for content in (before, after):
        content.pop("database settings", None)  # pg_dump does not carry them
    assert len(before) > 30
    assert difference(before, after) == []
    assert difference(lost.media, host.media_fingerprint()) == []


def _saved_and_lost(project: Project, server: S3Server) -> Lost:
    """Back the project up to S3 alone, and lose all that is on this machine but the code."""
    keep_on(project, {"s3": (S3, server.options(location="shop"))})
    project.populate()
    report = project.backup()
    lost = Lost(
        project=project,
        backup=report["name"],
        database=project.fingerprint(),
        media=project.media_fingerprint(),
        server=server,
    )
    assert report["status"] == "complete"
    assert len(lost.media) > 20
    project.destroy()
    shutil.rmtree(project.root / ".mipyme_backup")
    assert not project.backups.exists()
    return lost


def _objects(server: S3Server) -> set[str]:
    assert server.folder is not None
    return {
        str(path.relative_to(server.folder / "shop"))
        for path in server.folder.rglob("*")
        if path.is_file()
    }


def _recover(folder: Path, *args: str) -> str:
    """Run the `recover.py` that was downloaded, with nothing but this Python, gpg and zstd."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for tool in TOOLS:
        if not (tools / tool).exists():
            (tools / tool).symlink_to(str(shutil.which(tool)))
    program = folder / "backups" / "shop" / "recover.py"
    result = subprocess.run(
        [sys.executable, "-I", "-S", program, *args, "--passphrase-file", folder / "passphrase"],
        capture_output=True,
        text=True,
        env={"PATH": str(tools), "LANG": "C.UTF-8"},
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _load(out: Path, host: Project) -> None:
    """Put what was unpacked into the place of the project `host`."""
    shutil.move(out / "media", host.media)
    if host.server is None:
        shutil.move(out / "database.default.sqlite3", host.database["NAME"])
        return
    host.create_database()
    argv = ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={host.database['NAME']}"]
    loaded = subprocess.run(
        [*argv, out / "database.default.dump"],
        capture_output=True,
        text=True,
        env={
            **host.environment(),
            "PGHOST": host.database["HOST"],
            "PGPORT": host.database["PORT"],
            "PGUSER": host.database["USER"],
            "PGPASSWORD": host.database["PASSWORD"],
        },
        timeout=SECONDS,
    )
    assert loaded.returncode == 0, loaded.stderr
