"""What an operator can get wrong: one clear message, the documented status, and nothing lost."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.fingerprint import difference, fingerprint, media_fingerprint
from tests.services import PostgreSQLServer

MARKER = b',\n "authentication": '
SECONDS = 240
RESTORE = ("restore", "--latest", "--no-input")
DESTINATION = "mipyme_backup.destinations.LocalDestination"

Run = subprocess.CompletedProcess[str]
State = dict[Any, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with rows, files and one good backup; each test breaks a copy of it."""
    with sqlite_project(tmp_path_factory.mktemp("sqlite")) as project:
        _fill(project)
        yield project


@pytest.fixture
def project(original: Project, workdir: Path) -> Project:
    return original.clone(workdir)


@pytest.fixture(scope="module")
def original_on_server(
    postgresql_server: PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    with postgresql_project(tmp_path_factory.mktemp("server"), postgresql_server) as project:
        _fill(project)
        yield project


@pytest.fixture
def on_server(original_on_server: Project, workdir: Path) -> Project:
    return original_on_server.clone(workdir)


def _fill(project: Project) -> None:
    project.manage("migrate", "--verbosity=0")
    project.manage("populate_zoo")
    for name in ("plain.txt", "folder/deep.txt", "año.jpg"):
        path = project.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 9)
    project.backup()


