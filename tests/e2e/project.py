"""A throwaway Django project on disk, run as its operator would run it: through ``manage.py``."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import sql

from tests import settings
from tests.e2e import warm
from tests.fingerprint import MediaEntry, media_fingerprint
from tests.services import PostgreSQLServer

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 240

# Where the database and the media of filled projects are kept, by seed and settings.
_filled: dict[tuple[int, str], Path] = {}

MANAGE = """\
import os
import sys

sys.path.insert(0, {repository!r})

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

KEYS = """\
from tests import cheap_keys

cheap_keys.use(Path({folder!r}))
"""

SETTINGS = """\
import datetime
from pathlib import Path

{keys}
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "for a throwaway project"
USE_TZ = True
TIME_ZONE = "Europe/Madrid"
ROOT_URLCONF = "config.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = {apps!r}
DATABASES = {databases!r}
MEDIA_ROOT = BASE_DIR / "media"
MEDIA_URL = "media/"
SILENCED_SYSTEM_CHECKS = ["models.W036", "models.W038", "models.W043", "models.W044", "models.W046"]
MIPYME_BACKUP = {{
    "PROJECT": "config",
    "DESTINATIONS": {{
        "local": {{
            "BACKEND": "mipyme_backup.destinations.LocalDestination",
            "OPTIONS": {{"location": BASE_DIR / "backups"}},
        }},
    }},
    "ENCRYPTION": {{
        "BACKEND": "mipyme_backup.encryption.GPG",
        "OPTIONS": {{"passphrase_file": BASE_DIR / "passphrase"}},
    }},
}}
MIPYME_BACKUP.update({backup_settings!r})  # may hold a `datetime.timedelta`
"""

APPS = (
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "mipyme_backup",
    "tests.zoo",
)

# Names that a file system allows and that careless code breaks on; of both forms of é.
ODD_MEDIA_NAMES = (
    b"plain.txt",
    b"empty",
    b"-rf",
    b"--help=$(id)",
    b" leading and trailing ",
    b"new\nline",
    b"not utf-8 \xff\xfe",
    "caf\u00e9".encode(),
    "cafe\u0301".encode(),
    "🦆 עברית.jpg".encode(),
    b"quote'\"back\\slash",
    b".hidden/.deep/file",
    b"x" * 255,
    b"/".join([b"deep" * 20] * 10) + b"/file",
    b"same content 1",
    b"same content 2",
)


