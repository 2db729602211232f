"""What a database or a media folder holds, in a form in which two of them can be compared.

Every thing has an entry of its own, so that a difference has a name. Nothing here shares code
with the package: it is the judge of it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

CATALOG = "mipyme_backup_"
CHUNK = 1024 * 1024

# What a session must say so that values are printed whole, and names with their schema.
SESSION = {
    "search_path": "''",
    "row_security": "off",
    "timezone": "'UTC'",
    "datestyle": "'ISO, YMD'",
    "intervalstyle": "'postgres'",
    "bytea_output": "'hex'",
    "extra_float_digits": "3",
}


class Connection(Protocol):
    """The part of a Django connection that is used."""

    vendor: str

    def cursor(self) -> Any: ...


MediaEntry = tuple[str, int, str, int]


def fingerprint(connection: Connection) -> dict[str, str]:
    """Return what the database holds: the name of each thing and its content or definition.

    Rows are given as their count and a hash that does not depend on their order. The tables of
    the product's own catalog are left out.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            return dict(_sqlite(cursor))
        for name, value in SESSION.items():
            cursor.execute(f"SET {name} = {value}")
        try:
            return dict(_postgresql(cursor))
        finally:
            for name in SESSION:
                cursor.execute(f"RESET {name}")


def media_fingerprint(path: Path | str) -> dict[bytes, MediaEntry]:
    """Return (type, size in bytes, SHA-256, mtime in ns) by the relative name of each entry.

    A folder counts as there or not there: its time changes with whatever happens in it.
    """
    root = os.fsencode(path)
    return dict(_media(root, b""))


def difference(a: dict[Any, Any], b: dict[Any, Any]) -> list[str]:
    """Return a line for each thing in which the fingerprints `a` (expected) and `b` differ."""
    lines = [f"missing: {_readable(key)}" for key in a.keys() - b.keys()]
    lines += [f"added: {_readable(key)}" for key in b.keys() - a.keys()]
    lines += [
        f"changed: {_readable(key)}: {a[key]!r} became {b[key]!r}"
        for key in a.keys() & b.keys()
        if a[key] != b[key]
    ]
    return sorted(lines)


def _readable(key: Any) -> str:
    return repr(key) if isinstance(key, bytes) else str(key)


def _hash_rows(rows: Iterable[bytes]) -> str:
    digests = sorted(hashlib.sha256(row).digest() for row in rows)
    return f"{len(digests)} rows {hashlib.sha256(b''.join(digests)).hexdigest()[:16]}"


def _fetch(cursor: Any) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(1000):
        yield from rows


# --- SQLite ---------------------------------------------------------------------------------


def _sqlite(cursor: Any) -> Iterator[tuple[str, str]]:
    for pragma in ("user_version", "application_id", "encoding", "auto_vacuum"):
        cursor.execute(f"PRAGMA {pragma}")
        yield f"pragma {pragma}", str(cursor.fetchone()[0])
    cursor.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2")
    objects = [row for row in cursor.fetchall() if not row[2].startswith(CATALOG)]
    for kind, name, table, sql in objects:
        yield f"{kind} {name}", f"on {table}: {sql}"
    for kind, name, _table, sql in objects:
        if kind == "table" and name != "sqlite_sequence" and not _is_virtual(sql):
            yield f"rows {name}", _hash_rows(_sqlite_rows(cursor, name))
    if any(name == "sqlite_sequence" for _kind, name, _table, _sql in objects):
        cursor.execute("SELECT name, seq FROM sqlite_sequence")
        for name, value in cursor.fetchall():
            if not name.startswith(CATALOG):
                yield f"sequence {name}", str(value)


def _is_virtual(sql: str) -> bool:
    return sql.upper().startswith("CREATE VIRTUAL")


