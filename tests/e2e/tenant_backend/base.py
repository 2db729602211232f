from __future__ import annotations

from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQLWrapper


class DatabaseWrapper(PostgreSQLWrapper):
    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name=name)  # type: ignore[misc]
        if name is None:
            cursor.execute("SET search_path = public")
        return cursor