def refused(
    project: Project,
    *args: str,
    status: int,
    code: str,
    says: str,
    hint: str = "",
    run: Callable[..., Run] | None = None,
    **options: Any,
) -> None:
    """Assert that the command is refused as documented and that nothing was lost by it.

    `says` and `hint` are parts of the message and of the next step; a hint there must be.
    """
    before = _state(project)
    flags = ["--json", "--no-input"] if args[0] == "restore" else ["--json"]

    result = (run or partial(project.manage, check=False))(*args, *flags, **options)

    assert "Traceback" not in result.stdout + result.stderr, result.stderr[-3000:]
    document = json.loads(result.stdout)
    assert document.keys() == {"error"}
    error = document["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert (result.returncode, error["code"]) == (status, code), error
    assert says in error["message"], error
    assert error["hint"] and hint in error["hint"], error
    assert difference(before, _state(project)) == []


def _state(project: Project) -> State:
    """Return live data, the destination's content, and what lies about beside them."""
    state: State = dict(_rows(project))
    for folder in (project.media, project.backups):
        if folder.is_dir():
            state |= {
                (folder.name, name): entry
                for name, entry in media_fingerprint(folder).items()
                if not name.startswith(b".state")
            }
    for folder in (project.root, Path(str(project.database["NAME"])).parent):
        if folder.is_dir():
            state |= {("beside", str(path)): "" for path in folder.iterdir()}
    work = project.state
    for folder in (work / "work", work / "runs", work / "restores"):
        if folder.is_dir():
            state |= {("left", str(path)): "" for path in folder.iterdir()}
    if project.server is not None:
        databases = project.server.execute("SELECT datname FROM pg_database")
        stem = project.database["NAME"]
        state |= {("database", name): "" for (name,) in databases if name.startswith(stem)}
    return state


def _rows(project: Project) -> dict[str, str]:
    if not project.database_exists():
        return {}
    with project.connect() as connection:
        return fingerprint(_Plain(connection, "postgresql" if project.server else "sqlite"))


class _Plain:
    """A driver's own connection with what the fingerprint needs of Django's."""

    def __init__(self, connection: Any, vendor: str) -> None:
        self.vendor = vendor
        self._connection = connection

    def cursor(self) -> Any:
        if self.vendor == "sqlite":
            return contextlib.nullcontext(_SQLiteCursor(self._connection.cursor()))
        return self._connection.cursor()


class _SQLiteCursor:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.fetchone = cursor.fetchone
        self.fetchall = cursor.fetchall
        self.fetchmany = cursor.fetchmany
        self._cursor = cursor

    def execute(self, statement: str, params: list[Any] | None = None) -> None:
        if params is not None:
            statement = statement.replace("%s", "?").replace("%%", "%")
        self._cursor.execute(statement, params or [])


FORGED = [f"manual_20250101T00000{number}Z" for number in range(1, 5)]

# --- Which backup ---------------------------------------------------------------------------


class TestWhichBackup:
    @pytest.mark.parametrize("command", ["restore", "verify_backups"])
    def test_unknown_id(self, project: Project, command: str) -> None:
        refused(project, command, "feedbeef", status=4, code="no_backup", says="feedbeef")

    def test_ambiguous_beginning(self, project: Project) -> None:
        _forge(
            project,
            lambda manifest: manifest.update(id="ab01" + "0" * 12),
            FORGED[0],
        )
        _forge(
            project,
            lambda manifest: manifest.update(id="ab02" + "0" * 12),
            FORGED[1],
        )

        refused(
            project,
            "restore",
            "ab0",
            status=4,
            code="no_backup",
            says=f"{FORGED[0]}, {FORGED[1]}",
            hint="Give more of it",
        )

    @pytest.mark.parametrize("moment", ["yesterday", "2025-02-30"])
    def test_no_moment(self, project: Project, moment: str) -> None:
        refused(
            project, "restore", f"--at={moment}", status=2, code="usage", says="", hint="2025-01-02"
        )

    def test_moment_before_every_backup(self, project: Project) -> None:
        refused(
            project,
            "restore",
            "--at=2001-01-01 10:00",
            status=4,
            code="no_backup",
            says="No backup matches",
            hint="list_backups",
        )

    def test_two_ways_of_choosing(self, project: Project) -> None:
        refused(
            project,
            "restore",
            "--latest",
            "--at=2025-01-01",
            status=2,
            code="usage",
            says="an ID, or --latest, or --at",
        )

    def test_no_way_of_choosing_and_nobody_to_ask(self, project: Project) -> None:
        refused(project, "restore", "--no-input", status=2, code="usage", says="Say which backup")

    @pytest.mark.parametrize(
        "args",
        [
            ("backup", "--only=medias"),
            ("backup", "--destination=nowhere"),
            ("restore", "--latest", "--from=nowhere"),
            ("restore", "--latest", "--only=medias"),
        ],
    )
    def test_unknown_name_is_answered_with_the_known_ones(
        self, project: Project, args: tuple[str, ...]
    ) -> None:
        known = "media" if "medias" in args[-1] else "local"
        wrong = args[-1].partition("=")[2]
        refused(project, *args, status=2, code="usage", says=wrong, hint=known)

    def test_option_that_is_none_and_choice_that_is_none(self, project: Project) -> None:
        for args in (("backup", "--kind=weekly"), ("restore", "--latest", "--forced")):
            wrong = args[-1].rpartition("=")[2]
            refused(project, *args, status=2, code="usage", says=wrong, hint="--help")

    def test_source_that_the_backup_lacks(self, project: Project) -> None:
        made = project.backup("--only=media")

        refused(
            project,
            "restore",
            made["id"],
            "--only=database",
            status=4,
            code="no_backup",
            says="holds no database",
            hint="media",
        )

    def test_empty_destination(self, project: Project) -> None:
        shutil.rmtree(project.backups)
        project.backups.mkdir()

        (row,) = project.json("list_backups", "--sync")
        assert [copy["status"] for copy in row["copies"]] == ["missing"]
        for args in (("restore", "--latest"), ("verify_backups",)):
            refused(project, *args, status=4, code="no_backup", says="o backup")

    def test_nothing_to_undo(self, project: Project) -> None:
        refused(
            project,
            "restore",
            "--undo",
            status=4,
            code="no_backup",
            says="no restore to undo",
            hint="safety backup",
        )


# --- Keys and tools -------------------------------------------------------------------------


class TestKeys:
    def test_wrong_passphrase(self, project: Project) -> None:
        project.passphrase_file.write_text("another one\n")

        for args in (("restore", "--latest"), ("verify_backups", "--latest")):
            refused(
                project, *args, status=4, code="key_missing", says="No passphrase", hint="settings"
            )

    @pytest.mark.parametrize("args", [("backup",), ("restore", "--latest")], ids=" ".join)
    def test_missing_passphrase_file(self, project: Project, args: tuple[str, ...]) -> None:
        project.passphrase_file.unlink()
        refused(project, *args, status=1, code="encryption", says="No such file")

    def test_passphrase_file_that_others_can_read(self, project: Project) -> None:
        project.passphrase_file.chmod(0o644)
        refused(project, "backup", status=1, code="encryption", says="others", hint="chmod 600")

    def test_passphrase_file_that_is_a_link(self, project: Project) -> None:
        real = project.passphrase_file.rename(project.root / "real")
        project.passphrase_file.symlink_to(real)
        refused(project, "backup", status=1, code="encryption", says="passphrase", hint="link")

    def test_empty_passphrase_file(self, project: Project) -> None:
        project.passphrase_file.write_text("\n")
        refused(project, "backup", status=1, code="encryption", says="one line", hint="openssl")

    @pytest.mark.parametrize("args", [("backup",), ("restore", "--latest")], ids=" ".join)
    def test_gpg_is_not_on_path(self, project: Project, args: tuple[str, ...]) -> None:
        refused(
            project,
            *args,
            env={"PATH": "/nowhere"},
            status=1,
            code="preflight",
            says="gpg cannot be run",
            hint="PATH",
        )

    def test_no_pg_dump_of_the_servers_version(self, on_server: Project) -> None:
        assert on_server.server is not None
        major = on_server.server.major
        if Path(f"/usr/lib/postgresql/{major}/bin/pg_dump").exists():
            pytest.skip(f"this machine has PostgreSQL {major} where it is always found")
        refused(
            on_server,
            "backup",
            env={"PATH": os.defpath},
            status=1,
            code="preflight",
            says=f"PostgreSQL {major}",
            hint=f"postgresql-client-{major}",
        )

    def test_encrypted_backup_without_encryption_in_the_settings(self, project: Project) -> None:
        _append(project, "MIPYME_BACKUP['ENCRYPTION'] = None")
        refused(project, "restore", "--latest", status=4, code="key_missing", says="passphrase")

    def test_plain_backup_where_encryption_is_demanded(self, project: Project) -> None:
        plain = _forge(project, _unsigned, FORGED[2], seal=False)
        refused(project, "restore", plain, status=6, code="damaged", says="not signed")


# --- What is stored -------------------------------------------------------------------------


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: data.replace(b'"kind": "manual"', b'"kind": "manuak"'),
            lambda data: data[: len(data) // 2],
            lambda data: b"",
        ],
        ids=["changed", "cut off", "empty"],
    )
    def test_manifest(self, project: Project, damage: Callable[[bytes], bytes]) -> None:
        name = _newest(project)
        manifest = project.backups / name / "manifest.json"
        manifest.write_bytes(damage(manifest.read_bytes()))

        refused(project, "restore", name, status=6, code="damaged", says="manifest", hint="backup")

    def test_manifest_of_a_later_version(self, project: Project) -> None:
        name = _forge(project, lambda manifest: manifest.update(format=2), FORGED[3])
        refused(project, "restore", name, status=6, code="damaged", says="format 2", hint="newer")

    def test_volume_that_was_changed(self, project: Project) -> None:
        (volume,) = (project.backups / _newest(project)).glob("database*00000")
        data = bytearray(volume.read_bytes())
        data[len(data) // 2] ^= 1
        volume.write_bytes(data)

        refused(project, "restore", "--latest", status=6, code="damaged", says=volume.name)

    def test_volume_that_is_gone(self, project: Project) -> None:
        (volume,) = (project.backups / _newest(project)).glob("database*00000")
        volume.unlink()

        refused(project, "restore", "--latest", status=6, code="damaged", says=volume.name)

    def test_verify_says_which_file_and_ends_with_6(self, project: Project) -> None:
        (volume,) = (project.backups / _newest(project)).glob("database*00000")
        volume.unlink()

        result = project.manage("verify_backups", "--json", check=False)

        (row,) = json.loads(result.stdout)
        assert result.returncode == 6
        assert row["ok"] is False and volume.name in row["problems"][0]


# --- Where it goes --------------------------------------------------------------------------


class TestWrongPlace:
    def test_backup_of_another_project(self, project: Project) -> None:
        name = _newest(project)
        _append(project, "MIPYME_BACKUP['PROJECT'] = 'another'")

        refused(project, "restore", name, status=6, code="damaged", says="config", hint="PROJECT")
        refused(project, "restore", "--latest", status=4, code="no_backup", says="No backup")

    def test_backup_of_another_engine(self, original: Project, on_server: Project) -> None:
        shutil.rmtree(on_server.backups)
        shutil.copytree(original.backups, on_server.backups)
        shutil.copyfile(original.passphrase_file, on_server.passphrase_file)

        refused(
            on_server,
            "restore",
            "--latest",
            status=1,
            code="restore",
            says="is of sqlite",
            hint="--only fixtures",
        )

    @pytest.mark.parametrize("which", ["live", "another"])
    def test_database_file_that_exists(self, project: Project, which: str) -> None:
        taken = Path(project.database["NAME"])
        if which == "another":
            taken = taken.with_name("taken.sqlite3")
            taken.write_bytes(b"precious")

        self._to_database(project, str(taken))

        assert which == "live" or taken.read_bytes() == b"precious"

    def test_database_that_exists(self, on_server: Project) -> None:
        self._to_database(on_server, on_server.database["NAME"])

    def _to_database(self, project: Project, name: str) -> None:
        option = f"--to-database={name}"
        refused(project, "restore", "--latest", option, status=1, code="restore", says=name)

    def test_folder_that_is_not_empty(self, project: Project) -> None:
        taken = project.root / "taken"
        taken.mkdir()
        (taken / "file").write_text("precious")

        for folder in (taken, taken / "file", project.media):
            refused(
                project,
                "restore",
                "--latest",
                f"--to-media={folder}",
                status=1,
                code="restore",
                says=str(folder),
            )
        assert (taken / "file").read_text() == "precious"

    def test_server_that_is_down(self, on_server: Project) -> None:
        live = dict(on_server.database)
        on_server.database = {**live, "PORT": "1"}
        on_server.write()
        on_server.database = live

        for args in (("backup",), ("restore", "--latest")):
            refused(on_server, *args, status=1, code="preflight", says="refused", hint="server")

    def test_role_that_may_not_log_in(self, on_server: Project) -> None:
        assert on_server.server is not None
        role, live = f"{on_server.database['NAME']}_idle", dict(on_server.database)
        on_server.server.execute(f"CREATE ROLE {role} NOLOGIN PASSWORD 'x'")
        try:
            on_server.database = {**live, "USER": role, "PASSWORD": "x"}
            on_server.write()
            on_server.database = live

            refused(on_server, "backup", status=1, code="preflight", says=role, hint="server")
        finally:
            on_server.server.drop_role(role)

    def test_database_file_that_is_missing_is_no_empty_backup(self, project: Project) -> None:
        project.destroy()
        refused(project, "backup", status=1, code="source", says=str(project.database["NAME"]))
        assert not project.database_exists()


# --- Settings -------------------------------------------------------------------------------


class TestSettings:
    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("MIPYME_BACKUP = 5", "MIPYME_BACKUP must be a dict"),
            ("MIPYME_BACKUP['RETENSION'] = {}", "RETENSION"),
            ("MIPYME_BACKUP['DESTINATIONS']['local']['OPTIONS']['locatoin'] = 1", "locatoin"),
            ("MIPYME_BACKUP['ENCRYPTION']['BACKEND'] = 'no.such.thing'", "no.such.thing"),
            ("MEDIA_ROOT = BASE_DIR", "MEDIA_ROOT"),
        ],
    )
    def test_malformed_ones_name_the_key(self, project: Project, line: str, says: str) -> None:
        _append(project, line)

        result = project.manage("backup", "--json", check=False)

        error = json.loads(result.stdout)["error"]
        assert (result.returncode, error["code"]) == (1, "configuration")
        assert says in error["message"]
        assert "Traceback" not in result.stderr

    def test_nowhere_to_put_media(self, project: Project) -> None:
        _append(project, "MEDIA_ROOT = ''")

        refused(
            project,
            "restore",
            "--latest",
            status=1,
            code="restore",
            says="MEDIA_ROOT",
            hint="--to-media",
        )

    def test_backup_before_the_first_migrate_and_without_media_root(self, workdir: Path) -> None:
        with sqlite_project(workdir) as project:
            Path(project.database["NAME"]).touch()
            _append(project, "MEDIA_ROOT = ''")

            result = project.manage("backup", "--json")

            made = json.loads(result.stdout)
            manifest = json.loads((project.backups / made["name"] / "manifest.json").read_bytes())
            assert "media" not in {source["name"] for source in manifest["sources"]}
            assert made["status"] == "complete"
            assert "without the catalog" in result.stderr
            assert "Traceback" not in result.stderr