def _sqlite_rows(cursor: Any, table: str) -> Iterator[bytes]:
    """Yield each row with the storage class of each value; text as its bytes, valid or not."""
    quoted = _quote(table).replace("%", "%%")
    cursor.execute("SELECT name FROM pragma_table_xinfo(%s)", [table])
    columns = [_quote(name).replace("%", "%%") for (name,) in cursor.fetchall()]
    values = [
        f"typeof({c}), CASE WHEN typeof({c}) IN ('text', 'blob') THEN CAST({c} AS BLOB)"
        f" ELSE +{c} END"
        for c in columns
    ]
    cursor.execute(f"SELECT {', '.join(values)} FROM {quoted}", [])
    for row in _fetch(cursor):
        yield repr(row).encode()


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- PostgreSQL -----------------------------------------------------------------------------

_USER_SCHEMA = r"n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_OURS = r"{relation}.relname LIKE 'mipyme\_backup\_%'"
_OF_EXTENSION = (
    "EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalog}'::regclass"
    " AND e.objid = {oid} AND e.deptype = 'e')"
)


def _acl(column: str, kind: str, owner: str) -> str:
    """Return SQL for rights in a stable order, the built-in ones spelt out."""
    return (
        f"(SELECT coalesce(string_agg(a::text, ' ' ORDER BY a::text COLLATE \"C\"), '')"
        f" FROM unnest(coalesce({column}, acldefault({kind}, {owner}))) AS a)"
    )


def _filter(catalog: str, oid: str, relation: str | None = None) -> str:
    conditions = [_USER_SCHEMA, "NOT " + _OF_EXTENSION.format(catalog=catalog, oid=oid)]
    if relation:
        conditions.append("NOT " + _OURS.format(relation=relation))
    return " AND ".join(conditions)


_RELATION = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
_NAME = "format('%I.%I', n.nspname, c.relname)"
_ACL_KIND = """(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char" """
_KIND_OF_RELATION = (
    "CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'"
    " WHEN 'm' THEN 'materialised view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table'"
    " WHEN 'c' THEN 'row type' ELSE c.relkind::text END"
)

