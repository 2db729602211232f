"""`recover.py`, run as a stranger would: beside the backups, with Python, gpg and zstd alone."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from backports import zstd

from mipyme_backup import manifest as manifests
from mipyme_backup import recover
from mipyme_backup.encryption.passphrase import derive_key, fingerprint
from mipyme_backup.manifest import Manifest, SavedSource, StoredArtifact, Volume
from tests import services
from tests.e2e import frozen
from tests.e2e.project import REPOSITORY, Project, postgresql_project, sqlite_project
from tests.fingerprint import difference

PROGRAM = Path(recover.__file__)
FORMATS = sorted((REPOSITORY / "tests" / "artifacts").glob("format_*"))
OLD_PYTHONS = (Path("/usr/bin/python3.9"), *Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"))
SECONDS = 240
NAME = "manual_20250102T120000Z"
SECRET = b"a signing key"
CONTENT = b"content"
HASH = hashlib.sha256(CONTENT).hexdigest()


def pythons() -> list[str]:
    """Return this Python, and the oldest one that is supported where it is at hand."""
    return [sys.executable, *(str(path) for path in OLD_PYTHONS if path.exists())][:2]


@dataclass
class Host:
    """A bare machine: a folder with the backups and `recover.py`, and a passphrase file."""

    root: Path
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.root / "backups"

    @property
    def passphrase_file(self) -> Path:
        return self.root / "passphrase"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def bring(self, backups: Path, passphrase: bytes) -> None:
        """Copy the backups, `recover.py` and the passphrase to this machine."""
        shutil.copytree(backups, self.store, ignore=shutil.ignore_patterns(".state"))
        shutil.copyfile(PROGRAM, self.store / "recover.py")
        self.passphrase_file.write_bytes(passphrase)
        self.passphrase_file.chmod(0o600)

    def command(self, *args: str) -> list[str]:
        return [self.python, "-I", str(self.store / "recover.py"), *args]

    def variables(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **self.environment}

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run `recover.py` without a terminal; whatever happens, it prints no traceback."""
        result = subprocess.run(
            self.command(*args),
            capture_output=True,
            text=True,
            cwd=self.root,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=SECONDS,
        )
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def good(self, *args: str) -> str:
        result = self.run(*args)
        assert result.returncode == recover.FINE, result.stdout + result.stderr
        return result.stdout

    def with_key(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.run(*args, "--passphrase-file", str(self.passphrase_file))

    def unpack(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.with_key("unpack", NAME, "--to", str(self.out), *args)

    def volume(self, stem: str, number: int = 0) -> Path:
        (path,) = self.store.glob(f"*/{stem}.*.{number:05d}")
        return path


@pytest.fixture
def host(workdir: Path) -> Host:
    return Host(workdir)


@pytest.fixture
def frozen_host(workdir: Path) -> Host:
    """The frozen backup of SQLite, named like those that are made by hand here."""
    host = Host(workdir)
    host.bring(FORMATS[0] / "sqlite", frozen.PASSPHRASE.encode())
    return host


# What comes back.


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_frozen_backup(folder: Path, kind: str, python: str, host: Host) -> None:
    host.python = python
    host.bring(folder / kind, frozen.PASSPHRASE.encode())
    (name,) = (path.name for path in host.store.glob("manual_*"))

    listed = host.good("list")
    stored = host.good("verify")
    content = host.with_key("verify", name, "--content")
    unpacked = host.with_key("unpack", name, "--to", str(host.out))

    assert name in listed and "whole: all 4 files" in listed and "NOT AUTHENTICATED" in listed
    assert "good, all 4 files" in stored and "NOT AUTHENTICATED" in stored
    assert content.returncode == 0 and "authentic: the key" in content.stdout
    assert unpacked.returncode == 0, unpacked.stderr
    assert _files(host.out / "media") == {
        name: (size, sha256, mtime_ns)
        for name, (kind, size, sha256, mtime_ns) in json.loads(
            (folder / kind / "expected.json").read_text()
        )["files"].items()
        if kind == "file"
    }
    assert {path.name for path in host.out.iterdir()} == {
        "media",
        "fixtures.jsonl",
        "database.default.sqlite3" if kind == "sqlite" else "database.default.dump",
    }
    for path in host.out.iterdir():
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert host.out.stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("recover")
    with sqlite_project(folder, VOLUME_SIZE=65536) as project:
        project.populate()
        project.backup("--only", "media")
        (project.media / "plain.txt").write_bytes(b"changed since")
        project.backup()
        yield project


def test_sqlite_project_comes_back_by_the_commands_that_are_printed(
    on_sqlite: Project, host: Host
) -> None:
    host.bring(on_sqlite.backups, on_sqlite.passphrase_file.read_bytes())
    older, newer = sorted(path.name for path in on_sqlite.backups.glob("manual_*"))

    listed = host.good("list")
    verified = host.with_key("verify", "--content")
    unpacked = host.with_key("unpack", newer, "--to", str(host.out))

    names = [line for line in listed.splitlines() if line.startswith("manual_")]
    assert names == [newer, older]
    assert verified.returncode == 0, verified.stdout
    assert unpacked.returncode == 0, unpacked.stderr
    live = host.root / "site"
    (live / "media").mkdir(parents=True)
    _load(unpacked.stdout, host, {"/path/to/": f"{live}/"}, without="manage.py")
    before, after = on_sqlite.fingerprint(), on_sqlite.fingerprint(str(live / "db.sqlite3"))
    assert len(before) > 30 and difference(before, after) == []
    before_media = on_sqlite.media_fingerprint()
    assert len(before_media) > 20
    assert difference(before_media, on_sqlite.media_fingerprint(live / "media")) == []
    assert _modes(on_sqlite.media) == _modes(live / "media")


def test_only_a_part(on_sqlite: Project, host: Host) -> None:
    host.bring(on_sqlite.backups, on_sqlite.passphrase_file.read_bytes())
    older, newer = sorted(path.name for path in on_sqlite.backups.glob("manual_*"))
    shutil.rmtree(host.store / "pool")
    host.volume("fixtures").unlink()
    target = str(host.out)

    unknown = host.with_key("unpack", newer, "--to", target, "--only", "nothing")
    database = host.with_key("unpack", newer, "--to", target, "--only", "database")
    media = host.with_key("unpack", older, "--to", f"{target} 2", "--only", "media")

    assert unknown.returncode == recover.USAGE and "database:default" in unknown.stderr
    assert database.returncode == 0, database.stderr
    assert [path.name for path in host.out.iterdir()] == ["database.default.sqlite3"]
    assert media.returncode == recover.DAMAGED and "is missing" in media.stderr
    assert not Path(f"{target} 2").exists()


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with files in three places, two of which share what they have in common."""
    folder = tmp_path_factory.mktemp("shelves")
    media, private, certificates = (folder / name for name in ("media", "pri vate", "certs"))
    for place, files in (
        (media, {"logo.png": b"logo", "a/photo.jpg": b"photo"}),
        (private, {"invoice.pdf": b"invoice", "b/the same logo.png": b"logo"}),
        (certificates, {"site.pem": b"key"}),
    ):
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
    (certificates / "site.pem").chmod(0o400)
    entries = {
        "media": {"": str(media), "private": str(private)},
        "certificates": {"": str(certificates)},
    }
    sources: dict[str, Any] = {
        name: {"BACKEND": "tests.shelves.ShelvesSource", "OPTIONS": {"folders": folders}}
        for name, folders in entries.items()
    }
    sources["database"] = {"BACKEND": "mipyme_backup.sources.DatabaseSource"}
    with sqlite_project(folder / "project", SOURCES=sources) as project:
        project.populate()
        project.backup()
        yield project


@dataclass
class Shelves:
    """The backup of `shelves` on a bare host; `packs` are the ids that each index names."""

    host: Host
    name: str
    live: dict[str, Path]
    packs: dict[str, set[str]]

    def unpack(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.host.with_key("unpack", self.name, "--to", str(self.host.out), *args)

    def unpacked(self) -> set[str]:
        return {path.name for path in self.host.out.iterdir()}

    def lose(self, packs: set[str]) -> None:
        for pack in packs:
            shutil.rmtree(self.host.store / "pool" / pack)


@pytest.fixture
def shelved(shelves: Project, host: Host) -> Shelves:
    host.bring(shelves.backups, shelves.passphrase_file.read_bytes())
    (manifest,) = host.store.glob("manual_*/manifest.json")
    saved = {
        name.removesuffix(".index.jsonl"): facts
        for source in json.loads(manifest.read_bytes())["sources"]
        for name, facts in source["facts"].items()
        if "packs" in facts
    }
    assert [*saved] == ["media", "media.private", "certificates"]
    made = Shelves(
        host,
        manifest.parent.name,
        {name: Path(facts["place"]) for name, facts in saved.items()},
        {name: set(facts["packs"]) for name, facts in saved.items()},
    )
    assert made.packs["media"] < made.packs["media.private"]
    assert made.packs["media"].isdisjoint(made.packs["certificates"])
    return made


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_each_index_comes_back_to_a_folder_of_its_own(shelved: Shelves, python: str) -> None:
    host, site = shelved.host, shelved.host.root / "site"
    host.python = python

    verified = host.with_key("verify", "--content")
    unpacked = shelved.unpack()

    assert verified.returncode == 0, verified.stdout
    assert unpacked.returncode == 0, unpacked.stderr
    assert shelved.unpacked() == {*shelved.live, "database.default.sqlite3"}
    for name in shelved.live:
        (site / name).mkdir(parents=True)
    _load(unpacked.stdout, host, {"/path/to/": f"{site}/"})
    for name, live in shelved.live.items():
        assert len(_files(live)) > 0
        assert _files(host.out / name) == _files(site / name) == _files(live)
        assert _modes(site / name) == _modes(live)


def test_the_next_steps_fit_each_source_of_files(shelved: Shelves) -> None:
    printed = shelved.unpack().stdout

    steps = {part.partition("\n")[0]: part for part in printed.split("\n\n")}
    for source, text in (
        ("media", "that the settings name in MEDIA_ROOT"),
        ("media:private", "of the file storage private"),
        ("certificates", "that the settings name in SOURCES for certificates"),
    ):
        folder = source.replace(":", ".")
        assert text in steps[source]
        assert f"# where the files were: {shelved.live[folder]}\n" in steps[source]
        assert f"find {shelved.host.out / folder} " in steps[source]
        assert f" /path/to/{folder}/ " in steps[source]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["media"], {"media", "media.private"}),
        (["media:private"], {"media.private"}),
        (["certificates"], {"certificates"}),
        (["certificates", "database"], {"certificates", "database.default.sqlite3"}),
    ],
    ids=["all media", "one storage", "a folder", "two"],
)
def test_only_some_sources_of_files__and_no_pack_but_theirs_is_needed(
    shelved: Shelves, only: list[str], expected: set[str]
) -> None:
    needed = {pack for name in expected for pack in shelved.packs.get(name, ())}
    shelved.lose({pack for packs in shelved.packs.values() for pack in packs} - needed)

    whole = shelved.unpack()
    part = shelved.unpack(*(option for name in only for option in ("--only", name)))

    assert whole.returncode == recover.DAMAGED and "is missing" in whole.stderr
    assert part.returncode == 0, part.stderr
    assert shelved.unpacked() == expected


def test_a_lost_pack_of_one_index_is_told(shelved: Shelves) -> None:
    shelved.lose(shelved.packs["certificates"])

    verified = shelved.host.with_key("verify", "--content")

    assert verified.returncode == recover.DAMAGED
    assert verified.stdout.count("is missing") == 1


def test_postgresql_project_comes_back_by_the_commands_that_are_printed(
    postgresql_server: services.PostgreSQLServer, host: Host
) -> None:
    with postgresql_project(host.root / "project", postgresql_server) as project:
        project.manage("migrate", "--verbosity=0")
        project.manage("populate_zoo")
        project.backup("--only", "database")
        host.bring(project.backups, project.passphrase_file.read_bytes())
        (name,) = (path.name for path in project.backups.glob("manual_*"))

        unpacked = host.with_key("unpack", name, "--to", str(host.out), "--only", "database")

        assert unpacked.returncode == 0, unpacked.stderr
        major = postgresql_server.major
        assert f"server and client tools of {major} or newer" in unpacked.stdout
        host.environment = {
            "PATH": project.environment()["PATH"],
            "PGHOST": project.database["HOST"],
            "PGPORT": project.database["PORT"],
            "PGUSER": project.database["USER"],
            "PGPASSWORD": project.database["PASSWORD"],
        }
        _load(unpacked.stdout, host, {})
        before = project.fingerprint()
        after = project.fingerprint(f"{project.database['NAME']}_recovered")
        del before["database settings"], after["database settings"]  # pg_dump does not carry them
        assert len(before) > 100
        assert difference(before, after) == []


@pytest.mark.parametrize("name", ["a=b", "host=evil' \\\\ port='1", "postgresql://evil/x"])
def test_postgresql_takes_a_printed_name_as_a_name(
    postgresql_server: services.PostgreSQLServer, name: str
) -> None:
    postgresql_server.create_database(name)
    server = {
        "PATH": f"{postgresql_server.bin_dir}:{os.environ['PATH']}",
        "PGHOST": postgresql_server.host,
        "PGPORT": str(postgresql_server.port),
        "PGUSER": postgresql_server.user,
        "PGPASSWORD": postgresql_server.password,
    }
    try:
        answer = subprocess.run(
            ["psql", "-XAtc", "SELECT current_database()", "-d", recover.connection_to(name)],
            env=server,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    finally:
        postgresql_server.drop_database(name)

    assert answer.stdout == f"{name}\n", answer.stderr


def test_public_keys_of_the_callers_own_keyring(host: Host) -> None:
    home = host.root / "keys"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    make = ["--passphrase", "", "--quick-generate-key", "owner", "default", "default", "never"]

    def encrypt(data: bytes) -> bytes:
        to_owner = [*gpg, "--trust-model", "always", "--recipient", "owner", "--encrypt"]
        return subprocess.run(to_owner, input=data, capture_output=True, check=True).stdout

    try:
        subprocess.run([*gpg, *make], check=True, capture_output=True, timeout=SECONDS)
        forge(host, encrypt=encrypt, encryption="gpg-public-key")
        no_keyring = host.unpack()
        (host.root / "other").mkdir(mode=0o700)
        other_keyring = host.unpack("--gnupghome", str(host.root / "other"))
        good = host.unpack("--gnupghome", str(home))
    finally:
        for folder in (home, host.root / "other"):
            variables = {**os.environ, "GNUPGHOME": str(folder)}
            subprocess.run(["gpgconf", "--kill", "all"], env=variables, timeout=SECONDS)

    assert no_keyring.returncode == recover.NOTHING and "--gnupghome" in no_keyring.stderr
    assert other_keyring.returncode == recover.NOTHING, other_keyring.stderr
    assert good.returncode == 0, good.stderr
    assert (host.out / "media" / "a").read_bytes() == CONTENT


def test_older_passphrases_too(frozen_host: Host) -> None:
    other = frozen_host.root / "other"
    other.write_bytes(b"another one")
    other.chmod(0o600)

    result = frozen_host.with_key("verify", "--content", "--passphrase-file", str(other))

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("answer", "status"), [(frozen.PASSPHRASE, 0), ("a wrong one\n", 4)])
def test_the_passphrase_is_asked_for_once(frozen_host: Host, answer: str, status: int) -> None:
    (name,) = (path.name for path in frozen_host.store.glob("manual_*"))
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        frozen_host.command("unpack", name, "--to", str(frozen_host.out)),
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=frozen_host.variables(),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    try:
        said = b""
        while b"Passphrase: " not in said:
            said += os.read(ours, 1000)
        os.write(ours, answer.encode())
        assert process.wait(SECONDS) == status
        os.set_blocking(ours, False)
        with contextlib.suppress(OSError):
            said += os.read(ours, 1000)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)

    assert answer.strip().encode() not in said


def test_spanish(frozen_host: Host) -> None:
    frozen_host.environment["LANG"] = "es_AR.UTF-8"

    assert "tipo        manual" in frozen_host.good("list")
    assert "kind      manual" in frozen_host.good("list", "--language", "en")
    assert "No hay ningún respaldo" in frozen_host.run("verify", "x").stderr


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_a_module_that_lies_beside_the_program_is_not_run(frozen_host: Host, python: str) -> None:
    """A stranger may write to the folder: to check one file's hash must be enough."""
    (frozen_host.store / "backports").mkdir()
    ran = frozen_host.root / "ran"
    planted = f"open({str(ran)!r}, 'a').write(__name__ + ' ')\nraise SystemExit(9)\n"
    for name in (*sys.stdlib_module_names, "backports/__init__", "backports/zstd"):
        (frozen_host.store / f"{name}.py").write_text(planted)

    for cwd in (frozen_host.root, frozen_host.store):
        result = subprocess.run(
            [python, os.path.relpath(frozen_host.store / "recover.py", cwd), "list"],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=frozen_host.variables(),
            timeout=SECONDS,
        )
        assert result.returncode == recover.FINE, result.stderr

    assert not ran.exists(), ran.read_text()


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        ("list >&-", recover.FINE),
        ("verify <&- >&- 2>&-", recover.FINE),
        ("list >/dev/full", recover.FAILED),
        ("--help >/dev/full", recover.FAILED),
        ("verify 2>/dev/full", recover.FINE),
        ("verify nothing 2>/dev/full", recover.NOTHING),
        ("list 2>&1 | true; exit ${PIPESTATUS[0]}", None),
    ],
)
def test_output_that_cannot_be_written(
    frozen_host: Host, redirection: str, status: int | None
) -> None:
    result = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *frozen_host.command()],
        capture_output=True,
        text=True,
        env=frozen_host.variables(),
        timeout=SECONDS,
    )

    assert result.returncode in ({status} if status is not None else {recover.FINE, recover.FAILED})
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr
    assert (status == recover.FAILED) == ("No space left" in result.stderr)


