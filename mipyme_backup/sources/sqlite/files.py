"""The files of an SQLite database: where they are, how they are opened, what their errors mean."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.db.utils import load_backend

from mipyme_backup.errors import BackupError, ConfigurationError, SourceError
from mipyme_backup.messages import _

BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
HEADING = "*** in database main ***\n"
SIDECARS = ("-wal", "-shm", "-journal")
NAME_BYTES = 255
HASH_DIGITS = 10


def in_memory(name: object) -> bool:
    """Tell whether this NAME is a database without a file, by Django's own rule."""
    return isinstance(name, str) and (name == ":memory:" or "mode=memory" in name)


def live_path(settings_dict: Mapping[str, Any]) -> Path:
    """Return the resolved path of the database's file; SQLite keeps its journals beside it."""
    name = settings_dict.get("NAME")
    if not name:
        raise ConfigurationError(
            _("the SQLite database has no NAME"), hint=_("Set NAME in its DATABASES entry.")
        )
    if isinstance(name, str) and name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    return Path(os.fsdecode(name)).resolve()


def identity(settings_dict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is equal for two ``DATABASES`` entries that are one database."""
    name = settings_dict.get("NAME")
    if name == ":memory:":
        return ("sqlite", name, str(id(settings_dict)))
    if in_memory(name):
        return ("sqlite", str(name))
    return ("sqlite", str(live_path(settings_dict)))


def preflight(alias: str, settings_dict: Mapping[str, Any]) -> None:
    """Raise SourceError where the file is missing: Django would make an empty one."""
    if in_memory(settings_dict.get("NAME")):
        return
    path = live_path(settings_dict)
    if not path.exists():
        raise SourceError(
            _("The database %(alias)s does not exist: there is no file %(path)s."),
            hint=_("Run migrate for a new one; for one that was lost: restore --latest"),
            alias=alias,
            path=path,
        )


def connect(path: Path, *, timeout: float) -> sqlite3.Connection:
    """Open a file that exists, in autocommit; `timeout` is in seconds."""
    return sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None
    )


def django_entry(engine: str, name: str, time_zone: str | None) -> dict[str, Any]:
    """Return a complete ``DATABASES`` entry for a copy.

    The live entry's OPTIONS stay out: an ``init_command`` could change the copy's journal mode.
    """
    return {
        "ENGINE": engine,
        "NAME": name,
        "TIME_ZONE": time_zone,
        "ATOMIC_REQUESTS": False,
        "AUTOCOMMIT": True,
        "CONN_HEALTH_CHECKS": False,
        "CONN_MAX_AGE": 0,
        "HOST": "",
        "OPTIONS": {},
        "PASSWORD": "",
        "PORT": "",
        "TEST": {"CHARSET": None, "COLLATION": None, "MIGRATE": True, "MIRROR": None, "NAME": None},
        "USER": "",
    }


def is_garbage(path: Path) -> bool:
    """Tell whether a file that exists is no database, without touching its journals.

    To open it the usual way would make SQLite remove them.
    """
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            return code_of(error) == sqlite3.SQLITE_NOTADB
    return False


def connect_as_django(engine: str, path: Path) -> sqlite3.Connection:
    """Open a file with the functions and extensions that Django's engine adds.

    CHECK constraints, indexes and triggers may call them; plain SQLite then refuses even an
    ``integrity_check``.
    """
    wrapper = load_backend(engine).DatabaseWrapper(
        django_entry(engine, f"{path.as_uri()}?mode=rw", None), "mipyme_backup"
    )
    connection: sqlite3.Connection = wrapper.get_new_connection(wrapper.get_connection_params())
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def create_private(path: Path) -> None:
    """Create an empty file that only we can read; raise FileExistsError where the name is taken."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))


def sidecar(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def beside(path: Path, suffix: str) -> Path:
    """Return a file beside the database `path`, whose name has room for journals of its own.

    Where that of `path` must be cut, a hash of the whole one stands in for the rest.
    """
    room = NAME_BYTES - len(".tmp") - max(map(len, SIDECARS))
    if len(os.fsencode(path.name + suffix)) <= room:
        return path.with_name(path.name + suffix)
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:HASH_DIGITS]
    tail = f".{digest}{suffix}"
    cut = os.fsencode(path.name)[: room - len(tail)].decode(errors="ignore")
    return path.with_name(cut + tail)


def remove(path: Path) -> None:
    """Remove a database's file and its journals, where they exist; journals last.

    A journal without its database does no harm; a database without its journal may be torn.
    """
    path.unlink(missing_ok=True)
    for suffix in SIDECARS:
        sidecar(path, suffix).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file or folder durable. Never for a file that SQLite has open in this process:
    closing any descriptor of it would drop SQLite's locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of all tables that hold rows: no internal ones, no virtual ones.

    A virtual table's rows are in its shadow tables, which are ordinary ones and counted.
    """
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        r" AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name"
    )
    return [name for (name,) in rows]


def row_counts(connection: sqlite3.Connection) -> dict[str, int]:
    counts = {}
    for name in tables(connection):
        query = f"SELECT count(*) FROM {quoted(name)}"  # noqa: S608 - quoted, from the catalog
        counts[name] = connection.execute(query).fetchone()[0]
    return counts


def foreign_key_violations(connection: sqlite3.Connection) -> int | None:
    """Return how many rows refer to none, or None where the schema does not let SQLite tell."""
    try:
        return sum(1 for _row in connection.execute("PRAGMA foreign_key_check"))
    except sqlite3.OperationalError:
        return None


def damage(connection: sqlite3.Connection, check: str) -> str | None:
    """Return the first thing that ``quick_check`` or ``integrity_check`` finds wrong, or None.

    Not more, because a longer check of a damaged file may end in an exception instead.
    """
    try:
        found = str(pragma(connection, f"{check}(1)"))
    except sqlite3.DatabaseError as error:
        if code_of(error) not in UNREADABLE:
            raise
        return str(error)
    return None if found == "ok" else found.removeprefix(HEADING)


def quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 for an error of Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def explained(error: sqlite3.Error, path: Path, kind: type[BackupError]) -> BackupError:
    """Return an error of `kind` that names the file, what SQLite says, and the next step."""
    code = code_of(error)
    hint = ""
    if code in BUSY:
        hint = _("Another process keeps it locked: end its transaction, then try again.")
    elif code == sqlite3.SQLITE_FULL:
        hint = _("Free space on the file system of %(folder)s, then try again.")
    elif code in UNREADABLE:
        hint = _("The file is damaged or no SQLite database: check NAME, or restore a backup.")
    elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY):
        hint = _("Check that this user may read and write the file and its folder.")
    elif code == sqlite3.SQLITE_IOERR:
        hint = _("Check the disk, its quota and the free space of %(folder)s, then try again.")
    return kind(
        _("SQLite cannot use %(path)s: %(reason)s"),
        hint=hint,
        permanent=code not in BUSY,
        path=path,
        folder=path.parent,
        reason=error,
    )
