"""Keeps what runs with its owner's rights from gaining by a new owner.

A restore without owners gives everything to one role. So a function with SECURITY DEFINER, a view
or a rule of a role that had fewer rights is restored such that it runs with its caller's rights,
or not at all. Tables call functions too, when they are written to: that is in the documentation.
"""

# ruff: noqa: S608 - every name in a query is quoted, or is ours

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.postgresql import content
from mipyme_backup.sources.postgresql.archive import Contents, Entry
from mipyme_backup.sources.postgresql.connection import identifier, literal
from mipyme_backup.sources.postgresql.privileges import SHOWN, some

RELATION = "'relation ' || n.nspname || '.' || c.relname"
INVOKER = """
    coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) o
              WHERE o.option_name = 'security_invoker'), false)
"""
# (kind, key, quoted name, rule, owner). The keys are made of what a table of contents holds.
ARMED = f"""
    SELECT 'routine' AS kind, p.proowner AS owner, '' AS rule,
        'routine ' || n.nspname || '.' || p.proname || '(' || oidvectortypes(p.proargtypes) || ')'
            AS key,
        p.oid::regprocedure::text AS name
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prosecdef AND {content.APPLICATION_SCHEMAS}
        AND {content.NOT_OF_EXTENSION.format(catalog="'pg_proc'", oid="p.oid")}
    UNION ALL
    SELECT 'view', c.relowner, '', {RELATION}, format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'v' AND NOT {INVOKER} AND {content.APPLICATION_SCHEMAS}
        AND {content.NOT_OF_EXTENSION.format(catalog="'pg_class'", oid="c.oid")}
    UNION ALL
    SELECT CASE c.relkind WHEN 'v' THEN 'rule of a view' ELSE 'rule' END, c.relowner, r.rulename,
        {RELATION}, format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE r.ev_type <> '1' AND r.ev_enabled <> 'D' AND {content.APPLICATION_SCHEMAS}
        AND {content.NOT_OF_EXTENSION.format(catalog="'pg_class'", oid="c.oid")}
"""
OF_OTHERS = f"""
    SELECT kind, name, rule, pg_catalog.pg_get_userbyid(owner) FROM ({ARMED}) armed
    WHERE owner <> (SELECT datdba FROM pg_catalog.pg_database WHERE datname = current_database())
    ORDER BY 1, 2, 3
"""
# Of our role alone: what came from template1 stays as it is. A rule of a view cannot be disabled.
DISARM = f"""
DO $mipyme_backup$
DECLARE statement text;
BEGIN
    FOR statement IN SELECT CASE kind
            WHEN 'routine' THEN format('ALTER ROUTINE %s SECURITY INVOKER', name)
            WHEN 'view' THEN format('ALTER VIEW %s SET (security_invoker = true)', name)
            WHEN 'rule' THEN format('ALTER TABLE %s DISABLE RULE %I', name, rule)
            ELSE format('DROP RULE %I ON %s', rule, name) END
        FROM ({ARMED}) armed WHERE pg_catalog.pg_get_userbyid(owner) = current_user
            AND key <> ALL (ARRAY[{{trusted}}]::text[])
    LOOP
        EXECUTE statement;
    END LOOP;
END $mipyme_backup$;
"""
# The head of a view's definition, where its name hides nothing.
INVOKERS = re.compile(
    r"""CREATE VIEW (?:\w+|"[^"]*")\.(?:\w+|"[^"]*") WITH \([^()]*security_invoker='(?:t|y|on|1)""",
    re.IGNORECASE,
)
ROUTINES = {"FUNCTION", "PROCEDURE"}
RELATIONS = {"TABLE", "VIEW"}
REMEDIES = {
    "routine": (
        "ALTER ROUTINE {name} OWNER TO {owner};",
        "ALTER ROUTINE {name} SECURITY DEFINER;",
    ),
    "view": (
        "ALTER VIEW {name} OWNER TO {owner};",
        "ALTER VIEW {name} RESET (security_invoker);",
    ),
    "rule": (
        "ALTER TABLE {name} OWNER TO {owner};",
        "ALTER TABLE {name} ENABLE RULE {rule};",
    ),
}


