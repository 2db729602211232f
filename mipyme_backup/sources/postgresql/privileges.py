"""The rights that a backup needs in a database: what is missing, and what grants it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import Error

from mipyme_backup.errors import PoolerError, PreflightError, SourceError
from mipyme_backup.messages import _
from mipyme_backup.sources.postgresql import content
from mipyme_backup.sources.postgresql.connection import connected, identifier

SHOWN = 5
SECONDS = 5
"""So long a server that refused us is given to say why."""
OTHERS = ("postgres", "template1")


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that our role may not read, and the rights that it lacks, as GRANT names them."""

    name: str
    rights: tuple[str, ...]


def require_reading(cursor: Any, alias: str) -> None:
    """Raise SourceError for what pg_dump would fail at, naming what grants the rights to it."""
    missing = unreadable(content.tables(cursor))
    cursor.execute(content.UNREADABLE_SEQUENCES)
    missing += [
        _relation("SEQUENCE", schema, name, usable=usable, selectable=selectable)
        for schema, name, usable, selectable in cursor.fetchall()
    ]
    missing += [
        Missing(name=f"LARGE OBJECT {number}", rights=(f"SELECT ON LARGE OBJECT {number}",))
        for number in content.names(cursor, content.UNREADABLE_LARGE_OBJECTS)
    ]
    refuse(missing, cursor, alias)
    if hidden := content.names(cursor, content.BEHIND_ROW_SECURITY):
        raise SourceError(
            _("Row security may hide rows of %(tables)s from the role of %(alias)s"),
            hint=_("As administrator: ALTER ROLE %(role)s BYPASSRLS;"),
            alias=alias,
            tables=", ".join(hidden),
            role=_role(cursor),
        )


def unreadable(tables: Iterable[content.Table]) -> list[Missing]:
    """Return which `tables` a dump would fail at.

    LOCK TABLE in ACCESS SHARE mode asks for no right but SELECT. What an extension keeps to itself
    is not dumped.
    """
    return [
        _relation(
            "TABLE", table.schema, table.name, usable=table.usable, selectable=table.selectable
        )
        for table in tables
        if not table.readable and not table.of_extension
    ]


def refuse(missing: Sequence[Missing], cursor: Any, alias: str) -> None:
    """Raise SourceError for what is `missing`, unless nothing is; some of it stands for all."""
    if not missing:
        return
    role = _role(cursor)
    rights = list(dict.fromkeys(right for item in missing for right in item.rights))
    raise SourceError(
        _("The role of %(alias)s may not read %(tables)s"),
        hint=_(
            "As administrator, in that database: %(grants)s Or, for all its tables and sequences:"
            " GRANT pg_read_all_data TO %(role)s;"
        ),
        alias=alias,
        tables=some([item.name for item in missing], ", "),
        grants=some([f"GRANT {right} TO {role};" for right in rights], " "),
        role=role,
    )


def may_not_connect(
    alias: str, settings_dict: Mapping[str, Any], name: str
) -> PreflightError | None:
    """Return why the server, if it answers, lets our role not into the database `name`.

    The reason in the refusal itself is in the server's language. Raises PoolerError.
    """
    own = str(settings_dict.get("NAME") or "")
    options = {**(settings_dict.get("OPTIONS") or {}), "connect_timeout": SECONDS}
    for other in (own, *OTHERS):
        if other in {"", name}:
            continue
        with (
            _reachable(),
            connected(
                alias,
                {**settings_dict, "OPTIONS": options},
                name=other,
                assume_role=False,
                read_only=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "SELECT current_user, has_database_privilege(oid, 'CONNECT')"
                " FROM pg_catalog.pg_database WHERE datname = %s",
                [name],
            )
            row = cursor.fetchone()
            if row is None or row[1]:
                return None
            return PreflightError(
                _("The role %(role)s may not connect to the database %(name)s"),
                hint=_("As administrator: GRANT CONNECT ON DATABASE %(quoted)s TO %(role)s;"),
                role=identifier(row[0]),
                name=name,
                quoted=identifier(name),
            )
    return None


@contextlib.contextmanager
def _reachable() -> Iterator[None]:
    """Go on after the block where a database cannot be reached or read."""
    try:
        yield
    except PoolerError:
        raise
    except (PreflightError, Error):
        pass


def _relation(kind: str, schema: str, name: str, *, usable: bool, selectable: bool) -> Missing:
    rights = [] if usable else [f"USAGE ON SCHEMA {identifier(schema)}"]
    if not selectable:
        rights.append(f"SELECT ON {kind} {identifier(schema)}.{identifier(name)}")
    return Missing(name=f"{schema}.{name}", rights=tuple(rights))


def _role(cursor: Any) -> str:
    return identifier(str(content.single(cursor, "SELECT current_user")))


def some(words: Sequence[str], between: str) -> str:
    """Return the first few of `words`, and how many more there are."""
    more = len(words) - SHOWN
    return between.join(words[:SHOWN]) + (f" … (+{more})" if more > 0 else "")
