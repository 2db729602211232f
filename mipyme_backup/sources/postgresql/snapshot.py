"""One consistent view of a PostgreSQL database: locks first, then the snapshot."""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.errors import PoolerError, PreflightError, SourceBusyError, SourceError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Artifact, Facts, artifact_name
from mipyme_backup.sources.postgresql import content, facts, releases, restricted, subscriptions
from mipyme_backup.sources.postgresql.archive import WholeDump
from mipyme_backup.sources.postgresql.connection import (
    APPLICATION,
    connect,
    project_schemas,
    reason,
    search_like_the_project,
    server_major,
    sqlstate,
)
from mipyme_backup.sources.postgresql.dump import dump_arguments, start_dump
from mipyme_backup.sources.postgresql.parse import check_dump
from mipyme_backup.sources.postgresql.privileges import (
    may_not_connect,
    refuse,
    require_reading,
    unreadable,
)
from mipyme_backup.sources.postgresql.tools import find_tool
from mipyme_backup.sources.postgresql.watch import Watcher

ATTEMPTS = 5
READ_ONLY = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
LOCKED_TABLES = """
    SELECT relation FROM pg_catalog.pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted
          AND mode = 'AccessShareLock'
"""
# lock_not_available, deadlock_detected; a table that was dropped or renamed meanwhile
TIMED_OUT = frozenset({"55P03", "40P01"})
MOVED = frozenset({"42P01", "3F000"})


def preflight(
    alias: str, settings_dict: Mapping[str, Any], *, bin_dir: Path | None = None
) -> list[Message]:
    """Check that the server answers, that our role may read everything and that pg_dump fits.

    Raises PreflightError or SourceError; returns what is doubtful.
    """
    with _let_in(alias, settings_dict) as connection, connection.cursor() as cursor:
        tool = find_tool("pg_dump", server_major(connection), bin_dir)
        require_reading(cursor, alias)
        number = int(content.single(cursor, "SHOW server_version_num"))
        unsaved = subscriptions.not_dumped(cursor, alias)
    return [*releases.server_warnings(number), *releases.client_warnings(tool), *unsaved]


@contextlib.contextmanager
def _let_in(alias: str, settings_dict: Mapping[str, Any]) -> Iterator[BaseDatabaseWrapper]:
    """Yield a connection; raises PreflightError with the right that is missing, if it is that."""
    try:
        connection = connect(alias, settings_dict, read_only=True)
    except PoolerError:
        raise
    except PreflightError as error:
        refusal = may_not_connect(alias, settings_dict, str(settings_dict.get("NAME") or ""))
        raise refusal or error from error
    with contextlib.closing(connection):
        yield connection