def trusted_owners(cursor: Any, owner: str, facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the roles whose functions and views gain nothing when they belong to `owner`.

    They have its rights already, or owned the backed-up database on a server with other roles.
    """
    cursor.execute(
        "SELECT rolname, rolname = %s AND rolsuper, pg_has_role(oid, %s, 'USAGE')"
        " FROM pg_catalog.pg_roles",
        [owner, owner],
    )
    rows = cursor.fetchall()
    names = {name for name, _super, has_rights in rows if has_rights}
    former = str(facts.get("owner") or "")
    is_here = any(name == former for name, _super, _has_rights in rows)
    if not is_here and not any(is_super for _name, is_super, _has_rights in rows):
        names.add(former)
    return frozenset(names)


def disarming(
    contents: Contents, trusted: frozenset[str], facts: Mapping[str, Any]
) -> tuple[str, list[Message]]:
    """Return the SQL that takes their owners' rights from what others owned, and what to tell.

    Both are empty where nothing gains. What the table of contents does not list as owned by a
    trusted role loses its rights: two names may look the same there.
    """
    if not contents.known:
        others = {*(facts.get("owners") or ())} - trusted
        return (DISARM.format(trusted="") if others else ""), _warning(sorted(others))
    found = [e for e in contents.entries if _may_run_as_owner(e) and e.owner not in trusted]
    if not found:
        return "", []
    keys: dict[bool, set[str]] = {True: set(), False: set()}
    for entry in contents.entries:
        keys[entry.owner in trusted].add(_key(entry))
    safe = sorted(key for key in keys[True] - keys[False] if key and _can_be_sent(key))
    names = [f"{e.schema}.{e.tag} ({e.owner})" for e in found if not INVOKERS.match(e.definition)]
    return DISARM.format(trusted=", ".join(map(literal, safe))), _warning(names)


def planned(facts: Mapping[str, Any], trusted: frozenset[str]) -> Iterator[Message]:
    """Yield what the plan tells of `owner_rights`, a fact that older backups do not have."""
    found = [row for row in facts.get("owner_rights") or () if row[3] not in trusted]
    if not found:
        return
    remedies = [
        " ".join(REMEDIES[kind]).format(name=name, rule=identifier(rule), owner=identifier(owner))
        for kind, name, rule, owner in found
        if kind in REMEDIES
    ]
    names = [f"{name}{f' {rule}' if rule else ''} ({owner})" for _k, name, rule, owner in found]
    yield Message(
        _(
            "These run with the rights of another owner in the backup, and will run with their"
            " caller's: %(names)s. Rules are disabled, those of views dropped."
        ),
        {"names": some(names, ", ")},
    )
    for remedy in remedies[:SHOWN]:
        yield Message(_("Only an administrator can do this, afterwards: %(sql)s"), {"sql": remedy})


def _warning(names: list[str]) -> list[Message]:
    text = _(
        "These ran with the rights of another owner in the backup, and now run with their caller's:"
        " %(names)s. Rules are disabled, those of views dropped. Check them; the documentation's"
        " page on PostgreSQL has the statements that give their owners and rights back."
    )
    return [Message(text, {"names": some(names, ", ")})] if names else []


def _may_run_as_owner(entry: Entry) -> bool:
    match entry.kind:
        case "FUNCTION" | "PROCEDURE":
            return "SECURITY DEFINER" in entry.definition
        case "VIEW":
            return True  # what its definition says may be a name in it
        case "RULE":  # a view in a circle of dependencies is written as one, too
            return not entry.definition.startswith("CREATE OR REPLACE VIEW")
    return False


def _key(entry: Entry) -> str:
    if entry.kind in ROUTINES:
        return f"routine {entry.schema}.{entry.tag}"
    return f"relation {entry.schema}.{entry.tag}" if entry.kind in RELATIONS else ""


def _can_be_sent(key: str) -> bool:
    """Tell whether `key` is text (its database may have another encoding) and ends no quotes."""
    is_text = not any("\ud800" <= character <= "\udfff" for character in key)
    return is_text and "$mipyme_backup" not in key