# --- Full and forbidden places --------------------------------------------------------------


class TestPlaces:
    def test_destination_that_may_not_be_written_to(self, project: Project) -> None:
        (project.root / "state").mkdir(mode=0o700)
        _append(project, "MIPYME_BACKUP['STATE_DIR'] = BASE_DIR / 'state'")
        os.chmod(project.backups, 0o500)

        refused(
            project,
            "backup",
            run=_bound_by_permissions(project),
            status=1,
            code="destination",
            says="Permission denied",
            hint="permissions",
        )
        os.chmod(project.backups, 0o700)

    def test_state_dir_that_may_not_be_written_to(self, project: Project) -> None:
        state = project.root / "state"
        state.mkdir(mode=0o500)
        _append(project, f"MIPYME_BACKUP['STATE_DIR'] = {str(state)!r}")

        refused(
            project,
            "backup",
            run=_bound_by_permissions(project),
            status=1,
            code="preflight",
            says=str(state),
            hint="STATE_DIR",
        )

    def test_media_that_cannot_be_read_makes_the_backup_partial(self, project: Project) -> None:
        (project.media / "secret.txt").write_text("x")
        (project.media / "secret.txt").chmod(0)
        (project.media / "folder").chmod(0)

        result = _bound_by_permissions(project)("backup", "--json")

        made = json.loads(result.stdout)
        assert (result.returncode, made["status"]) == (3, "partial"), result.stdout
        for name in ("secret.txt", "folder"):
            assert any(name in warning for warning in made["warnings"]), name

    def test_destination_that_is_full(self, project: Project, workdir: Path) -> None:
        with _small_disk(workdir / "disk", "1m") as disk:
            _append(
                project,
                f"MIPYME_BACKUP['DESTINATIONS'] = {{'small': {{'BACKEND': {DESTINATION!r},"
                f" 'OPTIONS': {{'location': {str(disk)!r}}}}}}}",
                "MIPYME_BACKUP['STATE_DIR'] = BASE_DIR / 'backups' / '.state'",
            )
            (project.media / "large").write_bytes(os.urandom(3_000_000))

            refused(
                project, "backup", status=1, code="destination", says="No space", hint="Free some"
            )

            assert list(disk.iterdir()) == []

    def test_state_dir_that_is_full(self, project: Project, workdir: Path) -> None:
        with _small_disk(workdir / "disk", "1m") as disk:
            _append(project, f"MIPYME_BACKUP['STATE_DIR'] = {str(disk)!r}")
            (project.media / "large").write_bytes(os.urandom(3_000_000))

            refused(
                project, "backup", status=1, code="preflight", says=str(disk), hint="Free space"
            )
            refused(project, "restore", "--latest", status=1, code="restore", says=str(disk))

            left = sorted(path.name for path in disk.rglob("*") if path.is_file())
            assert left == ["former.json", "lock"]

    def test_files_may_not_grow(self, project: Project) -> None:
        (project.media / "large").write_bytes(os.urandom(3_000_000))

        def limited(*args: str) -> Run:
            return _run(
                project,
                *args,
                preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (2_600_000, 2_600_000)
                ),
            )

        refused(
            project,
            "backup",
            run=limited,
            status=1,
            code="preflight",
            says="too large",
            hint="STATE_DIR",
        )