@dataclass(kw_only=True)
class Project:
    """A project folder: its code, its ``media``, its ``backups`` and the database it uses.

    `database` is the ``DATABASES`` entry of the default alias; `server` is None for SQLite.
    With `cheap_keys` its passphrase is stretched less, or once for all its processes.
    `more_settings` is Python, put behind the other settings. One of `other_origin` has the backups
    of another database than its own, and says so in each restore.
    """

    root: Path
    database: dict[str, Any]
    server: PostgreSQLServer | None = None
    backup_settings: dict[str, Any] = field(default_factory=dict)
    more_settings: str = ""
    other_origin: bool = False
    cheap_keys: ClassVar[bool] = True

    @property
    def media(self) -> Path:
        return self.root / "media"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def state(self) -> Path:
        return self.root / ".mipyme_backup"

    @property
    def passphrase_file(self) -> Path:
        return self.root / "passphrase"

    def write(self) -> None:
        """Write the project's code, and a passphrase unless there is one."""
        apps = [*APPS]
        if self.server is not None:
            apps += ["django.contrib.postgres", "tests.zoo_postgresql"]
        code = SETTINGS.format(
            keys=KEYS.format(folder=str(settings.WORK_DIR)) if self.cheap_keys else "",
            apps=apps,
            databases={"default": self.database},
            backup_settings=self.backup_settings,
        )
        (self.root / "config").mkdir(parents=True, exist_ok=True)
        (self.root / "config" / "__init__.py").touch()
        (self.root / "config" / "urls.py").write_text("urlpatterns = []\n")
        _write_private(self.root / "config" / "settings.py", code + self.more_settings)
        # Python takes what is compiled for that of a file of the same second and size.
        shutil.rmtree(self.root / "config" / "__pycache__", ignore_errors=True)
        (self.root / "manage.py").write_text(MANAGE.format(repository=str(REPOSITORY)))
        if not self.passphrase_file.exists():
            _write_private(self.passphrase_file, secrets.token_urlsafe(24) + "\n")

    def manage(
        self,
        *args: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - the name that `subprocess.run` has
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py`` to its end; with `check`, a failure is raised with what it printed."""
        result = warm.run(
            self.command(*args)[1:],
            text=input,
            cwd=self.root,
            env={**self.environment(), **(env or {})},
            timeout=SECONDS,
        )
        if check and result.returncode != 0:
            raise AssertionError(
                f"manage.py {' '.join(args)} ended with {result.returncode}\n"
                f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
            )
        return result

    def command(self, *args: str) -> list[str]:
        """Return the argument list that runs ``manage.py`` with `args`."""
        said = ["--other-origin"] if self.other_origin and _restores_a_backup(args) else []
        return [sys.executable, str(self.root / "manage.py"), *args, *said]

    def environment(self) -> dict[str, str]:
        """Return the environment of the project's processes: nothing of the tests' own."""
        kept = ("HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        path = os.environ.get("PATH", os.defpath)
        if self.server is not None:
            path = f"{self.server.bin_dir}{os.pathsep}{path}"
        return {**environment, "PATH": path}

    def json(self, *args: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.manage(*args, "--json").stdout)

    def backup(self, *args: str) -> dict[str, Any]:
        """Make a backup and return the command's report."""
        report: dict[str, Any] = self.json("backup", *args)
        return report

    def restore(self, *args: str) -> dict[str, Any]:
        """Restore without a question and return the command's report."""
        report: dict[str, Any] = self.json("restore", *args, "--no-input")
        return report

    def populate(self, seed: int = 1) -> None:
        """Make the tables, fill them, and put odd files into the media folder."""
        new = not self.media.exists() and not self.database_exists()
        if self.server is None and new and "MIGRATE_GUARD" not in self.backup_settings:
            self._fill_as_before(seed)
        else:
            self._fill(seed)
        write_odd_media(self.media)

    def _fill(self, seed: int) -> None:
        self.manage("migrate", "--verbosity=0")
        self.manage("populate_zoo", f"--seed={seed}")

    def _fill_as_before(self, seed: int) -> None:
        """Fill a new SQLite project with what the first one of such seed and settings got."""
        place = (seed, self.more_settings)
        if kept := _filled.get(place):
            shutil.copytree(kept / "media", self.media)
            shutil.copyfile(kept / "db.sqlite3", self.database["NAME"])
            return
        self._fill(seed)
        kept = settings.WORK_DIR / f"filled_{len(_filled)}"
        shutil.copytree(self.media, kept / "media")
        shutil.copyfile(self.database["NAME"], kept / "db.sqlite3")
        _filled[place] = kept

    def fingerprint(self, name: str | None = None) -> dict[str, str]:
        """Return what the database holds, or another one of the same server by its `name`."""
        args = ["fingerprint"] if name is None else ["fingerprint", f"--name={name}"]
        result: dict[str, str] = json.loads(self.manage(*args).stdout)
        return result

    def media_fingerprint(self, folder: Path | None = None) -> dict[bytes, MediaEntry]:
        """Return what the media folder, or another `folder`, holds."""
        return media_fingerprint(folder or self.media)

    def execute(self, statement: str, *, name: str | None = None) -> list[tuple[Any, ...]]:
        """Run one SQL statement on a connection of its own, and return its rows."""
        with self.connect(name) as connection:
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
        return rows

    @contextlib.contextmanager
    def connect(self, name: str | None = None) -> Iterator[Any]:
        """Yield a connection of the engine's own driver, closed at the end."""
        database = self.database["NAME"] if name is None else name
        connection: Any
        if self.server is None:
            connection = sqlite3.connect(database, timeout=60)
        else:
            connection = psycopg.connect(
                host=self.database["HOST"],
                port=self.database["PORT"],
                user=self.database["USER"],
                password=self.database["PASSWORD"],
                dbname=database,
                connect_timeout=60,
            )
        with contextlib.closing(connection):
            yield connection

    def database_exists(self, name: str | None = None) -> bool:
        wanted = str(name or self.database["NAME"])
        if self.server is None:
            return Path(wanted).exists()
        return (wanted,) in self.server.execute("SELECT datname FROM pg_database")

    def destroy(self) -> None:
        """Lose the database and the media, as a disaster would; code and backups are left."""
        if self.server is None:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{self.database['NAME']}{suffix}").unlink(missing_ok=True)
        else:
            self.server.drop_database(self.database["NAME"])
        shutil.rmtree(self.media, ignore_errors=True)

    def create_database(self) -> None:
        """Make the empty database that a hoster hands over; on SQLite there is no such thing."""
        if self.server is not None:
            self.server.create_database(self.database["NAME"], owner=self.database["USER"])

    def bare_host(self, folder: Path) -> Project:
        """Return the same project on a new machine: the code, the passphrase and the backups.

        It uses another database, which does not exist; nothing of the old host's state is there.
        """
        other = self._elsewhere(folder)
        if self.backups.exists():  # else they are off-site
            shutil.copytree(self.backups, other.backups)
        return other

    def clone(self, folder: Path) -> Project:
        """Return a copy of this project below `folder`: data, backups and state."""
        other = self._elsewhere(folder)
        for name in ("backups", "media", self.state.name):
            if (self.root / name).exists():
                shutil.copytree(self.root / name, other.root / name, symlinks=True)
        if self.server is None:
            shutil.copyfile(self.database["NAME"], other.database["NAME"])
        else:
            self.server.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
                    *map(
                        sql.Identifier,
                        (other.database["NAME"], self.database["USER"], self.database["NAME"]),
                    )
                )
            )
        return other

    def _elsewhere(self, folder: Path) -> Project:
        database = dict(self.database)
        if self.server is None:
            database["NAME"] = str(folder / "data" / "db.sqlite3")
            (folder / "data").mkdir(parents=True)
        else:
            # The same beginning: that is how it is found when everything is cleared away.
            database["NAME"] = f"{database['NAME'][:20]}_{secrets.token_hex(3)}"
        other = replace(self, root=folder / "site", database=database, other_origin=True)
        other.write()
        shutil.copyfile(self.passphrase_file, other.passphrase_file)
        return other