def test_a_second_interruption_does_not_stop_the_removal(frozen_host: Host) -> None:
    """The first one is answered by removing what is unfinished, which the second may not stop."""
    (frozen_host.root / "bin").mkdir()
    slow = frozen_host.root / "bin" / "gpg"
    slow.write_text('#!/bin/sh\n[ "$1" ] && kill -INT $PPID && kill -TERM $PPID && sleep 30\n')
    slow.chmod(0o755)
    frozen_host.environment["PATH"] = f"{slow.parent}:{os.environ['PATH']}"
    (name,) = (path.name for path in frozen_host.store.glob("manual_*"))

    result = frozen_host.with_key("unpack", name, "--to", str(frozen_host.out))

    assert result.returncode == recover.FAILED and "Interrupted" in result.stderr
    assert not frozen_host.out.exists()


# What is refused.


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flip": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"),
    "truncation": lambda path: os.truncate(path, path.stat().st_size - 1),
    "extension": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": lambda path: path.unlink(),
    "folder": lambda path: _replace(path, Path.mkdir),
    "fifo": lambda path: _replace(path, os.mkfifo),
    "swap": lambda path: _swap(path, path.with_suffix(".00001")),
}


@pytest.mark.parametrize(
    ("where", "damage"),
    [("database.default.sqlite3", damage) for damage in DAMAGES]
    + [("files.tar", "flip"), ("media.index.jsonl", "missing")],
)
def test_damage(host: Host, where: str, damage: str) -> None:
    forge(host, volume_size=100)
    (path,) = host.store.rglob(f"{where}.*.00000")
    DAMAGES[damage](path)
    before = _tree(host.root)

    verified, unpacked = host.run("verify"), host.unpack()

    assert verified.returncode == recover.DAMAGED and str(path) in verified.stdout
    assert unpacked.returncode == recover.DAMAGED and str(path) in unpacked.stderr
    assert _tree(host.root) == before


