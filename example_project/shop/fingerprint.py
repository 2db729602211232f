"""What the shop holds, told so that two states can be compared row by row and file by file.

Reads tables and files as they are, past the models: what the models do not know must come back
from a backup too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

# The catalog of backups tells what happened, and a restore is something that happened.
CATALOG_PREFIX = "mipyme_backup_"


def database_fingerprint(connection: BaseDatabaseWrapper) -> dict[str, dict[str, str]]:
    """Return, by table, a SHA-256 for every row by its primary key, and one for the definition."""
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor)
        return {
            name: _table(connection, cursor, name)
            for name in names
            if not name.startswith(CATALOG_PREFIX)
        }


def _table(connection: BaseDatabaseWrapper, cursor: Any, table: str) -> dict[str, str]:
    introspection = connection.introspection
    columns = [column.name for column in introspection.get_table_description(cursor, table)]
    key_columns = introspection.get_primary_key_columns(cursor, table) or columns
    key_indexes = [columns.index(column) for column in key_columns]
    constraints = sorted(introspection.get_constraints(cursor, table).items())
    fingerprint = {"definition": _digest((columns, constraints))}
    quote = connection.ops.quote_name
    cursor.execute(f"SELECT {', '.join(map(quote, columns))} FROM {quote(table)}")
    for row in cursor.fetchall():
        key = ", ".join(f"{columns[index]}={row[index]}" for index in key_indexes)
        fingerprint[key] = _digest(row)
    return fingerprint


def folder_fingerprint(folder: Path) -> dict[str, str]:
    """Return a SHA-256 for every file below `folder`, by its path in it; none if it is gone."""
    files = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _digest(value: object) -> str:
    # repr() tells 1 from 1.0 and from "1"; a text comparison of values would not.
    return hashlib.sha256(repr(value).encode()).hexdigest()
