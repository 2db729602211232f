"""No secret shows where others can look: process lists, environments, output, logs, state."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import services
from tests.e2e.offsite import S3, SFTP, keep_on
from tests.e2e.project import Project, postgresql_project
from tests.services import PostgreSQLServer, S3Server

SECONDS = 240
PAUSE = 0.001
"""Between two looks, in seconds: no program is over so soon, and others want the processor."""

RUN = (
    "backup",
    "restore --latest --from s3 --no-input",
    "restore --latest --from sftp --only media --no-input --json",
    "verify_backups --level=content --json",
    "list_backups --sync --json",
    "list_backups",
)
RECOVER = ("list", "verify --content", "unpack {name} --to {folder}")

pytestmark = pytest.mark.timeout(900)

# Botocore shows requests at DEBUG, and these name the access key: it is no part of us.
CHATTY = """
LOGGING = {
    "version": 1,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": BASE_DIR / "log"}},
    "root": {"handlers": ["file"], "level": "DEBUG"},
    "loggers": {"botocore": {"level": "INFO"}},
}
DEBUG = True
"""

# As docs/howto/offsite.md has them.
FROM_ENVIRONMENT = """
import os
STORAGES["s3"]["OPTIONS"].update(
    access_key=os.environ.get("BACKUP_ACCESS_KEY"), secret_key=os.environ.get("BACKUP_SECRET_KEY"))