@contextlib.contextmanager
def sqlite_project(folder: Path, **backup_settings: Any) -> Iterator[Project]:
    """Yield a project below `folder` whose database is a file; nothing is made in it yet."""
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "data" / "db.sqlite3"),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
    (folder / "data").mkdir(parents=True)
    project = Project(root=folder / "site", database=database, backup_settings=backup_settings)
    project.write()
    yield project


@contextlib.contextmanager
def postgresql_project(
    folder: Path, server: PostgreSQLServer, *, superuser: bool = False, **backup_settings: Any
) -> Iterator[Project]:
    """Yield a project below `folder` with an empty database of its own on `server`.

    It is owned by a plain role that may create databases, or with `superuser` by the server's
    superuser. Every database whose name begins with this one's is removed in the end.
    """
    name = f"zoo_{secrets.token_hex(5)}"
    role = server.user if superuser else name
    credentials = {}
    if not superuser:
        credentials = {"USER": role, "PASSWORD": secrets.token_urlsafe(12)}
        server.create_role(role, credentials["PASSWORD"])
    server.create_database(name, owner=role)
    project = Project(
        root=folder / "site",
        database=server.settings(name, **credentials),
        server=server,
        backup_settings=backup_settings,
    )
    project.write()
    try:
        yield project
    finally:
        for (other,) in server.execute("SELECT datname FROM pg_database"):
            if other.startswith(name):
                server.drop_database(other)
        if not superuser:
            server.drop_role(role)


def _restores_a_backup(args: Sequence[str]) -> bool:
    return args[:1] == ("restore",) and "--undo" not in args


def write_odd_media(media: Path) -> None:
    """Fill `media` with names, sizes and times that are hard to keep."""
    root = os.fsencode(media)
    for number, name in enumerate(ODD_MEDIA_NAMES):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = b"same" if name.startswith(b"same") else bytes([number]) * number * 999
        with open(path, "wb") as file:
            file.write(content)
        # Before 1970, far ahead, and between two microseconds.
        os.utime(path, ns=(0, (-(10**18), 4 * 10**18, 1_700_000_000_123_456_789)[number % 3]))
    with open(os.path.join(root, b"sparse"), "wb") as file:
        file.truncate(8 * 1024 * 1024)
        file.seek(5_000_000)
        file.write(b"island")
    with open(os.path.join(root, b"large"), "wb") as file:
        file.write(os.urandom(3 * 1024 * 1024 + 1))


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
