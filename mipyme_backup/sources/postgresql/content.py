"""What a database holds: asked under the snapshot for the manifest, and of a restored copy.

Every function takes an open cursor and leaves out the system's own objects, temporary ones
and those that belong to extensions, whose rows a dump does not carry.
"""

# ruff: noqa: S608 - every name in a query is quoted, or is ours

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mipyme_backup.sources.postgresql.connection import identifier

APPLICATION_SCHEMAS = """
    n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    AND n.nspname !~ '^pg_(toast_)?temp_'
"""
NOT_OF_EXTENSION = """
    NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = {catalog}::regclass
                AND e.objid = {oid} AND e.deptype = 'e')
"""
# Only a table's owner can lay functions into it that the planner calls. The database's owner gains
# nothing by a role that may only read.
OWNER_IS_TRUSTED = """
    (SELECT c.relowner = me.oid OR o.rolsuper OR (
        c.relowner = (SELECT datdba FROM pg_catalog.pg_database WHERE datname = current_database())
        AND NOT (me.rolsuper OR me.rolcreatedb OR me.rolcreaterole OR me.rolreplication))
     FROM pg_catalog.pg_roles me, pg_catalog.pg_roles o
     WHERE me.rolname = session_user AND o.oid = c.relowner)
"""
# An extension may own a table and leave its rows, or those of a condition, to its users. These are
# in a dump, and the table is not.
USERS_ROWS = """
    (SELECT coalesce(u.condition, '') FROM pg_catalog.pg_extension x,
        unnest(x.extconfig, x.extcondition) u (relation, condition)
     WHERE u.relation = c.oid LIMIT 1)
"""
TABLES = f"""
    SELECT c.oid, n.nspname, c.relname, c.relkind::text,
           EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_class'::regclass
                   AND e.objid = c.oid AND e.deptype = 'e'),
           has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'),
           {OWNER_IS_TRUSTED}, {USERS_ROWS}
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {APPLICATION_SCHEMAS}
    ORDER BY n.nspname, c.relname
"""
UNVALIDATED = f"""
    SELECT format('%I.%I.%I', n.nspname, c.relname, k.conname)
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT k.convalidated AND {APPLICATION_SCHEMAS} ORDER BY 1
"""
# A check of another role's table would run that role's functions with our rights.
OWN_UNVALIDATED = UNVALIDATED.replace(
    "WHERE", "WHERE pg_catalog.pg_get_userbyid(c.relowner) = current_user AND", 1
)
INVALID_INDEXES = f"""
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT i.indisvalid AND {APPLICATION_SCHEMAS} ORDER BY 1
"""
SEQUENCES = f"""
    SELECT count(*) FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {APPLICATION_SCHEMAS}
          AND {NOT_OF_EXTENSION.format(catalog="'pg_class'", oid="c.oid")}
"""
IS_EMPTY = f"""
    SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata) AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE {APPLICATION_SCHEMAS}
              AND {NOT_OF_EXTENSION.format(catalog="'pg_class'", oid="c.oid")})
"""
LARGE_OBJECTS = "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"
# What pg_dump reads, beside tables, and our role may not. The owner's rights are in the default
# privileges; has_largeobject_privilege is younger than the servers that we read.
UNREADABLE_SEQUENCES = f"""
    SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE'),
           has_sequence_privilege(c.oid, 'SELECT')
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {APPLICATION_SCHEMAS}
          AND {NOT_OF_EXTENSION.format(catalog="'pg_class'", oid="c.oid")}
          AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'))
    ORDER BY 1, 2
"""
BEHIND_ROW_SECURITY = f"""
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND {APPLICATION_SCHEMAS} AND row_security_active(c.oid)
    ORDER BY 1
"""
# Their owners count their rows only where row security is off for them.
FORCED_ROW_SECURITY = f"""
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relrowsecurity AND c.relforcerowsecurity AND {APPLICATION_SCHEMAS} ORDER BY 1
"""
UNREADABLE_LARGE_OBJECTS = """
    SELECT m.oid::bigint FROM pg_catalog.pg_largeobject_metadata m
    WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
        AND NOT pg_has_role(m.lomowner, 'USAGE') AND NOT EXISTS (
            SELECT FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT'
            AND CASE WHEN a.grantee = 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END)
    ORDER BY 1
"""
SCHEMAS = f"""
    SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE {APPLICATION_SCHEMAS}
    AND {NOT_OF_EXTENSION.format(catalog="'pg_namespace'", oid="n.oid")} ORDER BY 1
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or a partitioned one.

    `usable` says whether our role may look into its schema, `trusted` whether its owner would gain
    nothing by our rights. Of a table of an extension `users_rows` is the condition ("WHERE …", or
    "" for all) of the rows that are its users', None where none are.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool
    of_extension: bool
    usable: bool
    selectable: bool
    trusted: bool
    users_rows: str | None = None

    @property
    def counted(self) -> bool:
        """Whether a dump carries rows of its own for it."""
        return not self.partitioned and (not self.of_extension or self.users_rows is not None)

    @property
    def readable(self) -> bool:
        return self.usable and self.selectable

    @property
    def quoted(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    def called(self, name: str) -> bool:
        """Tell whether `name` means this table: with its schema, or as Django quotes it."""
        return name in {self.label, self.quoted, f'{self.schema}"."{self.name}'}


def called(tables: Iterable[Table], names: Iterable[str], schemas: Iterable[str]) -> list[Table]:
    """Return which of `tables` the `names` mean; a bare one is looked for in `schemas`."""
    listed = list(tables)
    labels = {table.label for table in listed}
    wanted = set(names)
    bare = {
        next((f"{s}.{name}" for s in schemas if f"{s}.{name}" in labels), "") for name in wanted
    }
    return [t for t in listed if t.label in bare or any(map(t.called, wanted))]


def tables(cursor: Any) -> list[Table]:
    """Return the tables of the application and of extensions, by schema and name."""
    cursor.execute(TABLES)
    return [
        Table(
            oid=oid,
            schema=schema,
            name=name,
            partitioned=kind == "p",
            of_extension=of_extension,
            usable=usable,
            selectable=selectable,
            trusted=trusted,
            users_rows=users_rows,
        )
        for (
            oid,
            schema,
            name,
            kind,
            of_extension,
            usable,
            selectable,
            trusted,
            users_rows,
        ) in cursor.fetchall()
    ]


def is_empty(cursor: Any) -> bool:
    """Say whether nobody has put a relation or a large object into the database."""
    return bool(single(cursor, IS_EMPTY))


def names(cursor: Any, query: str) -> list[Any]:
    """Return the first column of `query`."""
    cursor.execute(query)
    return [row[0] for row in cursor.fetchall()]


def single(cursor: Any, query: str) -> Any:
    """Return the one value of `query`."""
    cursor.execute(query)
    return cursor.fetchone()[0]


def tables_size(cursor: Any, oids: list[int]) -> int:
    """Return the bytes of the tables without their indexes: about what a dump holds."""
    cursor.execute(
        "SELECT coalesce(sum(pg_catalog.pg_table_size(oid)), 0)::bigint"
        " FROM unnest(%s::oid[]) AS listed (oid)",
        [oids],
    )
    return int(cursor.fetchone()[0])


def extensions(cursor: Any) -> dict[str, str]:
    """Return the installed extensions with their versions."""
    cursor.execute("SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY 1")
    return dict(cursor.fetchall())
