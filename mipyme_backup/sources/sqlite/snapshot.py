"""One consistent view of an SQLite database: a private copy of its file."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.utils import load_backend

from mipyme_backup.errors import PreflightError, SourceBusyError, SourceError
from mipyme_backup.messages import _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Artifact, artifact_name
from mipyme_backup.sources.sqlite import files
from mipyme_backup.sources.sqlite.parse import check_file

BUSY_TIMEOUT = 30.0
STEP_PAGES = 4000
PAUSE_SECONDS = 0.005
POLL_SECONDS = 0.001
RESTARTS = 3


class SQLiteSnapshot:
    """A copy of the database in `work_dir` (0700), made on construction and gone on `close`.

    `alias` and `settings_dict` are those of ``DATABASES``; the tables in `without_rows` are
    saved empty. `busy_timeout` is how many seconds a locked database is waited for. Raises
    SourceError where the file is missing or damaged, SourceBusyError where it stays locked,
    PreflightError where `work_dir` has no room.
    """

    def __init__(
        self,
        alias: str,
        settings_dict: Mapping[str, Any],
        *,
        work_dir: Path,
        without_rows: frozenset[str],
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.alias = alias
        self._engine: str = settings_dict["ENGINE"]
        self._time_zone: str | None = settings_dict.get("TIME_ZONE")
        self._name = artifact_name(alias, "sqlite3")
        work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._copy = work_dir.resolve() / f"{self._name}.{secrets.token_hex(8)}"
        self._facts: dict[str, Any] = {}
        try:
            files.create_private(self._copy)
            if files.in_memory(settings_dict["NAME"]):
                self._copy_memory()
            else:
                self._copy_file(files.live_path(settings_dict), busy_timeout)
            self._settle(without_rows)
        except sqlite3.Error as error:
            self.close()
            raise files.explained(error, self._copy, SourceError) from error
        except OSError as error:
            self.close()
            raise PreflightError(
                _("the copy of the database %(alias)s failed at %(path)s: %(reason)s"),
                hint=_("Check the permissions, and that %(folder)s has room for a copy."),
                alias=alias,
                path=error.filename or self._copy,
                folder=work_dir,
                reason=error.strerror,
            ) from error
        except BaseException:
            self.close()
            raise

    def artifact(self) -> Artifact:
        return Artifact(
            name=self._name,
            open=self._open,
            check=check_file,
            facts=lambda: self._facts,
            size_hint=self._copy.stat().st_size,
        )

    @contextmanager
    def reading(self) -> Iterator[str]:
        alias = f"mipyme_backup_{self.alias}_snapshot"
        name = f"{self._copy.as_uri()}?mode=ro&immutable=1"
        entry = files.django_entry(self._engine, name, self._time_zone)
        wrapper = load_backend(self._engine).DatabaseWrapper(entry, alias)
        connections[alias] = wrapper
        try:
            yield alias
        finally:
            wrapper.close()
            del connections[alias]

    def row_counts(self) -> Mapping[str, int]:
        return self._facts.get("tables") or {}

    def check(self) -> None:
        """Nobody waits behind a copy."""

    def close(self) -> None:
        files.remove(self._copy)

    def _open(self) -> Reader:
        return self._copy.open("rb", buffering=0)

    def _copy_file(self, live: Path, busy_timeout: float) -> None:
        _check_present(live)
        _check_space(live, self._copy.parent)
        self._facts["database"] = live.name
        try:
            with closing(files.connect(live, timeout=busy_timeout)) as source:
                self._facts["journal_mode"] = files.pragma(source, "journal_mode")
                # From here on it is `_Pace` that waits: SQLite itself asks so seldom that a busy
                # writer starves it.
                source.execute("PRAGMA busy_timeout = 0")
                self._copy_pages(source, _Pace(live, busy_timeout))
        except sqlite3.Error as error:
            if files.code_of(error) == sqlite3.SQLITE_FULL:
                raise
            kind = SourceBusyError if files.code_of(error) in files.BUSY else SourceError
            raise files.explained(error, live, kind) from error

    def _copy_pages(self, source: sqlite3.Connection, pace: _Pace) -> None:
        """Copy in steps, so that writers get through between them, or at once where need be.

        In WAL mode readers stop nobody. In the other modes a writer between two steps makes
        SQLite start over; after a few times the copy is made under one lock.
        """
        with closing(files.connect(self._copy, timeout=0)) as target:
            target.execute("PRAGMA synchronous = OFF")
            if self._facts["journal_mode"] != "wal":
                with contextlib.suppress(_StartedOverError):
                    source.backup(target, pages=STEP_PAGES, progress=pace, sleep=POLL_SECONDS)
                    return
            pace.may_start_over = True
            source.backup(target, progress=pace, sleep=POLL_SECONDS)

    def _copy_memory(self) -> None:
        """Copy a database without a file through the connection that this thread has to it.

        `serialize` sees what an open transaction wrote, which `backup` waits for for ever: a
        test of a project runs inside one.
        """
        wrapper = connections[self.alias]
        if wrapper.connection is None:
            raise SourceError(
                _("the database %(alias)s lives in memory and is not open in this thread"),
                hint=_("Only a database in a file can be saved from elsewhere: set its NAME."),
                alias=self.alias,
            )
        self._facts["database"] = ":memory:"
        self._facts["journal_mode"] = files.pragma(wrapper.connection, "journal_mode")
        self._copy.write_bytes(wrapper.connection.serialize())

    def _settle(self, without_rows: frozenset[str]) -> None:
        """Make the copy one file that is whole, empty the tables, check it, and count it."""
        wanted = {name.lower() for name in without_rows}
        with closing(files.connect_as_django(self._engine, self._copy)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            problem = files.damage(connection, "quick_check")
            if problem is not None:
                raise SourceError(
                    _("the database %(alias)s (%(database)s) is damaged: %(problem)s"),
                    hint=_("Restore a good backup, or save what `sqlite3 FILE .recover` can read."),
                    alias=self.alias,
                    database=self._facts["database"],
                    problem=problem,
                )
            connection.execute("PRAGMA secure_delete = ON")
            emptied = [name for name in files.tables(connection) if name.lower() in wanted]
            for name in emptied:
                connection.execute(f"DELETE FROM {files.quoted(name)}")  # noqa: S608
            self._facts |= {
                "engine": "sqlite",
                "version": sqlite3.sqlite_version,
                "size": self._copy.stat().st_size,
                "page_size": files.pragma(connection, "page_size"),
                "encoding": files.pragma(connection, "encoding"),
                "user_version": files.pragma(connection, "user_version"),
                "foreign_key_violations": files.foreign_key_violations(connection),
                "tables": files.row_counts(connection),
                "without_rows": emptied,
            }


class _StartedOverError(Exception):
    """Writers were faster than the copy."""


class _Pace:
    """Watches an online backup: bounds the wait for a lock, leaves writers their turn."""

    def __init__(self, live: Path, busy_timeout: float) -> None:
        self.may_start_over = False
        self._live = live
        self._busy_timeout = busy_timeout
        self._deadline = time.monotonic() + busy_timeout
        self._remaining: int | None = None
        self._restarts = 0

    def __call__(self, status: int, remaining: int, total: int) -> None:
        if status & 0xFF in files.BUSY:
            if time.monotonic() > self._deadline:
                raise SourceBusyError(
                    _("%(path)s stayed locked for %(seconds)d seconds"),
                    hint=_("Another process keeps it locked: end its transaction and try again."),
                    path=self._live,
                    seconds=self._busy_timeout,
                )
            return
        self._deadline = time.monotonic() + self._busy_timeout
        if self._remaining is not None and remaining >= self._remaining > 0:
            self._restarts += 1
            if self._restarts > RESTARTS and not self.may_start_over:
                raise _StartedOverError
        self._remaining = remaining
        if remaining:
            time.sleep(PAUSE_SECONDS)


def _check_present(live: Path) -> None:
    if not live.exists():
        raise SourceError(
            _("there is no database file %(path)s"),
            hint=_("Check NAME in DATABASES; a relative NAME depends on the working folder."),
            path=live,
        )
    if not live.is_file():
        raise SourceError(
            _("%(path)s is no regular file"), hint=_("Check NAME in DATABASES."), path=live
        )


def _check_space(live: Path, folder: Path) -> None:
    wal = files.sidecar(live, "-wal")
    needed = live.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PreflightError(
            _("%(folder)s has %(free)d bytes free, the copy of %(path)s needs %(needed)d"),
            hint=_("Free space there, or set STATE_DIR to a larger file system."),
            folder=folder,
            free=free,
            needed=needed,
            path=live,
        )
