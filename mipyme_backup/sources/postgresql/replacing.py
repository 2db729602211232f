"""The SQL that replaces what a role owns in a database, in the one transaction of a dump's script.

`pg_restore --single-transaction --file` writes ``BEGIN`` and ``COMMIT`` itself. What is written
here goes before: its own ``BEGIN`` (theirs is then a warning), the drops, and a deferred trigger
that counts the rows when the transaction commits. A script that ends too early commits nothing.
"""

# ruff: noqa: S608 - every name in a statement is quoted, or is ours

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mipyme_backup.sources.postgresql import content
from mipyme_backup.sources.postgresql.connection import identifier, literal

LOCK_SECONDS = 30
"""So long others may keep a table from us; and those who come later wait for us meanwhile."""

OURS = "pg_has_role({owner}, 'USAGE')"
NOT_EXTENSION = content.NOT_OF_EXTENSION.format

RELATIONS = f"""
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
        AND {content.APPLICATION_SCHEMAS} AND {NOT_EXTENSION(catalog="'pg_class'", oid="c.oid")}
"""
# Not those that come and go with something else: the constructors of a range's type.
ROUTINES = f"""
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE {content.APPLICATION_SCHEMAS} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
        WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype IN ('e', 'i'))
"""
TYPES = f"""
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd', 'r', 'c') AND {content.APPLICATION_SCHEMAS}
        AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c
             WHERE c.oid = t.typrelid AND c.relkind = 'c'))
        AND {NOT_EXTENSION(catalog="'pg_type'", oid="t.oid")}
"""
IN_SCHEMA = f"""
    FROM pg_catalog.{{catalog}} k JOIN pg_catalog.pg_namespace n ON n.oid = k.{{schema}}
    WHERE {content.APPLICATION_SCHEMAS} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
        WHERE e.classid = 'pg_catalog.{{catalog}}'::regclass AND e.objid = k.oid
        AND e.deptype = 'e')
"""
COLLATIONS = IN_SCHEMA.format(catalog="pg_collation", schema="collnamespace")
CONFIGURATIONS = IN_SCHEMA.format(catalog="pg_ts_config", schema="cfgnamespace")
DICTIONARIES = IN_SCHEMA.format(catalog="pg_ts_dict", schema="dictnamespace")
OPERATORS = IN_SCHEMA.format(catalog="pg_operator", schema="oprnamespace")
# Dropping a schema would take the extensions that live in it along.
KEPT_SCHEMAS = f"""
    SELECT n.nspname FROM pg_catalog.pg_namespace n
    WHERE {content.APPLICATION_SCHEMAS} AND (n.nspname = 'public'
        OR NOT {OURS.format(owner="n.nspowner")}
        OR EXISTS (SELECT FROM pg_catalog.pg_extension x WHERE x.extnamespace = n.oid))
    ORDER BY 1
"""
FOREIGN_OBJECTS = f"""
    SELECT c.oid::regclass::text, pg_catalog.pg_get_userbyid(c.relowner)
        {RELATIONS} AND NOT {OURS.format(owner="c.relowner")}
    UNION ALL
    SELECT p.oid::regprocedure::text, pg_catalog.pg_get_userbyid(p.proowner)
        {ROUTINES} AND NOT {OURS.format(owner="p.proowner")}
    UNION ALL
    SELECT t.oid::regtype::text, pg_catalog.pg_get_userbyid(t.typowner)
        {TYPES} AND NOT {OURS.format(owner="t.typowner")}
    ORDER BY 1
"""
# They stay, and lose the tables that are dropped.
FOREIGN_PUBLICATIONS = f"""
    SELECT b.pubname, coalesce((
        SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ')
        FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = b.oid), '')
    FROM pg_catalog.pg_publication b WHERE NOT {OURS.format(owner="b.pubowner")} ORDER BY 1
"""
TABLE_IDS = f"SELECT c.oid::bigint {RELATIONS} AND c.relkind IN ('r', 'p') ORDER BY 1"

