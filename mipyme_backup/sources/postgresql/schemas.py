"""Tables of installed models that bare names do not reach, because they lie in other schemas.

Tenants have a schema each; a second alias of the same database may search another one. Tables are
found by one query, however many schemas there are. Nothing here lets a schema's owner run code:
the query searches the system's schema alone, and COPY of a table has no plan.
"""

# ruff: noqa: S608 - every name in a query is quoted, or is ours

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.sources.postgresql import content, counting
from mipyme_backup.sources.postgresql.connection import identifier, make_cursors_plain

FOUND = f"""
    SELECT c.oid, n.nspname, c.relname, c.relkind::text,
           pg_catalog.pg_get_userbyid(c.relowner), {content.OWNER_IS_TRUSTED}
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = ANY (%s::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND c.relpersistence <> 't' AND {content.APPLICATION_SCHEMAS}
          AND {content.NOT_OF_EXTENSION.format(catalog="'pg_class'", oid="c.oid")}
    ORDER BY n.nspname, c.relname
"""
COLUMNS = """
    SELECT a.attrelid, a.attname FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
"""
SET_LOCAL_SEARCH_PATH = "SELECT pg_catalog.set_config('search_path', %s, true)"
SEARCHED = "SELECT pg_catalog.current_schemas(false)"
TABLE_KINDS = "rp"
QUALIFIED = re.compile(r'"?(?P<schema>[^"]+)"\."(?P<table>[^"]+)"?')
ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, kw_only=True)
class ModelTable:
    """A table with the name of an installed model's.

    `trusted` says that its owner gains nothing by the rights of the session that reads it.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool
    owner: str
    trusted: bool

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The tables that models name: `reached` by the name that the model has, `others` by schema."""

    reached: Mapping[str, ModelTable] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, ModelTable]] = field(default_factory=dict)


def qualified(db_table: str) -> tuple[str, str] | None:
    """Return (schema, table) where a model's ``db_table`` names both, by a quote in it."""
    match = QUALIFIED.fullmatch(db_table)
    return (match["schema"], match["table"]) if match else None


def find_tables(using: str, db_tables: Collection[str]) -> Found:
    """Return where the tables `db_tables` of models lie in the database behind `using`.

    A table of another schema is trusted too where its owner has tables that bare names reach:
    they are read with the same rights.
    """
    pairs = {name: pair for name in db_tables if (pair := qualified(name))}
    names = sorted({*db_tables, *(table for _schema, table in pairs.values())})
    with _searching(using, None) as (cursor, searched):
        cursor.execute(FOUND, [names])
        rows = cursor.fetchall()
    reached: dict[str, ModelTable] = {}
    others: dict[str, dict[str, ModelTable]] = {}
    by_place = {(schema, name): row for row in rows for _oid, schema, name in [row[:3]]}
    for name in db_tables:
        places = [pairs[name]] if name in pairs else [(schema, name) for schema in searched]
        row = next((by_place[place] for place in places if place in by_place), None)
        if row is not None and row[3] in TABLE_KINDS:
            reached[name] = _table(row)
    owners = {table.owner for table in reached.values()}
    taken = {table.oid for table in reached.values()}
    for row in rows:
        if row[3] in TABLE_KINDS and row[0] not in taken and row[2] in db_tables:
            table = _table(row, trusted=row[4] in owners)
            others.setdefault(table.schema, {})[table.name] = table
    return Found(reached=reached, others=others)


def _table(row: Sequence[Any], *, trusted: bool = False) -> ModelTable:
    oid, schema, name, kind, owner, owner_is_trusted = row
    return ModelTable(
        oid=oid,
        schema=schema,
        name=name,
        partitioned=kind == "p",
        owner=owner,
        trusted=owner_is_trusted or trusted,
    )


@contextlib.contextmanager
def searching(using: str, schema: str) -> Iterator[None]:
    """Let bare names mean tables of `schema` alone, after the system's own, within the block.

    What is read there must be trusted: see `search_like_the_project`.
    """
    with _searching(using, schema):
        yield


@contextlib.contextmanager
def searching_first(using: str, schema: str) -> Iterator[None]:
    """Let bare names mean tables of `schema`, and only then what they mean otherwise."""
    with _searching(using, schema, then_others=True):
        yield


@contextlib.contextmanager
def _searching(
    using: str, schema: str | None, *, then_others: bool = False
) -> Iterator[tuple[Any, list[str]]]:
    """Yield a cursor and the schemas that are searched otherwise; for `schema` None no other is."""
    connection = connections[using]
    path = f"pg_catalog, {identifier(schema)}" if schema else "pg_catalog"
    with plain_cursors(connection), transaction.atomic(using=using), connection.cursor() as cursor:
        cursor.execute("SHOW search_path")
        before = cursor.fetchone()[0]
        cursor.execute(SEARCHED)
        searched = [str(name) for name in cursor.fetchone()[0]]
        others = [identifier(name) for name in searched if then_others]
        cursor.execute(SET_LOCAL_SEARCH_PATH, [", ".join([path, *others])])
        yield cursor, searched
        # A block that fails is rolled back, and this with it.
        cursor.execute(SET_LOCAL_SEARCH_PATH, [before])


@contextlib.contextmanager
def plain_cursors(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let no back end of the project's set a search_path with each cursor, as those for tenants do.

    The first cursor is still its own: it sets what bare names of the project reach.
    """
    if "_cursor" in vars(connection):
        yield
        return
    connection.cursor().close()
    make_cursors_plain(connection)
    try:
        yield
    finally:
        del connection._cursor  # type: ignore[attr-defined]


def schema_exists(using: str, schema: str) -> bool:
    """Say whether the database behind `using` has a schema of that name."""
    with _searching(using, None) as (cursor, _searched):
        cursor.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s", [schema])
        return bool(cursor.fetchall())


def columns_of(using: str, tables: Collection[ModelTable]) -> dict[int, set[str]]:
    """Return the columns of each of `tables` by its oid; one query."""
    found: dict[int, set[str]] = {table.oid: set() for table in tables}
    with _searching(using, None) as (cursor, _searched):
        cursor.execute(COLUMNS, [list(found)])
        for oid, name in cursor.fetchall():
            found[oid].add(name)
    return found


def copied(
    using: str, table: ModelTable, columns: Sequence[str]
) -> Iterator[tuple[str | None, ...]]:
    """Yield the rows of `table` as text, whoever owns it: nothing of the owner's is run."""
    listed = ", ".join(map(identifier, columns))
    with _searching(using, None) as (cursor, _searched):
        for _oid, quoted in _parts(cursor, table):
            for line in counting.copied_lines(cursor, f"{quoted} ({listed})"):
                yield tuple(map(_unescaped, line.split(b"\t")))


def row_count(using: str, table: ModelTable) -> int:
    """Count the rows of `table`, whoever owns it."""
    with _searching(using, None) as (cursor, _searched):
        return sum(
            counting.copied_count(cursor, oid, quoted) for oid, quoted in _parts(cursor, table)
        )


def _parts(cursor: Any, table: ModelTable) -> list[tuple[int, str]]:
    """Return what can be copied: the table, or the partitions that hold its rows."""
    if not table.partitioned:
        return [(table.oid, table.quoted)]
    cursor.execute(counting.FAMILY, [table.oid])
    return [(oid, f"{identifier(s)}.{identifier(name)}") for s, name, oid in cursor.fetchall()]


def _unescaped(value: bytes) -> str | None:
    """Return a value of COPY's text format.

    Format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2
    """
    if value == rb"\N":
        return None
    return ESCAPED.sub(lambda found: ESCAPES.get(found[1], found[1]), value).decode()