# Kind of thing -> SQL that gives its name and what it is.
_DEFINITIONS = {
    "database": f"""
        SELECT 'settings', concat_ws(' ', 'owner', pg_get_userbyid(datdba),
            pg_encoding_to_char(encoding), datcollate, datctype, 'limit', datconnlimit,
            'acl', {_acl("datacl", "'d'", "datdba")},
            (SELECT string_agg(pg_get_userbyid(setrole) || array_to_string(setconfig, ','), ';'
                ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid))
        FROM pg_database d WHERE datname = current_database()""",
    "schema": f"""
        SELECT quote_ident(nspname), pg_get_userbyid(nspowner) || ' '
            || {_acl("nspacl", "'n'", "nspowner")}
        FROM pg_namespace n WHERE {_filter("pg_namespace", "n.oid")}""",
    "extension": """
        SELECT extname, extversion || ' in ' || extnamespace::regnamespace FROM pg_extension""",
    "relation": f"""
        SELECT {_NAME}, concat_ws(' ', {_KIND_OF_RELATION}, 'owner', pg_get_userbyid(relowner),
            'persistence', relpersistence, 'row security', relrowsecurity, relforcerowsecurity,
            'replica identity', relreplident, 'options', reloptions::text,
            'partition', pg_get_expr(relpartbound, c.oid),
            'by', pg_get_partkeydef(c.oid),
            'parents', (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno)
                FROM pg_inherits WHERE inhrelid = c.oid),
            'acl', {_acl("relacl", _ACL_KIND, "relowner")})
        {_RELATION} WHERE relkind NOT IN ('i', 'I', 't') AND {_filter("pg_class", "c.oid", "c")}""",
    "column": f"""
        SELECT {_NAME} || '.' || quote_ident(attname), concat_ws(' ',
            row_number() OVER (PARTITION BY c.oid ORDER BY attnum),
            format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'not null' END,
            'collate', nullif(attcollation, 0)::regcollation,
            'identity', nullif(attidentity, ''), 'generated', nullif(attgenerated, ''),
            'default', pg_get_expr(adbin, adrelid), 'storage', attstorage,
            'statistics', nullif(attstattarget, -1), 'acl', attacl::text)
        {_RELATION} JOIN pg_attribute a ON a.attrelid = c.oid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND attnum > 0 AND NOT attisdropped
            AND {_filter("pg_class", "c.oid", "c")}""",
    "view": f"""
        SELECT {_NAME}, pg_get_viewdef(c.oid) {_RELATION}
        WHERE relkind IN ('v', 'm') AND {_filter("pg_class", "c.oid", "c")}""",
    "index": f"""
        SELECT format('%I.%I', n.nspname, i.relname), concat_ws(' ',
            pg_get_indexdef(i.oid), 'valid', indisvalid, 'clustered', indisclustered,
            'replica identity', indisreplident)
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_filter("pg_class", "c.oid", "c")}""",
    "constraint": f"""
        SELECT {_NAME} || ' ' || quote_ident(conname), concat_ws(' ',
            pg_get_constraintdef(k.oid), 'validated', convalidated, 'inherited', coninhcount)
        FROM pg_constraint k JOIN pg_class c ON c.oid = conrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_filter("pg_class", "c.oid", "c")}""",
    "trigger": f"""
        SELECT {_NAME} || ' ' || quote_ident(tgname), concat_ws(' ',
            concat_ws(' ',
            pg_get_triggerdef(t.oid), 'enabled', tgenabled))
        FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT tgisinternal AND {_filter("pg_class", "c.oid", "c")}""",
    "rule": f"""
        SELECT {_NAME} || ' ' || quote_ident(rulename), pg_get_ruledef(r.oid)
        FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE rulename <> '_RETURN' AND {_filter("pg_class", "c.oid", "c")}""",
    "policy": f"""
        SELECT {_NAME} || ' ' || quote_ident(polname), concat_ws(' ', polcmd, polpermissive,
            (SELECT string_agg(r::regrole::text, ',') FROM unnest(polroles) AS r),
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
        FROM pg_policy p JOIN pg_class c ON c.oid = polrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_filter("pg_class", "c.oid", "c")}""",
    "function": f"""
        SELECT f.oid::regprocedure::text, concat_ws(' ', pg_get_userbyid(proowner),
            {_acl("proacl", "'f'", "proowner")}, CASE prokind WHEN 'a' THEN
            (SELECT concat_ws(' ', aggtransfn, aggtranstype::regtype, agginitval)
                FROM pg_aggregate WHERE aggfnoid = f.oid) ELSE pg_get_functiondef(f.oid) END)
        FROM pg_proc f JOIN pg_namespace n ON n.oid = pronamespace
        WHERE {_filter("pg_proc", "f.oid")}
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                AND d.objid = f.oid AND d.deptype = 'i')""",
    "type": f"""
        SELECT t.oid::regtype::text, concat_ws(' ', typtype, pg_get_userbyid(typowner),
            {_acl("typacl", "'T'", "typowner")},
            (SELECT string_agg(quote_literal(enumlabel), ',' ORDER BY enumsortorder)
                FROM pg_enum WHERE enumtypid = t.oid),
            format_type(nullif(typbasetype, 0), typtypmod), typdefault,
            CASE WHEN typnotnull THEN 'not null' END,
            (SELECT string_agg(pg_get_constraintdef(oid), ' ' ORDER BY conname)
                FROM pg_constraint WHERE contypid = t.oid),
            (SELECT rngsubtype::regtype::text FROM pg_range WHERE rngtypid = t.oid))
        FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
        WHERE typtype IN ('d', 'e', 'r') AND {_filter("pg_type", "t.oid")}""",
    "statistics": f"""
        SELECT format('%I.%I', n.nspname, stxname), pg_get_statisticsobjdef(s.oid)
        FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = stxnamespace
        WHERE {_filter("pg_statistic_ext", "s.oid")}""",
    "default rights": """
        SELECT concat_ws(' ', pg_get_userbyid(defaclrole), nullif(defaclnamespace, 0)::regnamespace,
            defaclobjtype), defaclacl::text FROM pg_default_acl""",
    "publication": """
        SELECT pubname, concat_ws(' ', p.puballtables, pubinsert, pubupdate, pubdelete,
            (SELECT string_agg(prrelid::regclass::text, ',' ORDER BY prrelid::regclass::text)
                FROM pg_publication_rel WHERE prpubid = p.oid)) FROM pg_publication p""",
    "event trigger": "SELECT evtname, evtevent || ' ' || evtfoid::regproc FROM pg_event_trigger",
    "comment": f"""
        SELECT o.type || ' ' || o.identity, description
        FROM pg_description d, pg_identify_object(classoid, objoid, objsubid) AS o
        WHERE objoid >= 16384 AND o.identity NOT LIKE '%{CATALOG}%'
            AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classoid
                AND e.objid = d.objoid AND e.deptype = 'e')""",
    "large object": f"""
        SELECT oid::text, concat_ws(' ', pg_get_userbyid(lomowner),
            {_acl("lomacl", "'L'", "lomowner")}, length(lo_get(oid)),
            encode(sha256(lo_get(oid)), 'hex'))
        FROM pg_largeobject_metadata""",
    "sequence": f"""
        SELECT {_NAME}, concat_ws(' ', seqtypid::regtype, 'start', seqstart, 'by', seqincrement,
            'from', seqmin, 'to', seqmax, 'cache', seqcache, 'cycle', seqcycle, 'owned by',
            (SELECT refobjid::regclass || '.' || refobjsubid FROM pg_depend
                WHERE classid = 'pg_class'::regclass AND objid = c.oid AND refobjsubid > 0
                AND deptype IN ('a', 'i')))
        {_RELATION} JOIN pg_sequence s ON s.seqrelid = c.oid
        WHERE {_filter("pg_class", "c.oid", "c")}""",
}


