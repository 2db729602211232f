"""No secret shows where others can look: process lists, environments, output, logs, state."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.project import Project, postgresql_project
from tests.services import PostgreSQLServer

SECONDS = 120
RUN = ("backup", "restore --latest --no-input", "verify_backups --level=content", "list_backups")
CHATTY = """
LOGGING = {
    "version": 1,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": BASE_DIR / "log"}},
    "root": {"handlers": ["file"], "level": "DEBUG"},
}
DEBUG = True
"""


@dataclass(kw_only=True)
class Watched:
    """What could be seen of the processes of all commands, and what they printed."""

    tools: set[str] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)
    printed: list[bytes] = field(default_factory=list)


@dataclass(kw_only=True)
class Story:
    project: Project
    canaries: dict[str, bytes]
    watched: Watched


@pytest.fixture(scope="module")
def story(
    postgresql_server: PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """A project whose secrets are known to us, after each of its commands was watched."""
    folder = tmp_path_factory.mktemp("secrets")
    with postgresql_project(folder, postgresql_server) as project:
        signing_key = project.root / "signing"
        for file in (project.passphrase_file, signing_key):
            file.touch(mode=0o600)
            file.write_text(f"canary-{secrets.token_hex(16)}\n")
        with (project.root / "config" / "settings.py").open("a") as settings:
            settings.write(f"MIPYME_BACKUP['SIGNING_KEY_FILE'] = {str(signing_key)!r}\n{CHATTY}")
        project.populate()
        canaries = {
            "passphrase": project.passphrase_file.read_bytes().strip(),
            "signing key": signing_key.read_bytes().strip(),
            "database password": project.database["PASSWORD"].encode(),
        }
        watched = Watched()
        for line in RUN:
            _watch(project, line.split(), watched)
        yield Story(project=project, canaries=canaries, watched=watched)


def test_the_tools_were_seen_at_work(story: Story) -> None:
    assert {"gpg", "pg_dump", "pg_restore"} <= story.watched.tools


def test_no_secret_in_arguments_or_environments(story: Story) -> None:
    assert _found(story, dict.fromkeys(story.watched.seen, "processes")) == []


def test_no_secret_in_what_is_printed(story: Story) -> None:
    assert b"complete" in b"".join(story.watched.printed)
    assert _found(story, dict.fromkeys(story.watched.printed, "output")) == []


def test_no_secret_in_errors(story: Story) -> None:
    project = story.project
    live = dict(project.database)
    try:
        for change in ({"PORT": "1"}, {"NAME": "no_such_database"}, {"PASSWORD": "wrong"}):
            project.database = {**live, **change}
            settings = project.root / "config" / "settings.py"
            text = settings.read_text()
            settings.write_text(f"{text}\nDATABASES['default'].update({change!r})\n")
            for flags in ([], ["--traceback", "--verbosity=3"]):
                result = project.manage("backup", *flags, check=False)
                assert result.returncode == 1
                said = (result.stdout + result.stderr).encode()
                assert _found(story, {said: f"error after {change}"}) == []
            settings.write_text(text)
    finally:
        project.database = live


def test_no_secret_in_the_catalog(story: Story) -> None:
    rows = []
    for model in ("backup", "copy", "restore"):
        rows += story.project.execute(f"SELECT t::text FROM mipyme_backup_{model} AS t")

    assert len(rows) >= 4
    assert _found(story, {str(row).encode(): "catalog" for row in rows}) == []


def test_no_secret_in_stored_files_state_or_logs(story: Story) -> None:
    kept = {
        story.project.passphrase_file,
        story.project.root / "signing",
        story.project.root / "config" / "settings.py",
    }
    files = {path for path in story.project.root.rglob("*") if path.is_file()} - kept

    names = {path.name for path in files}
    assert {"manifest.json", "lock", "log"} <= names
    assert any(path.parent.name == "restores" for path in files)
    assert _found(story, {path.read_bytes(): str(path) for path in files}) == []


def test_no_secret_stays_in_temporary_files(story: Story) -> None:
    homes = [
        path
        for path in Path("/tmp").glob("mipyme-gpg-*")
        if not Path("/proc", path.name.split("-")[2]).exists()
    ]

    assert homes == []


def test_sampler_finds_what_is_there(story: Story) -> None:
    canary = story.canaries["passphrase"].decode()
    watched = Watched()
    process = subprocess.Popen(["sleep", "5"], env={"SECRET": canary, "PATH": os.defpath})
    try:
        _sample(os.getpid(), watched)
    finally:
        process.kill()
        process.wait()

    assert _found(story, dict.fromkeys(watched.seen, "here")) != []


def _found(story: Story, places: dict[bytes, str]) -> list[str]:
    """Return a line for each place that holds a secret, without the secret."""
    return [
        f"{name} in {where}"
        for content, where in places.items()
        for name, canary in story.canaries.items()
        if canary in content
    ]


def _watch(project: Project, args: list[str], watched: Watched) -> None:
    """Run a command to its end, looking at it and its descendants all the while."""
    process = subprocess.Popen(
        project.command(*args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=project.root,
        env=project.environment(),
    )
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            _sample(process.pid, watched)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        output = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        ended.set()
        looking.join()
    assert process.returncode == 0, output
    watched.printed += output


def _sample(root: int, watched: Watched) -> None:
    """Note the arguments and the environment of the process `root` and of its descendants."""
    pending = [root]
    while pending:
        folder = Path("/proc", str(pending.pop()))
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes()
            watched.seen |= {arguments, (folder / "environ").read_bytes()}
            watched.tools.add(os.path.basename(arguments.partition(b"\0")[0]).decode())
        with contextlib.suppress(OSError):
            for task in (folder / "task").iterdir():
                pending += map(int, (task / "children").read_text().split())
