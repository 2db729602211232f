"""Whether a PostgreSQL database is there, and has the tables that it should."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.errors import BackupError, PreflightError
from mipyme_backup.sources.base import Condition
from mipyme_backup.sources.postgresql import content, counting
from mipyme_backup.sources.postgresql.connection import connected

SECONDS = 5
OTHERS = ("postgres", "template1")
MIGRATIONS = "django_migrations"
EXISTS = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)"


def condition_of(
    alias: str, settings_dict: Mapping[str, Any], *, wanted: Collection[str], held: Collection[str]
) -> Condition:
    """Return how the database is; a table counts in whatever schema it is."""
    try:
        with _opened(alias, settings_dict) as connection, connection.cursor() as cursor:
            present = content.tables(cursor)
            if not any(table.name in wanted for table in present):
                noted = [table for table in present if table.name == MIGRATIONS]
                return "used" if any(_is_migrated(cursor, table) for table in noted) else "bare"
            kept = [table for table in present if table.label in held]
            if not all(table.readable for table in kept):
                return "unknown"
            if kept and not any(
                counting.has_rows(cursor, table) for table in counting.smallest_first(cursor, kept)
            ):
                return "emptied"
    except PreflightError:
        return "missing" if is_missing(alias, settings_dict) else "unknown"
    except (BackupError, Error):
        return "unknown"
    return "used"


def is_missing(alias: str, settings_dict: Mapping[str, Any]) -> bool:
    """Say whether the server answers, and has no database of that name."""
    wanted = str(settings_dict.get("NAME") or "")
    for other in OTHERS:
        if other == wanted:
            continue
        with (
            contextlib.suppress(BackupError, Error),
            _opened(alias, settings_dict, name=other, assume_role=False) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(EXISTS, [wanted])
            return not cursor.fetchone()[0]
    return False


def _is_migrated(cursor: Any, table: content.Table) -> bool:
    if not table.trusted or not table.readable:
        return True
    query = f"SELECT EXISTS (SELECT FROM {table.quoted} WHERE app <> 'mipyme_backup')"  # noqa: S608
    return bool(content.single(cursor, query))


@contextlib.contextmanager
def _opened(
    alias: str, settings_dict: Mapping[str, Any], **options: Any
) -> Iterator[BaseDatabaseWrapper]:
    given = {"connect_timeout": SECONDS, **(settings_dict.get("OPTIONS") or {})}
    bounded = {**settings_dict, "OPTIONS": given}
    with connected(alias, bounded, read_only=True, **options) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{SECONDS}s'")
        yield connection
