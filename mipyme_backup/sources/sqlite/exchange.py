"""Exchange the content of a live SQLite file, so that a kill leaves all old or all new.

The new content goes into the live file itself with SQLite's online backup: connections that
are open see it at their next statement, and SQLite's own journal undoes a transfer that was
killed. The file is never overwritten, renamed or removed while SQLite can read it.

Nothing that is committed before the cut-over may be missing in what is kept of the old content,
so that copy is made under the very lock under which the new content is written:

- with a rollback journal by ``locking_mode = EXCLUSIVE``: the connection keeps the lock from
  its first transaction on until it is closed, so it can first be read and then be written;
- in WAL mode the backup takes the writer's lock with its first step. A second connection, that
  reads what was committed last, makes the copy between the first step and the next.

A marker, a table that is in the new content from before the transfer on, tells after a crash
whether the transfer was committed. From there on the exchange is in: traces that cannot be
removed then are a warning, and removed later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.sqlite import files

logger = logging.getLogger("mipyme_backup")
T = TypeVar("T")

STEP_PAGES = 4000
POLL_SECONDS = 0.001
"""A writer that is always busy leaves short gaps; SQLite's own waiting asks too seldom."""
FIRST_ATTEMPT = 0.25
LONGEST_ATTEMPT = 4.0
"""Seconds. Who waits for EXCLUSIVE keeps new readers out: stay below Django's 5 s timeout."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Put the content of `incoming` in the place of `live`, whose own goes to `outgoing`.

    All three are on one file system. `marker` names this exchange. A lock that others hold is
    waited for during `busy_timeout` seconds; RestoreError after that, with `live` untouched.
    Where `live` does not exist or is unreadable it is replaced as a file; `wal` puts that file
    in WAL mode (a live file keeps its own mode). Where nothing existed `outgoing` is empty.
    """

    live: Path
    incoming: Path
    outgoing: Path
    marker: str
    busy_timeout: float
    wal: bool = False

    def run(self) -> float:
        """Do it, or finish what was killed; return the seconds during which `live` was locked."""
        try:
            if self._is_committed():
                seconds = 0.0
            elif not self.incoming.exists():
                return self._already_done()
            else:
                self._prepare_incoming()
                seconds = self._exchange()
        except sqlite3.Error as error:
            raise files.explained(error, self.live, RestoreError) from error
        except OSError as error:
            raise RestoreError(
                _("%(path)s cannot be replaced: %(reason)s"),
                hint=_("Check the permissions and the free space of %(folder)s."),
                path=self.live,
                folder=self.live.parent,
                reason=error,
            ) from error
        self.remove_traces()
        return seconds

    def is_in(self) -> bool:
        """Say whether the new content is live; False where that cannot be told."""
        try:
            return self._is_committed() or not self.incoming.exists()
        except (sqlite3.Error, OSError):
            return False

    def take_back(self) -> None:
        """Remove what was kept of the old content for an exchange that never came in.

        Nothing is removed where it did. Journals that were set aside with an unreadable live file
        go back to it. Raises RestoreError where the live file does not say.
        """
        try:
            if not self.incoming.exists() or self._is_committed():
                return
            for suffix in files.SIDECARS:
                with contextlib.suppress(FileNotFoundError):
                    files.sidecar(self.outgoing, suffix).replace(files.sidecar(self.live, suffix))
            self.outgoing.unlink(missing_ok=True)
            files.sync(self.outgoing.parent)
        except sqlite3.Error as error:
            raise files.explained(error, self.live, RestoreError) from error

    def remove_traces(self) -> None:
        """Remove the new content's own file and then, when that is durable, the marker.

        In the other order a kill in between would look like an exchange that never began.
        """
        try:
            if not self._is_committed():
                return
            files.remove(self.incoming)
            files.sync(self.incoming.parent)
            with closing(files.connect(self.live, timeout=self.busy_timeout)) as live:
                live.execute(f"DROP TABLE IF EXISTS {files.quoted(self.marker)}")
        except (sqlite3.Error, OSError) as error:
            logger.warning(
                "%s is exchanged; the table %s stays in it for now: %s",
                self.live,
                self.marker,
                error,
            )

    def _is_committed(self) -> bool:
        return bool(self._ask_live(lambda live: self.marker in files.tables(live)))

    def _ask_live(self, question: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return the live file's answer, None where it does not exist or is unreadable."""
        if not self.live.exists() or files.is_garbage(self.live):
            return None
        try:
            with closing(files.connect(self.live, timeout=self.busy_timeout)) as connection:
                return question(connection)
        except sqlite3.DatabaseError as error:
            if files.code_of(error) in files.UNREADABLE:
                return None
            raise

    def _already_done(self) -> float:
        if self.outgoing.exists():
            return 0.0
        raise RestoreError(
            _("there is nothing at %(path)s to put in the place of %(live)s"),
            hint=_("It was never loaded, or has been removed since."),
            path=self.incoming,
            live=self.live,
        )

    def _prepare_incoming(self) -> None:
        try:
            self._mark_incoming()
        except sqlite3.Error as error:
            raise files.explained(error, self.incoming, RestoreError) from error

    def _mark_incoming(self) -> None:
        """Mark the new content and give it the page size of a live file in WAL mode.

        Only there is the page size fixed. The new content must not be in WAL mode: the backup
        copies the mode into a live file that has a rollback journal.
        """
        page_size = self._ask_live(_fixed_page_size)
        with closing(files.connect(self.incoming, timeout=self.busy_timeout)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            if page_size and page_size != files.pragma(connection, "page_size"):
                connection.execute(f"PRAGMA page_size = {page_size}")
                connection.execute("VACUUM")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {files.quoted(self.marker)} (at TEXT)")

    def _exchange(self) -> float:
        if not self.live.exists():
            for suffix in files.SIDECARS:
                files.sidecar(self.live, suffix).unlink(missing_ok=True)
            self._begin_outgoing().close()
            self._end_outgoing()
            return self._put_in_place()
        if files.is_garbage(self.live):
            self._set_aside()
            return self._put_in_place()
        try:
            with closing(files.connect(self.live, timeout=self.busy_timeout)) as live:
                wal = files.pragma(live, "journal_mode") == "wal"
                seconds = self._through_wal(live) if wal else self._under_exclusive_lock(live)
        except sqlite3.DatabaseError as error:
            if files.code_of(error) not in files.UNREADABLE:
                raise
            self._set_aside()
            return self._put_in_place()
        return seconds

    def _under_exclusive_lock(self, live: sqlite3.Connection) -> float:
        self._lock(live)
        started = time.monotonic()
        with closing(self._begin_outgoing()) as outgoing:
            live.backup(outgoing, progress=_refuse_busy)
        self._end_outgoing()
        with closing(files.connect(self.incoming, timeout=self.busy_timeout)) as incoming:
            incoming.backup(live, progress=_refuse_busy)
        live.close()
        return time.monotonic() - started

    def _lock(self, live: sqlite3.Connection) -> None:
        """Take the EXCLUSIVE lock and keep it until the connection is closed.

        First writers are kept out, by asking often; then the readers are waited for, in attempts
        with pauses, because each attempt holds off new ones.
        """
        deadline = time.monotonic() + self.busy_timeout
        attempt = FIRST_ATTEMPT
        while True:
            try:
                live.execute("PRAGMA busy_timeout = 0")
                live.execute("BEGIN IMMEDIATE")
                live.execute(f"PRAGMA busy_timeout = {int(attempt * 1000)}")
                live.execute("PRAGMA locking_mode = EXCLUSIVE")
                live.execute("COMMIT")
                break
            except sqlite3.OperationalError as error:
                if files.code_of(error) not in files.BUSY:
                    raise
                if time.monotonic() > deadline:
                    raise self._blocked() from error
            if live.in_transaction:
                live.execute("PRAGMA locking_mode = NORMAL")
                live.execute("ROLLBACK")
                time.sleep(attempt / 2)
                attempt = min(2 * attempt, LONGEST_ATTEMPT)
            else:
                time.sleep(POLL_SECONDS)
        if files.pragma(live, "journal_mode") == "wal":
            raise RestoreError(
                _("%(path)s was switched to WAL mode just now"),
                hint=_("Try again."),
                permanent=False,
                path=self.live,
            )

    def _through_wal(self, live: sqlite3.Connection) -> float:
        live.execute("PRAGMA busy_timeout = 0")
        deadline = time.monotonic() + self.busy_timeout
        started = 0.0

        def keep_outgoing(status: int, remaining: int, total: int) -> None:
            nonlocal started
            if status & 0xFF in files.BUSY:
                if time.monotonic() > deadline:
                    raise self._blocked()
            elif not started:
                started = time.monotonic()
                with (
                    closing(files.connect(self.live, timeout=self.busy_timeout)) as committed,
                    closing(self._begin_outgoing()) as outgoing,
                ):
                    committed.backup(outgoing, progress=_refuse_busy)
                self._end_outgoing()

        with closing(files.connect(self.incoming, timeout=self.busy_timeout)) as incoming:
            # The first step must end before the last page, which commits. The marker makes sure
            # that there are two pages at least.
            pages = min(STEP_PAGES, files.pragma(incoming, "page_count") // 2)
            incoming.backup(live, pages=pages, progress=keep_outgoing, sleep=POLL_SECONDS)
        return time.monotonic() - started

    def _begin_outgoing(self) -> sqlite3.Connection:
        """Start the copy of the old content anew; one of an earlier attempt may be out of date."""
        unfinished = files.sidecar(self.outgoing, ".tmp")
        files.remove(unfinished)
        files.create_private(unfinished)
        return files.connect(unfinished, timeout=0)

    def _end_outgoing(self) -> None:
        unfinished = files.sidecar(self.outgoing, ".tmp")
        with closing(files.connect(unfinished, timeout=0)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        files.sync(unfinished)
        for suffix in files.SIDECARS:
            files.sidecar(self.outgoing, suffix).unlink(missing_ok=True)
        unfinished.replace(self.outgoing)
        files.sync(self.outgoing.parent)

    def _set_aside(self) -> None:
        """Keep an unreadable live file, with the journals that belong to it.

        The journals are moved first: one that is left would be played into the new file.
        """
        for suffix in files.SIDECARS:
            with contextlib.suppress(FileNotFoundError):
                files.sidecar(self.live, suffix).replace(files.sidecar(self.outgoing, suffix))
        self.outgoing.unlink(missing_ok=True)
        try:
            os.link(self.live, self.outgoing)
        except OSError:  # a file system without links
            unfinished = files.sidecar(self.outgoing, ".tmp")
            files.remove(unfinished)
            files.create_private(unfinished)
            shutil.copyfile(self.live, unfinished)
            files.sync(unfinished)
            unfinished.replace(self.outgoing)
        files.sync(self.outgoing.parent)

    def _put_in_place(self) -> float:
        started = time.monotonic()
        self._adopt_owner()
        files.sync(self.incoming)
        self.incoming.replace(self.live)
        files.sync(self.live.parent)
        if self.wal:
            with closing(files.connect(self.live, timeout=self.busy_timeout)) as live:
                live.execute("PRAGMA journal_mode = WAL")
        return time.monotonic() - started

    def _adopt_owner(self) -> None:
        """Give the new file mode and owner of the old one; the folder's owner where none was."""
        if self.live.exists():
            model = self.live.stat()
            self.incoming.chmod(model.st_mode & 0o777)
        else:
            model = self.live.parent.stat()
        if os.geteuid() == 0:
            os.chown(self.incoming, model.st_uid, model.st_gid)

    def _blocked(self) -> RestoreError:
        return RestoreError(
            _("%(path)s stayed locked for %(seconds)d seconds; it is as it was"),
            hint=_("Stop the process that keeps it open in a transaction, then try again."),
            permanent=False,
            path=self.live,
            seconds=self.busy_timeout,
        )


def _fixed_page_size(live: sqlite3.Connection) -> int | None:
    wal = files.pragma(live, "journal_mode") == "wal"
    return int(files.pragma(live, "page_size")) if wal else None


def _refuse_busy(status: int, remaining: int, total: int) -> None:
    """Raise on a lock that SQLite has waited for already; Python would try again for ever."""
    if status & 0xFF in files.BUSY:
        raise RestoreError(
            _("a copy of the database is in use by another process"),
            hint=_("End the process that has it open, then try again."),
            permanent=False,
        )