# --- Two at once, and an end in the middle ---------------------------------------------------


class TestTwoAtOnce:
    def test_second_one_is_told_who_holds_the_lock(self, project: Project) -> None:
        with _stopped_in_the_middle(project, "backup", "--json") as first:
            for args in (("backup",), RESTORE):
                result = project.manage(*args, "--json", check=False)

                error = json.loads(result.stdout)["error"]
                assert (result.returncode, error["code"]) == (5, "locked")
                assert f"process {first.pid}" in error["message"] and error["hint"]
            first.send_signal(signal.SIGCONT)
            output, _errors = first.communicate(timeout=SECONDS)
        assert first.returncode == 0
        assert json.loads(output)["status"] == "complete"

    def test_lock_holds_for_other_hosts_of_the_same_server(self, on_server: Project) -> None:
        with _stopped_in_the_middle(on_server, "backup", "--json") as first:
            on_server.backup_settings = {"STATE_DIR": str(on_server.root / "another host")}
            on_server.write()

            result = on_server.manage("backup", "--json", check=False)

            error = json.loads(result.stdout)["error"]
            assert (result.returncode, error["code"]) == (5, "locked")
            assert f" {os.uname().nodename}:{first.pid}" in error["message"]
            assert "mipyme_backup backup " in error["message"]