def test_list__tells_what_is_missing_here(host: Host) -> None:
    forge(host, volume_size=100)
    host.volume("database").unlink()
    os.truncate(host.volume("media"), 1)

    listed = host.run("list")

    assert listed.returncode == recover.DAMAGED
    assert "NOT WHOLE: 2 of " in listed.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"kind": "manual"', b'"kind": "manuel"'),
        (b'"label": ""', b'"label": "\xff"'),
        (b"\n}\n", b"\n}"),
        (b"HMAC-SHA256", b"HMAC-SHA257"),
        (b'"digest": "', b'"digest": "0'),
    ],
    ids=repr,
)
def test_changed_manifest(host: Host, old: bytes, new: bytes) -> None:
    forge(host)
    path = host.store / NAME / "manifest.json"
    path.write_bytes(path.read_bytes().replace(old, new))
    before = _tree(host.root)

    assert host.unpack("--unauthenticated").returncode == recover.DAMAGED
    assert _tree(host.root) == before


def test_manifest_sealed_anew_without_a_key(host: Host) -> None:
    forge(host, signed=False)

    stored, with_key, refused = host.run("verify"), host.with_key("verify"), host.unpack()

    assert stored.returncode == 0 and "NOT AUTHENTICATED: it is not signed" in stored.stdout
    assert with_key.returncode == recover.DAMAGED and "--unauthenticated" in with_key.stdout
    assert refused.returncode == recover.DAMAGED and not host.out.exists()
    assert host.unpack("--unauthenticated").returncode == 0


