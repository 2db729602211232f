"""Refuses a pooler before the server: its sessions are not ours, and what we set would stay.

PgBouncer in transaction mode runs each transaction of a client in whichever session is free: the
site's next query would run with our search_path, or hold our lock.
"""

from __future__ import annotations

from typing import Any

from mipyme_backup.errors import PoolerError
from mipyme_backup.messages import _

# The schema is named and there is no argument: no function of another role is called instead.
SESSION_PID = "SELECT pg_catalog.pg_backend_pid()"


def refuse_pooler(connection: Any, *, alias: str, where: str) -> None:
    """Raise PoolerError where a new `connection` of the driver does not reach the server itself.

    The server tells a client the process id of its session as it lets it in (BackendKeyData); a
    pooler makes one up, since a session is not yet chosen then. This must come before any SET.
    """
    with connection.cursor() as cursor:
        cursor.execute(SESSION_PID)
        pid = cursor.fetchone()[0]
    if pid == connection.info.backend_pid:  # psycopg and psycopg2 have it by the same name
        return
    raise PoolerError(
        _(
            "A connection pooler stands before the database %(alias)s (%(where)s), and what a"
            " backup sets in its sessions would reach the site; nothing was set"
        ),
        hint=_(
            "Name the server itself, in OPTIONS of SOURCES['database']: \"connections\":"
            ' {"%(alias)s": {"HOST": "the server", "PORT": "5432"}}'
            " (see docs/howto/postgresql.md)"
        ),
        alias=alias,
        where=where,
    )