class TestInterrupted:
    def test_backup_by_ctrl_c(self, project: Project) -> None:
        self._ends_clean(project, "backup", number=signal.SIGINT, status=130)

    def test_backup_by_sigterm(self, on_server: Project) -> None:
        self._ends_clean(on_server, "backup", number=signal.SIGTERM, status=143)

    def test_restore_by_ctrl_c(self, on_server: Project) -> None:
        self._ends_clean(on_server, *RESTORE, number=signal.SIGINT, status=130)

    def test_restore_by_sigterm(self, project: Project) -> None:
        self._ends_clean(project, *RESTORE, number=signal.SIGTERM, status=143)

    def _ends_clean(
        self, project: Project, *args: str, number: signal.Signals, status: int
    ) -> None:
        (project.media / "large").write_bytes(os.urandom(3_000_000))
        before = _state(project)

        with _stopped_in_the_middle(project, *args) as process:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            output, errors = process.communicate(timeout=SECONDS)

        assert process.returncode == status, output + errors
        assert "Traceback" not in errors
        assert difference(before, _state(project)) == []
        assert _processes_of(process.pid) == []
        assert list(Path("/tmp").glob(f"mipyme-gpg-{process.pid}-*")) == []
        assert project.backup()["status"] == "complete"


# --- Means ----------------------------------------------------------------------------------