class PostgreSQLSnapshot:
    """An open snapshot, its locks and the watcher over them; opened by the constructor.

    `without_rows` are tables whose rows stay out of the dump; `lock_timeout` and `patience` are
    seconds that we wait for others, and others for us. Raises SourceBusyError when the tables
    could not be locked in several attempts, SourceError for a table that may not be read.
    """

    def __init__(
        self,
        alias: str,
        settings_dict: Mapping[str, Any],
        *,
        without_rows: frozenset[str] = frozenset(),
        bin_dir: Path | None = None,
        lock_timeout: float = 5.0,
        patience: float = 5.0,
    ) -> None:
        self.alias = alias
        self._settings = settings_dict
        self._bin_dir = bin_dir
        self._lock_timeout = lock_timeout
        self._patience = patience
        self._application = f"{APPLICATION}_{secrets.token_hex(6)}"
        self._mutex = threading.RLock()
        self._closed = False
        self._facts: Facts | None = None
        self._dumped: WholeDump | None = None
        self._connection = connect(
            alias, settings_dict, application=self._application, lock_timeout=lock_timeout
        )
        try:
            self._major = server_major(self._connection)
            self._tool = find_tool("pg_dump", self._major, bin_dir)
            self._watcher = Watcher(
                alias, settings_dict, application=self._application, patience=patience
            )
        except BaseException:
            self._connection.close()
            raise
        try:
            schemas = project_schemas(self._connection)
            with self._connection.cursor() as cursor:
                self.name, self._tables, self._id, self._size = self._open(cursor)
        except BaseException:
            self.close()
            raise
        self._without_rows = content.called(self._tables, without_rows, schemas)

    def artifact(self) -> Artifact:
        return Artifact(
            name=artifact_name(self.alias, "dump"),
            open=self._dump,
            check=partial(check_dump, major=self._major, bin_dir=self._bin_dir),
            facts=self.facts,
            size_hint=self._size,
        )

    @contextlib.contextmanager
    def reading(self) -> Iterator[str]:
        self.check()
        alias = f"{self.alias}__{self._application}"
        connection = connect(
            self.alias, self._settings, application=self._application, register_as=alias
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION {READ_ONLY}")
            search_like_the_project(connection)
            # Django takes "autocommit off" for a transaction that is its own affair: `atomic`
            # makes savepoints in it, and nothing commits it.
            connection.set_autocommit(False)
            connection.settings_dict["AUTOCOMMIT"] = False
            with connection.cursor() as cursor:
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{self._id}'")
            yield alias
            self.check()
        except Error as error:
            self.check()
            raise SourceError(
                _("Reading the database %(alias)s failed: %(reason)s"),
                alias=self.alias,
                reason=reason(error),
            ) from error
        finally:
            del connections[alias]
            with contextlib.suppress(Error):
                connection.close()

    def row_counts(self) -> Mapping[str, int]:
        return (self._facts or {}).get("tables") or {}

    def check(self) -> None:
        if self._watcher.lost.is_set():
            raise self._busy()
        if self._closed:
            # Django would connect anew, and read another moment.
            raise SourceError(_("The snapshot of %(alias)s is closed"), alias=self.alias)

    def facts(self) -> Facts:
        """Return what the manifest says of the database, counted under the snapshot."""
        with self._mutex:
            if self._facts is None:
                self._facts = self._gather()
            entries = self._dumped.contents.entries if self._dumped is not None else ()
            return {**self._facts, "restricted": restricted.recorded(entries)}

    def close(self) -> None:
        """End the transaction and give the locks back; may be called twice."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._watcher.stop()
            with contextlib.suppress(Error):
                self._connection.close()

    def _open(self, cursor: Any) -> tuple[str, list[content.Table], str, int]:
        name = content.single(cursor, "SELECT current_database()")
        for attempt in range(ATTEMPTS):
            if attempt:
                # Somebody changes tables just now: let them finish.
                time.sleep(random.uniform(0.1, 0.5) * attempt)  # noqa: S311
            self.check()
            try:
                opened = self._lock_and_export(cursor)
            except Error as error:
                self.check()
                if sqlstate(error) not in TIMED_OUT | MOVED:
                    raise SourceError(
                        _("The database %(alias)s cannot be read: %(reason)s"),
                        alias=self.alias,
                        reason=reason(error),
                    ) from error
                opened = None
            if opened is not None:
                return name, *opened
            cursor.execute("ROLLBACK")
        raise SourceBusyError(
            _("The tables of %(alias)s could not be locked in %(attempts)d attempts"),
            hint=_("Something changes or locks tables; try again when it has ended."),
            alias=self.alias,
            attempts=ATTEMPTS,
        )

    def _lock_and_export(self, cursor: Any) -> tuple[list[content.Table], str, int] | None:
        """Return the tables, the snapshot's id and the tables' size; None when one came in between.

        LOCK TABLE takes no snapshot. So the snapshot is younger than every lock: what was
        truncated or rewritten before is seen as it became, and nothing can be after.
        """
        listed = _readable(cursor, self.alias)
        cursor.execute(f"BEGIN {READ_ONLY}")
        if listed:
            locked = ", ".join(f"ONLY {table.quoted}" for table in listed)
            cursor.execute(f"LOCK TABLE {locked} IN ACCESS SHARE MODE")
        snapshot = content.single(cursor, "SELECT pg_export_snapshot()")
        present = _readable(cursor, self.alias)
        held = set(content.names(cursor, LOCKED_TABLES))
        if any(table.oid not in held for table in present):
            return None
        return present, snapshot, content.tables_size(cursor, [table.oid for table in present])

    def _dump(self) -> Reader:
        self.check()
        arguments = dump_arguments(
            self._tool.path,
            self._settings,
            name=self.name,
            snapshot=self._id,
            lock_timeout=self._lock_timeout,
            without_rows=[(table.schema, table.name) for table in self._without_rows],
        )
        self._dumped = start_dump(
            arguments, self._settings, application=self._application, on_exit=self._dump_ended
        )
        return self._dumped

    def _dump_ended(self, status: int, stderr: str) -> None:
        self.check()
        # The query is quoted in any language; who may not read a table was told before.
        if status != 0 and "LOCK TABLE" in stderr:
            raise self._busy(stderr)

    def _gather(self) -> dict[str, Any]:
        self.check()
        counted = [table for table in self._tables if table not in self._without_rows]
        try:
            with self._connection.cursor() as cursor:
                gathered = facts.gather(cursor, name=self.name, major=self._major, counted=counted)
        except Error as error:
            self.check()
            raise SourceError(
                _("Counting the rows of %(alias)s failed: %(reason)s"),
                alias=self.alias,
                reason=reason(error),
            ) from error
        return {**gathered, "client": self._tool.version}

    def _busy(self, details: str = "") -> SourceBusyError:
        return SourceBusyError(
            _(
                "Somebody waits for a table of %(alias)s behind this backup, which gave way. "
                "%(details)s"
            ),
            hint=_("Try again when the change to the table (a migration?) has ended."),
            alias=self.alias,
            details=details,
        )


def _readable(cursor: Any, alias: str) -> list[content.Table]:
    """Return the tables without those of extensions that we may not read; refuse others."""
    tables = content.tables(cursor)
    refuse(unreadable(tables), cursor, alias)
    return [table for table in tables if table.readable]
