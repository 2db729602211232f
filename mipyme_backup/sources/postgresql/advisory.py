"""A session advisory lock in the server's maintenance database: over all hosts, gone with us."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from django.db import Error

from mipyme_backup.errors import PoolerError, PreflightError
from mipyme_backup.lock import UNREACHABLE
from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql.connection import connected
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")
MAINTENANCE_DATABASE = "postgres"
NAME_BYTES = 63


class AdvisoryLock:
    """The lock of one server. Called, it is tried for the length of a block."""

    def __init__(self, alias: str, settings_dict: Mapping[str, Any]) -> None:
        self._alias = alias
        self._settings = settings_dict

    @contextlib.contextmanager
    def __call__(self, key: int, name: str) -> Iterator[str | None]:
        """Enter with None when the lock `key` is ours, else with the holder's name.

        That is `UNREACHABLE` where the server lets us not in: it is warned about, and the work
        itself will say what is wrong with the server. Raises PoolerError where a pooler stands
        before it, which would hold the lock in our place.
        """
        with contextlib.ExitStack() as stack:
            holder: str | None = UNREACHABLE
            try:
                connection = stack.enter_context(
                    connected(
                        self._alias,
                        self._settings,
                        name=MAINTENANCE_DATABASE,
                        application=name.encode()[:NAME_BYTES].decode(errors="ignore"),
                        assume_role=False,
                    )
                )
            except PoolerError:
                raise
            except PreflightError as error:
                warn(logger, _("No lock on the server: %(reason)s"), reason=error)
            else:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
                    holder = None if cursor.fetchone()[0] else _holder(cursor, key)
            try:
                yield holder
            finally:
                if holder is None:
                    _let_go(connection, key)


def _let_go(connection: Any, key: int) -> None:
    """Free the lock now: a server ends a closed session in its own time, and holds it until then.

    A session that the server has ended holds nothing.
    """
    with contextlib.suppress(Error), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s)", [key])


def _holder(cursor: Any, key: int) -> str:
    """Return what the session that holds the lock calls itself (pg_locks splits the key)."""
    cursor.execute(
        """
        SELECT a.application_name FROM pg_catalog.pg_locks l
        JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
              AND l.classid::bigint << 32 | l.objid::bigint = %s
        """,
        [key],
    )
    row = cursor.fetchone()
    return str(row[0]) if row and row[0] else "-"