def test_wrong_or_no_key(frozen_host: Host) -> None:
    (name,) = (path.name for path in frozen_host.store.glob("manual_*"))
    before = _tree(frozen_host.root)
    without = frozen_host.run("unpack", name, "--to", str(frozen_host.out))
    assert _tree(frozen_host.root) == before
    frozen_host.passphrase_file.write_bytes(b"a wrong one")
    wrong = frozen_host.with_key("unpack", name, "--to", str(frozen_host.out))
    checked = frozen_host.with_key("verify")

    for result in (without, wrong, checked):
        assert result.returncode == recover.NOTHING, result.stderr
        assert "--passphrase-file" in result.stderr + result.stdout
    assert not frozen_host.out.exists()


def test_stored_bytes_that_another_key_encrypted(frozen_host: Host) -> None:
    """A manifest that names our key, over bytes that it did not encrypt."""
    forged = Host(frozen_host.root / "forged")
    secret = frozen.PASSPHRASE.strip().encode()
    forge(forged, encryption="gpg-symmetric-aes256", encrypt=lambda data: data, secret=secret)

    result = forged.unpack()

    assert result.returncode == recover.DAMAGED and "gpg" in result.stderr
    assert not forged.out.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"index": [{"path": "../../stolen"}]},
        {"index": [{"path": "/tmp/stolen"}]},
        {"index": [{"path": "a"}, {"path": "a/b"}]},
        {"members": [("../../stolen", CONTENT)]},
        {"members": [(HASH, b"CONTENT")]},
        {"raw_size": {"database.default.sqlite3": 1000}, "bomb": 100_000_000},
        {"raw_size": {"media.index.jsonl": 10}},
        {"raw_size": {"files.tar": 10**6}},
        {"facts": {"files": 2, "bytes": 7}},
        {"artifact_name": "../stolen"},
        {"artifact_name": ".."},
        {"path": "../stolen"},
        {"path": "/etc/passwd"},
    ],
    ids=repr,
)
def test_what_even_a_signed_backup_may_not_do(host: Host, changes: dict[str, Any]) -> None:
    forge(host, **changes)
    before = _tree(host.root)
    target = host.root / "out"
    target.mkdir()

    unpacked = host.unpack("--only", "database" if "bomb" in changes else "media")

    assert unpacked.returncode == recover.DAMAGED, unpacked.stderr
    assert list(target.iterdir()) == []
    target.rmdir()
    assert _tree(host.root) == before