def _newest(project: Project) -> str:
    return max(path.parent.name for path in project.backups.glob("*/manifest.json"))


def _append(project: Project, *lines: str) -> None:
    with (project.root / "config" / "settings.py").open("a") as file:
        file.write("\n".join(("", *lines, "")))


def _unsigned(manifest: dict[str, Any]) -> None:
    manifest.update(encryption=None, key_fingerprint=None)


def _forge(
    project: Project, change: Callable[[dict[str, Any]], None], name: str, *, seal: bool = True
) -> str:
    """Write a changed copy of the newest backup's manifest, sealed as docs/format.md says.

    Without `seal` it carries a checksum only. Returns its name.
    """
    data = (project.backups / _newest(project) / "manifest.json").read_bytes()
    body, _, tail = data.rpartition(MARKER)
    manifest = json.loads(body + b"\n}")
    manifest["name"] = name
    change(manifest)
    body = json.dumps(manifest, indent=1).encode().removesuffix(b"\n}")
    seal_of = json.loads(tail.removesuffix(b"\n}\n"))
    if seal:
        secret = project.passphrase_file.read_bytes().removesuffix(b"\n")
        salt = bytes.fromhex(seal_of["salt"])
        key = hashlib.scrypt(secret, salt=salt, n=32768, r=8, p=1, dklen=32, maxmem=2**26)
        seal_of["digest"] = hmac.digest(key, body, "sha256").hex()
    else:
        seal_of = {"algorithm": "SHA-256", "digest": hashlib.sha256(body).hexdigest()}
    folder = project.backups / name
    folder.mkdir(mode=0o700)
    (folder / "manifest.json").write_bytes(body + MARKER + json.dumps(seal_of).encode() + b"\n}\n")
    return name


def _run(project: Project, *args: str, prefix: Sequence[str] = (), **options: Any) -> Run:
    return subprocess.run(
        [*prefix, *project.command(*args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=project.root,
        env=project.environment(),
        timeout=SECONDS,
        **options,
    )


def _bound_by_permissions(project: Project) -> Callable[..., Run]:
    """Return what runs a command for which the permissions of files count, also where we are root.

    Skips where root cannot give up what puts it above them.
    """
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
        probe = [*prefix, "cat", str(_forbidden(project))]
        if (
            not shutil.which("setpriv")
            or subprocess.run(probe, capture_output=True).returncode != 1
        ):
            pytest.skip("root cannot be bound by permissions here: no setpriv that works")

    def run(*args: str) -> Run:
        return _run(project, *args, prefix=prefix)

    return run


def _forbidden(project: Project) -> Path:
    """Return a file that nobody whom permissions bind can read."""
    file = project.root / "forbidden"
    file.touch()
    file.chmod(0)
    return file


@contextlib.contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Yield a file system of `size`; skips where none can be mounted."""
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    try:
        subprocess.run(argv, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


@contextlib.contextmanager
def _stopped_in_the_middle(project: Project, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a running command, stopped (SIGSTOP) once it has begun to write; killed at the end."""
    process = subprocess.Popen(
        project.command(*args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project.root,
        env=project.environment(),
    )
    folder = {"backup": "runs", "restore": "restores"}[args[0]]
    deadline = time.monotonic() + SECONDS
    try:
        while not list((project.state / folder).glob("*.json")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def _processes_of(pid: int) -> list[str]:
    """Return the command lines of what still works for the process, which itself is gone."""
    needles = (f"mipyme-gpg-{pid}-".encode(), f"/{pid}-".encode())
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes()
            if any(needle in line for needle in needles):
                found.append(line.decode(errors="replace"))
    return found