# The extension stays, and with it its tables: what the dump holds of them would come on top.
EXTENSION_TABLES = f"""
    SELECT n.nspname AS schema, c.relname AS name, {content.USERS_ROWS} AS condition,
           has_table_privilege(c.oid, 'DELETE') AND has_table_privilege(c.oid, 'SELECT')
           AND has_schema_privilege(n.oid, 'USAGE') AS may_delete,
           has_table_privilege(c.oid, 'INSERT') AND has_schema_privilege(n.oid, 'USAGE')
           AS may_insert,
           (SELECT x.extname FROM pg_catalog.pg_extension x WHERE c.oid = ANY (x.extconfig) LIMIT 1)
           AS extension
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND {content.USERS_ROWS} IS NOT NULL
    ORDER BY 1, 2
"""

# The list is made before anything is dropped: what goes along by CASCADE has no name then.
DROPS = f"""
DO $mipyme_backup$
DECLARE item text;
BEGIN
    FOREACH item IN ARRAY ARRAY(SELECT what FROM (
        SELECT 1, format('PUBLICATION IF EXISTS %I', b.pubname)
            FROM pg_catalog.pg_publication b WHERE {OURS.format(owner="b.pubowner")}
        UNION ALL SELECT 1, format('SERVER IF EXISTS %I', s.srvname)
            FROM pg_catalog.pg_foreign_server s WHERE {OURS.format(owner="s.srvowner")}
        UNION ALL SELECT 2, format('SCHEMA IF EXISTS %I', n.nspname)
            FROM pg_catalog.pg_namespace n
            WHERE {content.APPLICATION_SCHEMAS} AND n.nspname NOT IN ({KEPT_SCHEMAS})
        UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 4 ELSE 3 END,
            format('%s IF EXISTS %I.%I', CASE c.relkind
                WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                n.nspname, c.relname) {RELATIONS}
        UNION ALL SELECT 5, 'ROUTINE IF EXISTS ' || p.oid::regprocedure {ROUTINES}
        UNION ALL SELECT 6, 'OPERATOR IF EXISTS ' || k.oid::regoperator {OPERATORS}
        UNION ALL SELECT 7, 'TYPE IF EXISTS ' || t.oid::regtype {TYPES}
        UNION ALL SELECT 8, 'TEXT SEARCH CONFIGURATION IF EXISTS ' || k.oid::regconfig
            {CONFIGURATIONS}
        UNION ALL SELECT 9, 'TEXT SEARCH DICTIONARY IF EXISTS ' || k.oid::regdictionary
            {DICTIONARIES}
        UNION ALL SELECT 10, format('COLLATION IF EXISTS %I.%I', n.nspname, k.collname)
            {COLLATIONS}
    ) AS everything(step, what) ORDER BY step)
    LOOP
        EXECUTE 'DROP ' || item || ' CASCADE';
    END LOOP;
    PERFORM pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata
        WHERE {OURS.format(owner="lomowner")};
END $mipyme_backup$;
"""
# Rows may refer to rows of another such table: as long as some pass empties one, another follows.
EMPTYINGS = f"""
DO $mipyme_backup$
DECLARE item text; left_over text[]; failed text[];
BEGIN
    left_over := ARRAY(SELECT format('DELETE FROM ONLY %I.%I ', schema, name) || condition
        FROM ({EXTENSION_TABLES}) t WHERE may_delete);
    LOOP
        failed := ARRAY[]::text[];
        FOREACH item IN ARRAY left_over LOOP
            BEGIN
                EXECUTE item;
            EXCEPTION WHEN foreign_key_violation OR restrict_violation THEN
                failed := failed || item;
            END;
        END LOOP;
        EXIT WHEN cardinality(failed) = 0;
        IF cardinality(failed) = cardinality(left_over) THEN
            EXECUTE failed[1];
        END IF;
        left_over := failed;
    END LOOP;
END $mipyme_backup$;
"""
CHECK = f"""
CREATE TEMPORARY TABLE mipyme_backup_expected (label text, expected bigint) ON COMMIT DROP;
CREATE FUNCTION pg_temp.mipyme_backup_check() RETURNS trigger LANGUAGE plpgsql AS $mipyme_backup$
DECLARE item record; found bigint;
BEGIN
    FOR item IN SELECT e.label, e.expected, c.oid, n.nspname, c.relname,
            {content.USERS_ROWS} AS users_rows
        FROM pg_temp.mipyme_backup_expected e
        LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
            ON n.nspname || '.' || c.relname = e.label AND c.relkind = 'r'
        WHERE e.label IS NOT NULL
    LOOP
        found := NULL;
        IF item.oid IS NOT NULL THEN
            EXECUTE format('SELECT count(*) FROM ONLY %I.%I ', item.nspname, item.relname)
                || coalesce(item.users_rows, '') INTO found;
        END IF;
        IF found IS DISTINCT FROM item.expected THEN
            RAISE EXCEPTION '% has % rows, the backup says %',
                item.label, coalesce(found::text, 'no'), item.expected;
        END IF;
    END LOOP;
    RETURN NULL;
END $mipyme_backup$;
CREATE CONSTRAINT TRIGGER mipyme_backup_check AFTER INSERT ON pg_temp.mipyme_backup_expected
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.label IS NULL)
    EXECUTE FUNCTION pg_temp.mipyme_backup_check();
"""