@pytest.mark.parametrize(
    "facts", [{"packs": []}, {"packs": ["1" * 32]}, {"files": 2}, {"bytes": "7"}], ids=repr
)
def test_an_index_that_its_facts_contradict_is_named(host: Host, facts: dict[str, Any]) -> None:
    forge(host, others={"private.index.jsonl": facts})

    verified, unpacked = host.with_key("verify", "--content"), host.unpack()

    for result, said in ((verified, verified.stdout), (unpacked, unpacked.stderr)):
        assert result.returncode == recover.DAMAGED, said
        assert "private.index.jsonl or one of its packs" in said
    assert {path.name for path in host.out.iterdir()} == {"database.default.sqlite3", "media"}


def test_verify__each_index_that_is_wrong_is_told(host: Host) -> None:
    wrong: dict[str, Any] = {"one.index.jsonl": {"files": 2}, "two.index.jsonl": {"packs": []}}
    forge(host, others={**wrong, "good.index.jsonl": {}})

    verified = host.with_key("verify", "--content")

    assert verified.returncode == recover.DAMAGED
    for name in wrong:
        assert verified.stdout.count(f"{name} or one of its packs") == 1
    assert verified.stdout.count("is damaged") == 2


def test_an_index_that_would_hide_a_folder_is_refused(host: Host) -> None:
    forge(host, others={".ssh.index.jsonl": {}})
    before = _tree(host.root)

    verified, unpacked = host.with_key("verify"), host.unpack()

    assert verified.returncode == recover.DAMAGED and "'.ssh' is not allowed" in verified.stdout
    assert unpacked.returncode == recover.DAMAGED and "'.ssh' is not allowed" in unpacked.stderr
    assert _tree(host.root) == before


