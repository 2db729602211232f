"""A backup comes back with the shell commands of `docs/format.md`, and none of our code."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import (
    REPOSITORY,
    Project,
    postgresql_project,
    sqlite_project,
    write_odd_media,
)
from tests.fingerprint import difference
from tests.services import PostgreSQLServer

DOCUMENT = (REPOSITORY / "docs" / "format.md").read_text()
EXAMPLE = "mipyme_backup_20250101T080000Z"
SECONDS = 120

pytestmark = pytest.mark.skipif(
    not shutil.which("zstd"), reason="the program zstd is missing: apt-get install zstd"
)


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with sqlite_project(tmp_path_factory.mktemp("hand")) as project:
        yield _saved(project)


@pytest.fixture(scope="module")
def on_postgresql(
    postgresql_server: PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    with postgresql_project(tmp_path_factory.mktemp("hand"), postgresql_server) as project:
        yield _saved(project)


def test_postgresql_database(on_postgresql: Project, workdir: Path) -> None:
    project = on_postgresql
    (block,) = _blocks("console", "pg_restore")
    # Named like the project's own, it is removed with them.
    name = f"{project.database['NAME']}_again"
    script = _commands(block).replace("shop_again", name)
    script = script.replace("/tmp/default.dump", str(workdir / "default.dump"))

    _by_hand(project, script, workdir)

    before, after = project.fingerprint(), project.fingerprint(name)
    del before["database settings"], after["database settings"]  # pg_dump does not carry them
    assert len(before) > 100
    assert difference(before, after) == []


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="the program sqlite3 is missing")
def test_sqlite_database(on_sqlite: Project, workdir: Path) -> None:
    (block,) = _blocks("console", "pg_restore")
    assert "the same with `database.default.sqlite3.zst.gpg.*`" in DOCUMENT
    first = _commands(block).partition("createdb")[0]
    copy = workdir / "again.sqlite3"
    script = first.replace("default.dump.zst", "default.sqlite3.zst")
    script = script.replace("/tmp/default.dump", str(copy))

    _by_hand(on_sqlite, script, workdir)

    checked = _shell(f"sqlite3 {copy} 'PRAGMA integrity_check'", workdir, {})
    assert checked.strip() == "ok"
    assert difference(on_sqlite.fingerprint(), on_sqlite.fingerprint(str(copy))) == []


def test_media(on_sqlite: Project, workdir: Path) -> None:
    project = on_sqlite
    (block,) = _blocks("console", "media.index.jsonl")

    folder = _by_hand(project, f"cd {EXAMPLE}\n{_commands(block)}", workdir)

    before = project.media_fingerprint()
    assert len(before) > 20
    assert difference(before, project.media_fingerprint(folder / "media")) == []


def test_fixtures(on_sqlite: Project, workdir: Path) -> None:
    (block,) = _blocks("console", "loaddata")
    other = on_sqlite.bare_host(workdir / "other")
    settings = other.root / "config" / "settings.py"
    settings.write_text(settings.read_text() + "INSTALLED_APPS.remove('mipyme_backup')\n")
    other.manage("migrate", "--verbosity=0")
    command = _commands(block).replace("manage.py", str(other.root / "manage.py"))

    _by_hand(on_sqlite, f"cd {EXAMPLE}\n{command}", workdir)

    before, after = (_model_rows(project.fingerprint()) for project in (on_sqlite, other))
    assert len(before) > 25
    assert difference(before, after) == []


@pytest.mark.parametrize("damaged", [False, True], ids=["authentic", "changed"])
def test_manifest_is_authenticated(on_sqlite: Project, workdir: Path, damaged: bool) -> None:
    (snippet,) = _blocks("python", "hmac")
    folder = _unpacked(on_sqlite, workdir) / EXAMPLE
    if damaged:
        manifest = folder / "manifest.json"
        manifest.write_bytes(manifest.read_bytes().replace(b'"manual"', b'"manuel"', 1))
    assert '"/root/passphrase"' in snippet
    code = snippet.replace('"/root/passphrase"', repr(str(workdir / "passphrase")))

    said = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=SECONDS,
        check=True,
    )

    assert said.stdout.strip() == str(not damaged)


def _saved(project: Project) -> Project:
    project.manage("migrate", "--verbosity=0")
    project.manage("populate_zoo")
    write_odd_media(project.media)
    (project.media / "outward link").symlink_to("/nowhere/at all")
    project.backup()
    return project


def _blocks(language: str, needle: str) -> list[str]:
    """Return the document's code blocks of a language that hold `needle`."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if needle in block]


def _commands(block: str) -> str:
    """Return what a reader types: without prompts, with gpg's options where the text cuts them."""
    (options,) = re.findall(r"gpg (--batch .*?--decrypt)", DOCUMENT)
    lines = [line.removeprefix("$ ") for line in block.splitlines()]
    return "\n".join(lines).replace("gpg … --decrypt", f"gpg {options}")


def _unpacked(project: Project, workdir: Path) -> Path:
    """Copy the backup, under the name that the document gives it, and the passphrase."""
    folder = workdir / "destination"
    (saved,) = project.backups.glob("manual_*")
    shutil.copytree(saved, folder / EXAMPLE)
    shutil.copytree(project.backups / "pool", folder / "pool")
    shutil.copyfile(project.passphrase_file, workdir / "passphrase")
    return folder


def _by_hand(project: Project, script: str, workdir: Path) -> Path:
    """Run the commands beside the backup's folder; return that of the backup."""
    folder = _unpacked(project, workdir)
    environment = {}
    if project.server is not None:
        environment = {
            "PGHOST": project.database["HOST"],
            "PGPORT": project.database["PORT"],
            "PGUSER": project.database["USER"],
            "PGPASSWORD": project.database["PASSWORD"],
        }
    path = project.environment()["PATH"]
    _shell(f"cd {folder}\n{script}", workdir, {**environment, "PATH": path})
    return folder / EXAMPLE


def _shell(script: str, home: Path, environment: dict[str, str]) -> str:
    """Run a script of bash; where one step fails, the whole fails. Its home is `home`."""
    path = environment.get("PATH", os.environ["PATH"])
    environment = {
        "LC_ALL": "C.UTF-8",
        **environment,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}",
    }
    try:
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            cwd=home,
            timeout=SECONDS,
        )
    finally:
        with contextlib.suppress(OSError):
            # An agent of this home, which gpg may have started.
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, timeout=30)
    assert result.returncode == 0, f"{script}\n{result.stderr[-3000:]}"
    assert "mipyme_backup/" not in result.stderr
    return result.stdout


def _model_rows(content: dict[str, str]) -> dict[str, str]:
    """Return the rows of managed models that hold no number of a content type."""
    kept = ("rows zoo_", "rows auth_group", "rows auth_user")
    return {
        key: value
        for key, value in content.items()
        if key.startswith(kept) and key not in {"rows zoo_note", "rows auth_group_permissions"}
    }
