"""What a dump does not carry of a database, and what it holds, for the manifest."""

# ruff: noqa: S608 - every name in a query is quoted, or is ours

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mipyme_backup.sources.postgresql import content, counting, owner_rights

# Roles that own something here or are granted something; pinned ones (the bootstrap superuser)
# have no row in pg_shdepend, so owners are asked for as well.
OWNERS = f"""
    SELECT DISTINCT pg_catalog.pg_get_userbyid(owner) FROM (
        SELECT c.relowner FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relpersistence <> 't' AND {content.APPLICATION_SCHEMAS}
        UNION SELECT p.proowner FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n
            ON n.oid = p.pronamespace WHERE {content.APPLICATION_SCHEMAS}
            AND {content.NOT_OF_EXTENSION.format(catalog="'pg_proc'", oid="p.oid")}
        UNION SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE {content.APPLICATION_SCHEMAS}
        UNION SELECT lomowner FROM pg_catalog.pg_largeobject_metadata
    ) owners(owner) ORDER BY 1
"""
ROLES = """
    SELECT DISTINCT r.rolname FROM pg_catalog.pg_shdepend s
    JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid
    WHERE s.refclassid = 'pg_authid'::regclass AND s.dbid =
        (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""
# Extensions that something outside of them is built on: a column's type, an index's operators.
EXTENSIONS_USED = """
    WITH member AS (
        SELECT d.classid, d.objid, d.refobjid AS extension FROM pg_catalog.pg_depend d
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        UNION ALL
        SELECT 'pg_type'::regclass, t.typarray, d.refobjid FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_type t ON t.oid = d.objid AND d.classid = 'pg_type'::regclass
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND t.typarray <> 0
    )
    SELECT DISTINCT x.extname FROM member m
    JOIN pg_catalog.pg_extension x ON x.oid = m.extension
    JOIN pg_catalog.pg_depend u ON u.refclassid = m.classid AND u.refobjid = m.objid
    WHERE u.deptype IN ('n', 'a') AND x.extname <> 'plpgsql'
        AND NOT EXISTS (SELECT FROM member o WHERE o.classid = u.classid AND o.objid = u.objid)
        AND u.classid <> 'pg_extension'::regclass AND u.classid <> 'pg_init_privs'::regclass
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend i JOIN member o
                ON o.classid = i.refclassid AND o.objid = i.refobjid
            WHERE i.classid = u.classid AND i.objid = u.objid AND i.deptype IN ('i', 'a'))
    ORDER BY 1
"""
WRAPPERS_USED = f"""
    SELECT w.fdwname FROM pg_catalog.pg_foreign_data_wrapper w
    WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_server s WHERE s.srvfdw = w.oid)
          AND {content.NOT_OF_EXTENSION.format(catalog="'pg_foreign_data_wrapper'", oid="w.oid")}
    ORDER BY 1
"""
DATABASE = """
    SELECT oid, pg_catalog.pg_get_userbyid(datdba), pg_catalog.pg_encoding_to_char(encoding),
           datcollate, datctype, datlocprovider::text, datconnlimit,
           (SELECT spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = dattablespace),
           pg_catalog.shobj_description(oid, 'pg_database')
    FROM pg_catalog.pg_database WHERE datname = %s
"""
ACL = """
    SELECT CASE WHEN a.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
           a.privilege_type, a.is_grantable
    FROM pg_catalog.pg_database d, LATERAL pg_catalog.aclexplode(d.datacl) a
    WHERE d.datname = %s ORDER BY 1, 2, 3
"""
SETTINGS = """
    SELECT CASE WHEN setrole = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(setrole) END,
           unnest(setconfig)
    FROM pg_catalog.pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = %s)
    ORDER BY 1, 2