def test_two_parts_of_one_name_are_unpacked_one_by_one(host: Host) -> None:
    forge(host, others={"database.default.sqlite3.index.jsonl": {}})
    before = _tree(host.root)

    both = host.unpack()

    assert both.returncode == recover.FAILED
    assert f"to {host.out / 'database.default.sqlite3'}. " in both.stderr
    assert "--only SOURCE" in both.stderr
    assert _tree(host.root) == before
    assert host.unpack("--only", "database").returncode == 0
    assert (host.out / "database.default.sqlite3").is_file()
    shutil.rmtree(host.out)
    assert host.unpack("--only", "other 0").returncode == 0
    assert (host.out / "database.default.sqlite3" / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("piece", ["database.default.sqlite3", "media"])
def test_what_is_in_the_place_of_a_piece_by_then_is_not_replaced(
    host: Host, piece: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program has put it there; or the disk takes the name of an earlier piece for it."""
    forge(host)
    progress = recover.progress

    def taking(text: str, **values: object) -> None:
        if text.startswith("Unpacking") and str(values["name"]).startswith(piece):
            (host.out / piece).write_bytes(b"of another")
        progress(text, **values)

    monkeypatch.setattr(recover, "progress", taking)
    key = ["--passphrase-file", str(host.passphrase_file)]
    command = ["unpack", NAME, "--to", str(host.out), "--from", str(host.store), *key]

    status = recover.main([*command, "--language", "en"])

    assert status == recover.FAILED
    assert f"would be unpacked to {host.out / piece}. " in capsys.readouterr().err
    assert (host.out / piece).read_bytes() == b"of another"
    assert not list(host.out.glob("*.part"))


def test_a_stream_that_is_only_called_like_an_index_is_a_file(host: Host) -> None:
    forge(host, artifact_name="search.index.jsonl")

    assert host.with_key("verify", "--content").returncode == 0
    assert host.unpack().returncode == 0
    assert (host.out / "search.index.jsonl").stat().st_size == 300


@pytest.mark.parametrize("tool", ["gpg", "zstd"])
def test_missing_tool(frozen_host: Host, tool: str) -> None:
    if tool == "zstd":
        frozen_host.python = pythons()[-1]
        if frozen_host.python == sys.executable:
            pytest.skip("this Python decompresses by itself, and there is no other one here")
    (frozen_host.root / "bin").mkdir()
    for other in {"gpg", "zstd"} - {tool}:
        (frozen_host.root / "bin" / other).symlink_to(str(shutil.which(other)))
    frozen_host.environment["PATH"] = str(frozen_host.root / "bin")
    (name,) = (path.name for path in frozen_host.store.glob("manual_*"))

    result = frozen_host.with_key("unpack", name, "--to", str(frozen_host.out))

    assert result.returncode == recover.FAILED
    assert f"{tool} cannot be run" in result.stderr and "apt-get install" in result.stderr
    assert not frozen_host.out.exists()


@pytest.mark.parametrize("verb", ["verify", "unpack"])
def test_a_killed_gpg_is_no_damage(frozen_host: Host, verb: str) -> None:
    """As where the memory runs out: that says nothing of what is stored."""
    (frozen_host.root / "bin").mkdir()
    killed = frozen_host.root / "bin" / "gpg"
    killed.write_text('#!/bin/sh\n[ "$1" ] && head -c 10 >/dev/null && kill -KILL $$\n')
    killed.chmod(0o755)
    frozen_host.environment["PATH"] = f"{killed.parent}:{os.environ['PATH']}"
    (name,) = (path.name for path in frozen_host.store.glob("manual_*"))
    options = {"verify": ["--content"], "unpack": ["--to", str(frozen_host.out)]}

    result = frozen_host.with_key(verb, name, *options[verb])

    assert result.returncode == recover.FAILED
    assert "gpg was ended by signal 9: the memory may" in result.stdout + result.stderr
    assert not frozen_host.out.exists()


def test_what_a_user_gets_wrong(host: Host) -> None:
    forge(host)
    (host.root / "full").mkdir()
    (host.root / "full" / "file").touch()
    (host.root / "file").touch()
    shared = host.root / "shared"
    shared.write_text("secret")
    shared.chmod(0o644)

    def status(*args: str) -> int:
        return host.run(*args).returncode

    key = ("--passphrase-file", str(host.passphrase_file))
    assert status() == recover.USAGE
    assert status("unpack", NAME) == recover.USAGE
    assert status("list", "--from", str(host.root / "full")) == recover.NOTHING
    assert status("list", "--from", str(host.root / "nowhere")) == recover.NOTHING
    assert status("list", "--from", str(host.store / NAME)) == recover.USAGE
    assert status("verify", "daily") == recover.NOTHING
    assert status("unpack", NAME, "--to", str(host.root / "full"), *key) == recover.FAILED
    assert status("unpack", NAME, "--to", str(host.root / "file"), *key) == recover.FAILED
    assert status("verify", "--passphrase-file", str(shared)) == recover.FAILED
    assert status("verify", "--passphrase-file", "nowhere") == recover.FAILED
    assert status("verify", "feedc0de", *key) == recover.FINE
    assert status("verify", NAME + "/", *key) == recover.FINE
    assert _tree(host.root / "full") == {"file": b""}


@pytest.mark.parametrize(
    ("source", "number"),
    [("database", signal.SIGTERM), ("media", signal.SIGINT), ("media", signal.SIGHUP)],
)
def test_an_interruption_leaves_nothing_half_written(
    frozen_host: Host, source: str, number: signal.Signals
) -> None:
    (frozen_host.root / "bin").mkdir()
    slow = frozen_host.root / "bin" / "gpg"
    slow.write_text('#!/bin/sh\n[ "$1" ] && exec sleep 30\n')
    slow.chmod(0o755)
    frozen_host.environment["PATH"] = f"{slow.parent}:{os.environ['PATH']}"
    (name,) = (path.name for path in frozen_host.store.glob("manual_*"))
    key = ["--passphrase-file", str(frozen_host.passphrase_file)]
    process = subprocess.Popen(
        frozen_host.command("unpack", name, "--to", str(frozen_host.out), "--only", source, *key),
        env=frozen_host.variables(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not list(frozen_host.out.glob("*.part")) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(frozen_host.out.glob("*.part"))
        process.send_signal(number)
        _out, said = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == recover.FAILED
    assert "Interrupted" in said and "Traceback" not in said
    assert not frozen_host.out.exists()


AT_IMPORT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_args):
        if name == {name!r} and any("recover.py" in arg for arg in sys.orig_argv):
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""
AT_EXIT = """
import atexit, os, signal

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    atexit.register(os.kill, os.getpid(), number)
"""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (AT_IMPORT.format(name="argparse"), -signal.SIGINT),
        (AT_IMPORT.format(name="tempfile"), -signal.SIGINT),
        (AT_EXIT, recover.FINE),
    ],
    ids=["first import", "last import", "exit"],
)
def test_an_interruption_of_the_start_or_the_end_is_silent(
    frozen_host: Host, code: str, status: int
) -> None:
    (frozen_host.root / "sitecustomize.py").write_text(code)

    result = subprocess.run(
        [sys.executable, str(frozen_host.store / "recover.py"), "list"],
        capture_output=True,
        text=True,
        env={**frozen_host.variables(), "PYTHONPATH": str(frozen_host.root)},
        timeout=SECONDS,
    )

    assert (result.returncode, result.stderr) == (status, "")


def test_signals_at_some_moments(frozen_host: Host, torture_random: random.Random) -> None:
    assert_interrupted(frozen_host, 5, torture_random)


@pytest.mark.torture
def test_signals_at_any_moment(
    frozen_host: Host, torture_random: random.Random, scaled: Callable[[int, int], int]
) -> None:
    assert_interrupted(frozen_host, scaled(300, 5), torture_random)


def assert_interrupted(host: Host, rounds: int, chance: random.Random) -> None:
    """Send one signal or more while it unpacks: it ends in order, or before it has begun."""
    (name,) = (path.name for path in host.store.glob("manual_*"))
    key = ["--passphrase-file", str(host.passphrase_file)]
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    started = time.monotonic()
    host.good("unpack", name, "--to", str(host.out), *key)
    longest = time.monotonic() - started
    whole = {path.name for path in host.out.iterdir()}
    temporary = host.root / "temporary"
    for number in range(rounds):
        shutil.rmtree(host.out, ignore_errors=True)
        temporary.mkdir()
        process = subprocess.Popen(
            host.command("unpack", name, "--to", str(host.out), *key),
            env={**host.variables(), "TMPDIR": str(temporary)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(chance.uniform(0, longest))
        for _turn in range(chance.choice((1, 1, 2, 3))):
            process.send_signal(chance.choice(numbers))
            time.sleep(chance.choice((0, 0, 0.001, 0.02)))
        _out, said = process.communicate(timeout=SECONDS)
        left = {path.name for path in host.out.glob("*")}

        label = f"round {number}: {process.returncode} {left} {said}"
        if "KeyboardInterrupt" in said and "recover.py" not in said:
            assert not host.out.exists(), label  # Python itself had not started yet
            temporary.rmdir()
            continue
        assert process.returncode in {recover.FINE, recover.FAILED, -1, -2, -15}, label
        assert "Traceback" not in said and "Exception" not in said, label
        assert left <= whole and (left or not host.out.exists()), label
        assert left == whole or process.returncode != recover.FINE, label
        assert not left or process.returncode >= 0, label
        assert "Interrupted" in said or process.returncode != recover.FAILED, label
        temporary.rmdir()


# Between two lines a file can be open that nothing closes; the process would end here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_before_any_line_leaves_nothing_half_written(frozen_host: Host) -> None:
    (name,) = (path.name for path in frozen_host.store.glob("manual_*"))
    store = recover.Store(frozen_host.store)
    keys = recover.Keys([str(frozen_host.passphrase_file)], None)
    arguments = recover.parser().parse_args(["unpack", name, "--to", str(frozen_host.out)])
    whole = {"database.default.sqlite3", "fixtures.jsonl", "media"}

    lines = 0
    while _interrupted_before_line(lines, lambda: recover.unpack(arguments, store, keys)):
        left = {path.name for path in frozen_host.out.glob("*")}
        assert left <= whole, f"line {lines}"
        assert left or not frozen_host.out.exists(), f"line {lines}"
        shutil.rmtree(frozen_host.out, ignore_errors=True)
        lines += 1
    gc.collect()  # what was left open counts for this test, which allows it

    assert lines > 40


def _interrupted_before_line(number: int, run: Callable[[], object]) -> bool:
    """Call `run`, with Ctrl-C before the line `number` of what unpacks; False: it ended first."""
    inside = {recover.unpack, recover.unpack_stream, recover.unpack_media}
    codes = {function.__code__ for function in inside}
    seen = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal seen
        if frame.f_code not in codes:
            return None
        if event == "line":
            seen += 1
            if seen == number + 1:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_no_secret_in_arguments_or_environment(frozen_host: Host) -> None:
    (frozen_host.root / "bin").mkdir()
    spy = frozen_host.root / "bin" / "gpg"
    seen = frozen_host.root / "seen"
    spy.write_text(f'#!/bin/sh\n(echo "$@"; env) >>{seen}\nexec {shutil.which("gpg")} "$@"\n')
    spy.chmod(0o755)
    frozen_host.environment["PATH"] = f"{spy.parent}:{os.environ['PATH']}"

    result = frozen_host.with_key("verify", "--content")

    assert result.returncode == 0, result.stdout
    assert "--passphrase-fd" in seen.read_text()
    for text in (seen.read_text(), result.stdout, result.stderr):
        assert frozen.PASSPHRASE.strip() not in text


def forge(
    host: Host,
    *,
    index: list[dict[str, Any]] | None = None,
    members: list[tuple[str, bytes]] | None = None,
    bomb: int = 0,
    artifact_name: str = "database.default.sqlite3",
    path: str | None = None,
    raw_size: Mapping[str, int] | None = None,
    facts: Mapping[str, int] | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    volume_size: int = 2**20,
    signed: bool = True,
    secret: bytes = SECRET,
    encryption: str | None = None,
    encrypt: Callable[[bytes], bytes] = bytes,
) -> None:
    """Write a backup by hand, right but for what the arguments change, and signed all the same.

    `others` are more indexes of the same files, each of a source of its own, by artifact name.
    """
    line = {"size": len(CONTENT), "mtime_ns": 0, "mode": 0o600, "sha256": HASH, "pack": "0" * 32}
    records = [{**line, **record} for record in index or [{"path": "a"}]]
    stem = artifact_name if recover.SAFE_NAME.fullmatch(artifact_name) else "stem"
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    others = others or {}
    made = [
        (artifact_name, path or f"{NAME}/{stem}", os.urandom(300) + bytes(bomb)),
        ("media.index.jsonl", f"{NAME}/media.index.jsonl", lines),
        ("files.tar", f"pool/{'0' * 32}/files.tar", _tar(members or [(HASH, CONTENT)])),
        *((name, f"{NAME}/other{number}", lines) for number, name in enumerate(others)),
    ]
    artifacts = []
    for name, place, content in made:
        stored = encrypt(zstd.compress(content))
        place += ".zst" if encryption is None else ".zst.gpg"
        pieces = [stored[at : at + volume_size] for at in range(0, len(stored), volume_size)]
        for number, piece in enumerate(pieces):
            if name == artifact_name and path is not None:
                break
            file = host.store / f"{place}.{number:05d}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(piece)
        artifacts.append(
            StoredArtifact(
                name=name,
                path=place,
                raw_size=(raw_size or {}).get(name, len(content)),
                stored_size=len(stored),
                sha256=hashlib.sha256(stored).hexdigest(),
                volumes=tuple(
                    Volume(size=len(piece), sha256=hashlib.sha256(piece).hexdigest())
                    for piece in pieces
                ),
            )
        )
    totals = {"files": len(records), "bytes": sum(record["size"] for record in records)}
    noon = datetime(2025, 1, 2, 12, tzinfo=UTC)
    manifest = Manifest(
        id="feedc0de12345678",
        name=NAME,
        kind="manual",
        project="shop",
        started_at=noon,
        snapshot_at=noon,
        finished_at=noon,
        sequence=1,
        sources=(
            SavedSource(
                name="database:default",
                artifacts=(artifacts[0],),
                facts={artifact_name: {"engine": "sqlite", "database": "db.sqlite3"}},
            ),
            SavedSource(
                name="media",
                artifacts=(artifacts[1],),
                facts={"media.index.jsonl": dict(facts or totals)},
            ),
            *(
                SavedSource(
                    name=f"other {number}",
                    artifacts=(artifacts[3 + number],),
                    facts={name: {**totals, "packs": ["0" * 32], **changes}},
                )
                for number, (name, changes) in enumerate(others.items())
            ),
        ),
        packs=(artifacts[2],),
        encryption=encryption,
        key_fingerprint=encryption and fingerprint(secret),
    )
    key = (fingerprint(secret), secret) if signed else None
    (host.store / NAME).mkdir(parents=True, exist_ok=True)
    data = manifests.dump(manifest, key=key, derive_key=derive_key)
    (host.store / NAME / "manifest.json").write_bytes(data)
    shutil.copyfile(PROGRAM, host.store / "recover.py")
    host.passphrase_file.write_bytes(secret)
    host.passphrase_file.chmod(0o600)


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _tree(root: Path) -> dict[str, bytes]:
    """Return every entry below `root` with what it holds."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
    }


def _files(root: Path) -> dict[str, tuple[int, str, int]]:
    return {
        str(path.relative_to(root)): (
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in root.rglob("*")
        if path.is_file()
    }


def _modes(root: Path) -> dict[bytes, int]:
    start = os.fsencode(root)
    return {
        os.path.relpath(os.path.join(folder, name), start): os.stat(
            os.path.join(folder, name)
        ).st_mode
        for folder, folders, files in os.walk(start)
        for name in (*folders, *files)
    }


def _load(printed: str, host: Host, places: Mapping[str, str], without: str = "\0") -> None:
    """Type the commands that were printed, with our places in place of those of the text."""
    lines = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    script = "\n".join(line for line in lines if without not in line)
    for text, place in places.items():
        script = script.replace(text, place)
    result = subprocess.run(
        ["bash", "-euc", script],
        capture_output=True,
        text=True,
        env=host.variables(),
        timeout=SECONDS,
    )
    assert result.returncode == 0, f"{script}\n{result.stderr}"
