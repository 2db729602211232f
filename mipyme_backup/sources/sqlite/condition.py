"""Whether an SQLite database is there, and has the tables that it should."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any

from mipyme_backup.errors import BackupError
from mipyme_backup.sources.base import Condition
from mipyme_backup.sources.sqlite import files

SECONDS = 5
MIGRATIONS = "django_migrations"
APPLIED = "SELECT EXISTS (SELECT 1 FROM django_migrations WHERE app <> 'mipyme_backup')"


def condition_of(
    alias: str, settings_dict: Mapping[str, Any], *, wanted: Collection[str], held: Collection[str]
) -> Condition:
    """Return how the file is: one of no bytes is what opening a missing one leaves behind."""
    if files.in_memory(settings_dict.get("NAME")):
        return "unknown"
    try:
        path = files.live_path(settings_dict)
        if not path.exists() or path.stat().st_size == 0:
            return "missing"
        with closing(files.connect(path, timeout=SECONDS)) as connection:
            present = {name.lower(): name for name in files.tables(connection)}
            if not any(name.lower() in present for name in wanted):
                migrated = MIGRATIONS in present and connection.execute(APPLIED).fetchone()[0]
                return "used" if migrated else "bare"
            kept = [present[name.lower()] for name in held if name.lower() in present]
            if kept and not any(_has_rows(connection, name) for name in kept):
                return "emptied"
    except (BackupError, OSError, sqlite3.Error):
        return "unknown"
    return "used"


def _has_rows(connection: sqlite3.Connection, name: str) -> bool:
    query = f"SELECT EXISTS (SELECT 1 FROM {files.quoted(name)})"  # noqa: S608 - quoted
    return bool(connection.execute(query).fetchone()[0])