"""
OWN_VARIABLES = b"BACKUP_"


@dataclass(kw_only=True)
class Watched:
    """What could be seen of the processes of all commands, and what they printed.

    `given` says that a process was started with secrets in its own environment.
    """

    tools: set[str] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)
    printed: list[bytes] = field(default_factory=list)
    given: bool = False


@dataclass(kw_only=True)
class Story:
    """`keys` are variables of the environment that the project reads its S3 keys from."""

    project: Project
    server: S3Server
    keys: dict[str, str]
    canaries: dict[str, bytes]
    watched: Watched

    def environment(self, **changed: str) -> dict[str, str]:
        return {**self.project.environment(), **self.keys, **changed}


@pytest.fixture(scope="module")
def story(
    postgresql_server: PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """A project whose secrets are known to us, after each of its commands was watched."""
    folder = tmp_path_factory.mktemp("secrets")
    with (
        services.s3() as s3,
        services.sftp() as sftp,
        postgresql_project(folder, postgresql_server) as project,
    ):
        signing_key = project.root / "signing"
        for file in (project.passphrase_file, signing_key):
            file.touch(mode=0o600)
            file.write_text(f"canary-{secrets.token_hex(16)}\n")
        (project.root / "known_hosts").write_text(sftp.known_host)
        public = {k: v for k, v in s3.options().items() if k not in ("access_key", "secret_key")}
        to_sftp = sftp.options(project.root / "known_hosts")
        keep_on(project, {"s3": (S3, public), "sftp": (SFTP, to_sftp)}, local=True, RETRY_FOR=0)
        project.backup_settings["SIGNING_KEY_FILE"] = str(signing_key)
        project.more_settings += f"{FROM_ENVIRONMENT}{CHATTY}"
        project.write()
        project.populate()
        made = Story(
            project=project,
            server=s3,
            keys={"BACKUP_ACCESS_KEY": s3.access_key, "BACKUP_SECRET_KEY": s3.secret_key},
            canaries={
                "passphrase": project.passphrase_file.read_bytes().strip(),
                "signing key": signing_key.read_bytes().strip(),
                "database password": project.database["PASSWORD"].encode(),
                "S3 access key": s3.access_key.encode(),
                "S3 secret key": s3.secret_key.encode(),
                "SFTP password": sftp.password.encode(),
            },
            watched=Watched(),
        )
        for line in RUN:
            _watch(project.command(*line.split()), made.environment(), project.root, made.watched)
        yield made


def test_the_tools_were_seen_at_work(story: Story) -> None:
    assert {"gpg", "pg_dump", "pg_restore"} <= story.watched.tools


def test_no_secret_in_arguments_or_environments(story: Story) -> None:
    assert _found(story, dict.fromkeys(story.watched.seen, "processes")) == []


def test_no_secret_in_what_is_printed(story: Story) -> None:
    assert b"complete" in b"".join(story.watched.printed)
    assert _found(story, dict.fromkeys(story.watched.printed, "output")) == []


def test_secrets_were_given_by_the_environment(story: Story) -> None:
    assert story.watched.given


def test_no_secret_in_json(story: Story) -> None:
    documents = [json.loads(text) for text in story.watched.printed if text[:1] in (b"[", b"{")]

    assert len(documents) == 3
    assert {copy["destination"] for copy in documents[-1][-1]["copies"]} == {"local", "s3", "sftp"}
    assert _found(story, {json.dumps(document).encode(): "JSON" for document in documents}) == []


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
                result = project.manage("backup", *flags, check=False, env=story.keys)
                assert result.returncode == 1
                said = (result.stdout + result.stderr).encode()
                assert _found(story, {said: f"error after {change}"}) == []
            settings.write_text(text)
    finally:
        project.database = live


OFF_SITE_ERRORS = {
    "wrong access key": ("s3", "", {"BACKUP_ACCESS_KEY": "S3 access key"}),
    "wrong secret key": ("s3", "", {"BACKUP_SECRET_KEY": "S3 secret key"}),
    "no keys": ("s3", "", {"BACKUP_ACCESS_KEY": "", "BACKUP_SECRET_KEY": ""}),
    "no S3 server": ("s3", "STORAGES['s3']['OPTIONS']['endpoint_url'] = 'http://127.0.0.1:1'", {}),
    "wrong password": ("sftp", "STORAGES['sftp']['OPTIONS']['params']['password'] += 'x'", {}),
    "no SFTP server": ("sftp", "STORAGES['sftp']['OPTIONS']['params']['port'] = 1", {}),
    "unknown host": ("sftp", "STORAGES['sftp']['OPTIONS']['known_host_file'] = '/dev/null'", {}),
}


@pytest.mark.parametrize(
    ("destination", "settings", "keys"), OFF_SITE_ERRORS.values(), ids=OFF_SITE_ERRORS
)
def test_no_secret_in_errors_of_destinations(
    story: Story, destination: str, settings: str, keys: dict[str, str]
) -> None:
    project = story.project
    wrong = {
        # What is nearly a secret is one, too: the canary is found in it.
        name: f"{story.canaries[canary].decode()}x" if canary else ""
        for name, canary in keys.items()
    }
    file = project.root / "config" / "settings.py"
    text = file.read_text()
    file.write_text(f"{text}\n{settings}\n")
    alone = ("--destination", destination, "--traceback", "--verbosity=3")
    try:
        results = [
            project.manage(
                "backup", "--only=media", *flags, check=False, env={**story.keys, **wrong}
            )
            for flags in (alone, ("--json",))
        ]
    finally:
        file.write_text(text)

    printed = {(result.stdout + result.stderr).encode(): "output" for result in results}
    assert [result.returncode for result in results] == [1, 3], results
    assert _found(story, printed) == []
    assert _found(story, dict.fromkeys(_catalog(project), "catalog")) == []
    assert _found(story, {(project.root / "log").read_bytes(): "log"}) == []


def test_no_secret_in_errors_of_a_wrong_passphrase(story: Story) -> None:
    project = story.project
    right = project.passphrase_file.read_bytes()
    printed = {}
    try:
        project.passphrase_file.write_bytes(right.strip() + b"x\n")
        for command in ("restore --latest --no-input", "verify_backups --level=content --json"):
            result = project.manage(*command.split(), check=False, env=story.keys)
            assert result.returncode != 0
            printed[(result.stdout + result.stderr).encode()] = command
    finally:
        project.passphrase_file.write_bytes(right)

    assert _found(story, printed) == []


def test_no_secret_of_recovery_program(story: Story, workdir: Path) -> None:
    folder = story.server.folder
    assert folder is not None
    name = max(path.parent.name for path in folder.glob("manual_*/manifest.json"))
    watched = Watched()
    secrets_of = ["--passphrase-file", str(story.project.passphrase_file)]
    secrets_of += ["--passphrase-file", str(story.project.root / "signing")]
    for line in RECOVER:
        arguments = line.format(name=name, folder=workdir / "out").split()
        program = [sys.executable, "-I", str(folder / "recover.py")]
        environment = {"PATH": os.environ["PATH"]}
        _watch([*program, *arguments, *secrets_of], environment, workdir, watched)
    wrong = workdir / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_bytes(story.canaries["passphrase"] + b"x\n")
    refused = subprocess.run(
        [*program, "verify", name, "--content", "--passphrase-file", str(wrong)],
        capture_output=True,
        env=environment,
        timeout=SECONDS,
    )

    assert refused.returncode == 4
    assert {"gpg"} <= watched.tools
    assert b"authentic" in b"".join(watched.printed)
    printed = [*watched.printed, refused.stdout, refused.stderr]
    assert _found(story, dict.fromkeys([*watched.seen, *printed], "recover.py")) == []


def test_no_secret_in_the_catalog(story: Story) -> None:
    rows = _catalog(story.project)

    assert len(rows) >= 4
    assert any(b"sftp" in row for row in rows)
    assert _found(story, dict.fromkeys(rows, "catalog")) == []


def test_no_secret_at_the_destinations(story: Story) -> None:
    folder = story.server.folder
    assert folder is not None
    files = {path for path in folder.rglob("*") if path.is_file()}

    assert {"manifest.json", "recover.py"} <= {path.name for path in files}
    assert _found(story, {path.read_bytes(): path.name for path in files}) == []


def test_no_secret_in_stored_files_state_or_logs(story: Story) -> None:
    kept = {
        story.project.passphrase_file,
        story.project.root / "signing",
        story.project.root / "config" / "settings.py",
        *(story.project.root / "config").rglob("*.pyc"),
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


def _catalog(project: Project) -> list[bytes]:
    """Return the rows of the catalog as text."""
    rows = []
    for model in ("backup", "copy", "restore"):
        rows += project.execute(f"SELECT t::text FROM mipyme_backup_{model} AS t")
    return [str(row).encode() for row in rows]


def _watch(
    argv: Sequence[str], environment: Mapping[str, str], folder: Path, watched: Watched
) -> None:
    """Run a command to its end, looking at it and its descendants all the while."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment,
    )
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            _sample(process.pid, watched)
            time.sleep(PAUSE)

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
    """Note the arguments and the environment of the process `root` and of its descendants.

    What whoever started `root` gave it by variables of their own is left out, for `root` alone:
    also of a child of it that has not become another program yet.
    """
    pending = [root]
    first = b""
    while pending:
        folder = Path("/proc", str(pending.pop()))
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes()
            first = first or arguments
            variables = (folder / "environ").read_bytes()
            if arguments == first:
                kept = [v for v in variables.split(b"\0") if not v.startswith(OWN_VARIABLES)]
                watched.given |= OWN_VARIABLES in variables
                variables = b"\0".join(kept)
            watched.seen |= {arguments, variables}
            watched.tools.add(os.path.basename(arguments.partition(b"\0")[0]).decode())
        with contextlib.suppress(OSError):
            for task in (folder / "task").iterdir():
                pending += map(int, (task / "children").read_text().split())
