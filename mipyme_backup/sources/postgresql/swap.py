"""Renames databases in one transaction, while a second connection ends the sessions in them.

``ALTER DATABASE … RENAME`` keeps newcomers out from its start and waits for the others to leave.
A process that dies before the commit leaves every name as it was.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql.connection import identifier, reason, sqlstate
from mipyme_backup.sources.postgresql.server import maintenance

ATTEMPTS = 4
LIVE_SECONDS = 1.0
BESIDE_SECONDS = 20.0
# object_in_use, query_canceled (by the timeout), lock_not_available, deadlock_detected
IN_USE = frozenset({"55006", "57014", "55P03", "40P01"})

# What `pg_terminate_backend` would refuse is passed over: it would refuse the whole query.
MAY_END = """
    (me.rolsuper OR (NOT r.rolsuper AND (
        pg_has_role(session_user, r.oid, 'USAGE')
        OR pg_has_role(session_user, 'pg_signal_backend', 'USAGE'))))
"""
SESSIONS = """
    FROM pg_catalog.pg_stat_activity a
    JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
    JOIN pg_catalog.pg_roles me ON me.rolname = session_user
    WHERE a.datname = %s AND a.pid <> pg_backend_pid()
"""
END_SESSIONS = f"SELECT pg_catalog.pg_terminate_backend(a.pid) {SESSIONS} AND {MAY_END}"
OTHERS_SESSIONS = f"""
    SELECT DISTINCT a.usename || ' ('
           || coalesce(nullif(a.application_name, ''), a.backend_type, 'another role''s')
           || ')' {SESSIONS} AND NOT {MAY_END} ORDER BY 1
"""


def others_sessions(cursor: Any, name: str) -> list[str]:
    """Return the sessions in database `name` that our role may not end, in words."""
    cursor.execute(OTHERS_SESSIONS, [name])
    return [row[0] for row in cursor.fetchall()]


def exchange(
    alias: str,
    settings_dict: Mapping[str, Any],
    *,
    live: str,
    incoming: str,
    outgoing: str | None,
    parked: str,
) -> float:
    """Rename `live` to `outgoing` and `incoming` to `live`; return the seconds of downtime.

    `outgoing` is None where nothing is live; `parked` is a free name. Raises RestoreError when
    sessions that we may not end stay for all attempts.
    """
    names = {live, incoming, outgoing or "", parked}
    with (
        maintenance(alias, settings_dict, apart_from=names) as mover,
        # The project's sessions belong to the role that logged in, not to one it assumed.
        maintenance(alias, settings_dict, apart_from=names, assume_role=False) as ender,
    ):
        for attempt in range(ATTEMPTS):
            time.sleep(attempt / 2)
            with ender.cursor() as cursor:
                staying = others_sessions(cursor, live) if outgoing else []
            if staying:
                failure = _("it is in use")  # known before: an attempt would only hurt
                continue
            try:
                return _exchange_once(mover, ender, live, incoming, outgoing, parked)
            except Error as error:
                failure = reason(error)
                if sqlstate(error) not in IN_USE:
                    break
    raise RestoreError(
        _("%(incoming)s could not be put in the place of %(live)s: %(reason)s"),
        hint=_("Stop what is connected (%(sessions)s) and run the same command again."),
        incoming=incoming,
        live=live,
        reason=failure,
        sessions=", ".join(staying) or "-",
    )


def _exchange_once(
    mover: BaseDatabaseWrapper,
    ender: BaseDatabaseWrapper,
    live: str,
    incoming: str,
    outgoing: str | None,
    parked: str,
) -> float:
    with mover.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            started = time.monotonic()
            if outgoing is None:
                _rename(cursor, ender, incoming, live, BESIDE_SECONDS)
            else:
                # First out of the way, so that whatever is busy there (autovacuum) is waited
                # for while the live one still serves.
                _rename(cursor, ender, incoming, parked, BESIDE_SECONDS)
                started = time.monotonic()
                _rename(cursor, ender, live, outgoing, LIVE_SECONDS)
                _rename(cursor, None, parked, live, LIVE_SECONDS)
            cursor.execute("COMMIT")
        except Error:
            with contextlib.suppress(Error):
                cursor.execute("ROLLBACK")
            raise
        return time.monotonic() - started if outgoing else 0.0


def _rename(
    cursor: Any, ender: BaseDatabaseWrapper | None, old: str, new: str, seconds: float
) -> None:
    cursor.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
    with _ending_sessions(ender, old):
        cursor.execute(f"ALTER DATABASE {identifier(old)} RENAME TO {identifier(new)}")


@contextlib.contextmanager
def _ending_sessions(ender: BaseDatabaseWrapper | None, name: str) -> Iterator[None]:
    """End the sessions in database `name` again and again, in a thread, until the block ends."""
    if ender is None:
        yield
        return
    done = threading.Event()

    def end() -> None:
        with contextlib.suppress(Error), ender.cursor() as cursor:
            while not done.is_set():
                cursor.execute(END_SESSIONS, [name])
                done.wait(0.01)

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