"""
PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin", "d": "libc"}


def database_properties(cursor: Any, name: str, major: int) -> dict[str, Any] | None:
    """Return what ``CREATE DATABASE`` and its relatives set of database `name`.

    From any database of the same server; None where there is no such database. `acl` is None
    where nobody ever granted or revoked, else rows of (role or "", privilege, grantable).
    """
    cursor.execute(DATABASE, [name])
    row = cursor.fetchone()
    if row is None:
        return None
    _oid, owner, encoding, collate, ctype, provider, limit, tablespace, comment = row
    locale = "datlocale" if major >= 17 else "daticulocale"
    rules = "daticurules" if major >= 16 else "NULL"
    cursor.execute(
        f"SELECT {locale}, {rules}, datacl IS NULL FROM pg_catalog.pg_database WHERE datname = %s",
        [name],
    )
    locale_name, icu_rules, default_acl = cursor.fetchone()
    cursor.execute(ACL, [name])
    acl = None if default_acl else [list(grant) for grant in cursor.fetchall()]
    cursor.execute(SETTINGS, [name])
    settings = [list(setting) for setting in cursor.fetchall()]
    return {
        "owner": owner,
        "encoding": encoding,
        "collate": collate,
        "ctype": ctype,
        "locale_provider": PROVIDERS.get(provider, provider),
        "icu_locale": locale_name if provider == "i" else None,
        "icu_rules": icu_rules if provider == "i" else None,
        "builtin_locale": locale_name if provider == "b" else None,
        "connection_limit": limit,
        "tablespace": tablespace,
        "comment": comment,
        "acl": acl,
        "settings": settings,
    }


def split_settings(settings: Iterable[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return (the settings, [role, name] of those withheld from the manifest).

    Parameters of the application's own (``app.jwt_secret``) are a usual place for secrets, and a
    manifest is not encrypted: only their names go into it.
    """
    told, withheld = [], []
    for role, setting in settings:
        name = setting.partition("=")[0]
        if "." in name:
            withheld.append([role, name])
        else:
            told.append([role, setting])
    return told, withheld


def gather(
    cursor: Any, *, name: str, major: int, counted: Iterable[content.Table]
) -> dict[str, Any]:
    """Return the facts of database `name`, to which `cursor` is connected.

    `counted` are the tables whose rows the dump carries.
    """
    properties = database_properties(cursor, name, major) or {}
    settings, withheld = split_settings(properties.get("settings", []))
    owners = content.names(cursor, OWNERS)
    roles = {*owners, *content.names(cursor, ROLES), properties.get("owner", "")}
    roles |= {grantee for grantee, _privilege, _grantable in properties.get("acl") or []}
    roles |= {role for role, _setting in properties.get("settings", [])}
    return {
        "engine": "postgresql",
        "version": content.single(cursor, "SHOW server_version"),
        "major": major,
        "database": name,
        **properties,
        "settings": settings,
        "settings_withheld": withheld,
        "extensions": content.extensions(cursor),
        "extensions_used": content.names(cursor, EXTENSIONS_USED),
        "foreign_data_wrappers_used": content.names(cursor, WRAPPERS_USED),
        "event_triggers": content.names(cursor, "SELECT evtname FROM pg_event_trigger ORDER BY 1"),
        "publications": content.names(cursor, "SELECT pubname FROM pg_publication ORDER BY 1"),
        "row_security_forced": content.names(cursor, content.FORCED_ROW_SECURITY),
        "owners": owners,
        "owner_rights": _rows(cursor, owner_rights.OF_OTHERS),
        "roles": sorted(roles - {""}),
        "schemas": content.names(cursor, content.SCHEMAS),
        "tables": counting.row_counts(cursor, counted),
        "sequences": content.single(cursor, content.SEQUENCES),
        "sequences_behind": counting.sequences_behind(cursor),
        "not_valid": content.names(cursor, content.UNVALIDATED),
        "large_objects": content.single(cursor, content.LARGE_OBJECTS),
        "size": content.single(cursor, "SELECT pg_database_size(current_database())"),
    }


def _rows(cursor: Any, query: str) -> list[list[Any]]:
    cursor.execute(query)
    return [list(row) for row in cursor.fetchall()]
