"""Counts rows, and compares keys with their sequences, without a query of a stranger's table.

The planner works out the constant parts of a table's index expressions and predicates, extended
statistics and partition keys, for any query of that table: functions that its owner wrote, with the
rights of the session. COPY of a table has no plan. So the tables of those who would gain by our
rights are copied, by one narrow column, and the lines are counted here: some ten times slower.
"""

# ruff: noqa: S608 - every name in a query is quoted, or is ours

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from mipyme_backup.sources.postgresql import content
from mipyme_backup.sources.postgresql.connection import identifier

NARROWEST = """
    SELECT attname FROM pg_catalog.pg_attribute
    WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY attlen < 0, attlen, attnum LIMIT 1
"""
# A table, and what a query of it reads beside: its partitions and heirs.
FAMILY = """
    WITH RECURSIVE family (oid) AS (
        SELECT %s::oid
        UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN family f ON f.oid = i.inhparent)
    SELECT n.nspname, c.relname, c.oid FROM family JOIN pg_catalog.pg_class c ON c.oid = family.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'
"""
OWNED_SEQUENCES = f"""
    SELECT format('%I.%I', sn.nspname, s.relname), c.oid, n.nspname, c.relname, a.attname,
           q.seqincrement, {content.OWNER_IS_TRUSTED}
    FROM pg_catalog.pg_sequence q
    JOIN pg_catalog.pg_class s ON s.oid = q.seqrelid
    JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid
         AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    JOIN pg_catalog.pg_class c ON c.oid = d.refobjid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
    WHERE q.seqincrement > 0 AND NOT q.seqcycle AND c.relkind IN ('r', 'p')
          AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
          AND s.relpersistence <> 't' AND has_table_privilege(s.oid, 'SELECT')
          AND {content.APPLICATION_SCHEMAS}
          AND {content.NOT_OF_EXTENSION.format(catalog="'pg_class'", oid="c.oid")}
    ORDER BY 1
"""


def row_counts(cursor: Any, counted: Iterable[content.Table]) -> dict[str, int]:
    """Return the rows by ``schema.table``; a partitioned table's are counted in its partitions."""
    counts = {}
    for table in counted:
        if not table.counted:
            continue
        # With a condition pg_dump itself makes a query of it.
        if table.trusted or table.users_rows:
            query = f"SELECT count(*) FROM ONLY {table.quoted} {table.users_rows or ''}"
            counts[table.label] = int(content.single(cursor, query))
            continue
        counts[table.label] = copied_count(cursor, table.oid, table.quoted)
    return counts


def copied_count(cursor: Any, oid: int, quoted: str) -> int:
    """Count the rows of one table by copying its narrowest column."""
    cursor.execute(NARROWEST, [oid])
    columns = "".join(f" ({identifier(name)})" for (name,) in cursor.fetchall())
    return _copy(cursor, f"{quoted}{columns}").count


def smallest_first(cursor: Any, tables: Iterable[content.Table]) -> list[content.Table]:
    """Return the tables by what they take on the disk."""
    found = list(tables)
    query = (
        "SELECT c.oid, pg_catalog.pg_relation_size(c.oid) FROM pg_catalog.pg_class AS c"
        " WHERE c.oid = ANY (%s)"
    )
    cursor.execute(query, [[table.oid for table in found]])
    sizes = dict(cursor.fetchall())
    return sorted(found, key=lambda table: int(sizes.get(table.oid) or 0))


def has_rows(cursor: Any, table: content.Table) -> bool:
    """Say whether the table has any row: by COPY, for which no function of an index is run."""
    return copied_count(cursor, table.oid, table.quoted) > 0


def sequences_behind(cursor: Any) -> list[str]:
    """Return the sequences whose next value their own column already passed."""
    cursor.execute(OWNED_SEQUENCES)
    behind = []
    for sequence, oid, schema, table, column, increment, trusted in cursor.fetchall():
        cursor.execute(f"SELECT last_value, is_called FROM {sequence}")
        last_value, is_called = cursor.fetchone()
        if trusted:
            quoted = f"{identifier(schema)}.{identifier(table)}"
            highest = content.single(cursor, f"SELECT max({identifier(column)}) FROM {quoted}")
        else:
            highest = _highest(cursor, oid, column)
        if highest is not None and highest >= last_value + (increment if is_called else 0):
            behind.append(sequence)
    return behind


def _highest(cursor: Any, oid: int, column: str) -> int | None:
    cursor.execute(FAMILY, [oid])
    found = [
        _copy(
            cursor, f"{identifier(schema)}.{identifier(name)} ({identifier(column)})", whole=True
        ).highest
        for schema, name, _oid in cursor.fetchall()
    ]
    return max((highest for highest in found if highest is not None), default=None)


class _Lines:
    """What COPY writes: a line for each row, in which a line break is escaped."""

    def __init__(self, *, whole: bool) -> None:
        self.count = 0
        self.highest: int | None = None
        self._whole = whole
        self._rest = b""

    def write(self, data: bytes) -> None:
        data = bytes(data)
        self.count += data.count(b"\n")
        if self._whole:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if line != rb"\N":
                    value = int(line)
                    self.highest = value if self.highest is None else max(self.highest, value)


def copied_lines(cursor: Any, what: str) -> Iterator[bytes]:
    """Yield the lines that COPY writes of `what`, without their ends."""
    statement = f"COPY {what} TO STDOUT"
    with cursor.db.wrap_database_errors:
        if hasattr(cursor, "copy_expert"):  # psycopg2 writes to a file only
            written = io.BytesIO()
            cursor.copy_expert(statement, written)
            written.seek(0)
            yield from (line.removesuffix(b"\n") for line in written)
            return
        with cursor.copy(statement) as copy:
            rest = b""
            for data in copy:
                *lines, rest = (rest + bytes(data)).split(b"\n")
                yield from lines


def _copy(cursor: Any, what: str, *, whole: bool = False) -> _Lines:
    """Copy `what` out; `whole` numbers are compared."""
    lines = _Lines(whole=whole)
    statement = f"COPY {what} TO STDOUT"
    with cursor.db.wrap_database_errors:
        if hasattr(cursor, "copy_expert"):  # psycopg2
            cursor.copy_expert(statement, lines)
        else:
            with cursor.copy(statement) as copy:
                for data in copy:
                    lines.write(data)
    return lines