def _postgresql(cursor: Any) -> Iterator[tuple[str, str]]:
    for kind, query in _DEFINITIONS.items():
        cursor.execute(query)
        for name, value in cursor.fetchall():
            yield f"{kind} {name}", value
    cursor.execute(
        f"SELECT {_NAME}, c.oid, relkind, relispopulated {_RELATION}"
        f" WHERE relkind IN ('r', 'm', 'S') AND {_filter('pg_class', 'c.oid', 'c')}"
    )
    for name, oid, kind, populated in cursor.fetchall():
        if kind == "S":
            cursor.execute(f"SELECT last_value, is_called FROM {_escaped(name)}", [])
            yield f"value {name}", "last_value={} is_called={}".format(*cursor.fetchone())
        elif populated:
            yield f"rows {name}", _hash_rows(_postgresql_rows(cursor, name, oid))
        else:
            yield f"rows {name}", "not populated"


def _postgresql_rows(cursor: Any, name: str, oid: int) -> Iterator[bytes]:
    """Yield each row of the table itself, not of its children, as the server prints it."""
    cursor.execute(
        "SELECT quote_ident(attname) FROM pg_attribute"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [oid],
    )
    columns = ", ".join(_escaped(column) for (column,) in cursor.fetchall())
    cursor.execute(f"SELECT ROW({columns})::text FROM ONLY {_escaped(name)}", [])
    for (row,) in _fetch(cursor):
        yield row.encode()


def _escaped(name: str) -> str:
    return name.replace("%", "%%")


# --- Media ----------------------------------------------------------------------------------


def _media(root: bytes, folder: bytes) -> Iterator[tuple[bytes, MediaEntry]]:
    for entry in os.scandir(os.path.join(root, folder)):
        name = os.path.join(folder, entry.name)
        status = entry.stat(follow_symlinks=False)
        if entry.is_symlink():
            target = hashlib.sha256(os.readlink(entry.path)).hexdigest()
            yield name, ("link", status.st_size, target, status.st_mtime_ns)
        elif entry.is_dir():
            yield name, ("folder", 0, "", 0)
            yield from _media(root, name)
        elif entry.is_file():
            yield name, ("file", status.st_size, _hash_file(entry.path), status.st_mtime_ns)
        else:
            yield name, (f"special {stat.S_IFMT(status.st_mode):o}", 0, "", status.st_mtime_ns)


def _hash_file(path: bytes) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()