DISARM = """
CREATE FUNCTION pg_temp.mipyme_backup_disarm() RETURNS trigger LANGUAGE plpgsql
    SET search_path = '' AS $mipyme_backup_disarm$
BEGIN
    EXECUTE {statement};
    RETURN NULL;
END $mipyme_backup_disarm$;
CREATE CONSTRAINT TRIGGER mipyme_backup_disarm AFTER INSERT ON pg_temp.mipyme_backup_expected
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.label IS NULL)
    EXECUTE FUNCTION pg_temp.mipyme_backup_disarm();
"""


@dataclass(frozen=True, kw_only=True)
class ExtensionTable:
    """A table of an installed extension, whose rows of `condition` are its users'."""

    schema: str
    name: str
    condition: str
    may_delete: bool
    may_insert: bool
    extension: str

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"


def extension_tables(cursor: Any) -> list[ExtensionTable]:
    """Return the tables whose rows a dump holds, and that stay because they are an extension's."""
    cursor.execute(EXTENSION_TABLES)
    names = ("schema", "name", "condition", "may_delete", "may_insert", "extension")
    return [ExtensionTable(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def foreign_publications(cursor: Any) -> dict[str, str]:
    """Return the publications that belong to others, with the tables that each names, quoted."""
    cursor.execute(FOREIGN_PUBLICATIONS)
    return {str(name): str(tables) for name, tables in cursor.fetchall()}


def opening(*, role: str | None, rows: Mapping[str, int], disarm: str = "") -> str:
    """Return what precedes a dump's script; `rows` are those of the manifest by ``schema.table``.

    `role` is one to assume, None to stay who logged in. `disarm` is SQL that runs before the
    transaction commits.
    """
    statements = [f"SET SESSION ROLE {identifier(role)};"] if role else []
    statements += [
        "SET client_min_messages = warning;",
        "BEGIN;",
        "SET LOCAL statement_timeout = 0;",
        f"SET LOCAL lock_timeout = {LOCK_SECONDS * 1000};",
        "SET LOCAL search_path = '';",
        DROPS,
        EMPTYINGS,
        CHECK,
        *([DISARM.format(statement=literal(disarm))] if disarm else []),
        # Without a label: the row whose trigger checks all the others, in the end.
        *(
            f"INSERT INTO pg_temp.mipyme_backup_expected VALUES ({literal(label)}, {int(count)});"
            for label, count in rows.items()
        ),
        "INSERT INTO pg_temp.mipyme_backup_expected VALUES (NULL, NULL);",
    ]
    return "\n".join(statements) + "\n"


def psql_arguments(program: Any, connection: str) -> list[str]:
    """Return psql's argv: the first error ends it, and with it the transaction."""
    return [
        str(program),
        "--no-psqlrc",
        "--quiet",
        "--no-password",
        "--set=ON_ERROR_STOP=1",
        "--output=/dev/null",
        f"--dbname={connection}",
    ]


def script_arguments(program: Any, *, use_list: Any, flags: list[str]) -> list[str]:
    """Return pg_restore's argv that turns a dump on stdin into a script on stdout."""
    return [
        str(program),
        "--format=custom",
        "--single-transaction",
        "--file=-",
        *flags,
        *([f"--use-list={use_list}"] if use_list else []),
    ]
