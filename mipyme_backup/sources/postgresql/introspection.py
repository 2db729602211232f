"""What Django asks of a database's tables, asked so that no object of the database answers.

Django's own queries call functions by their bare names with arguments that are not of the exact
type (``obj_description(oid, 'pg_class')``): where the project's schemas are searched, a function
of that name and a better fitting type is called instead, with our rights. Here every function
and operator is named with its schema.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.introspection import TableInfo
from django.db.backends.postgresql.introspection import DatabaseIntrospection, FieldInfo

TABLES = """
    SELECT c.relname, c.relkind FROM pg_catalog.pg_class c
    WHERE pg_catalog.pg_table_is_visible(c.oid)
"""
COLUMNS = """
    SELECT c.relname, a.attname, a.attnum FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
    WHERE pg_catalog.pg_table_is_visible(c.oid) AND NOT a.attisdropped
"""
SYSTEM = ("pg_", "sql_")
KINDS = {"r": "t", "p": "t", "f": "t", "v": "v", "m": "v"}


class SafeIntrospection(DatabaseIntrospection):
    """The names of tables and columns, which is all that a backup asks for."""

    def get_table_list(self, cursor: Any) -> list[TableInfo]:
        cursor.execute(TABLES)
        return [
            TableInfo(name, KINDS[kind])
            for name, kind in cursor.fetchall()
            if kind in KINDS and not name.startswith(SYSTEM)
        ]

    def get_table_description(self, cursor: Any, table_name: str) -> list[FieldInfo]:
        cursor.execute(COLUMNS)
        columns = sorted(
            (number, name)
            for table, name, number in cursor.fetchall()
            if table == table_name and number > 0
        )
        unknown: list[Any] = [None] * (len(FieldInfo._fields) - 1)
        return [FieldInfo(name, *unknown) for _number, name in columns]
