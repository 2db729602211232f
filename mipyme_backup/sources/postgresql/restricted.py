"""What of a dump not every role can restore, as the SQL that an administrator then runs.

The plan of a restore is made before the dump is fetched, so a backup notes it in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.postgresql.archive import Entry
from mipyme_backup.sources.postgresql.connection import identifier
from mipyme_backup.sources.postgresql.selection import SUPERUSER_KINDS, may_restore
from mipyme_backup.sources.postgresql.server import Rights
from mipyme_backup.sources.postgresql.situation import Situation

KINDS = SUPERUSER_KINDS | {"PUBLICATION", "PUBLICATION TABLES IN SCHEMA", "DEFAULT ACL", "ACL"}
AFTERWARDS = _("Only an administrator can do this, in %(name)s, afterwards: %(sql)s")
KEYS = ("kind", "schema", "tag", "owner", "sql")
NOBODY = Rights(
    login="",
    role="",
    superuser=False,
    createdb=False,
    roles=frozenset(),
    assumable=frozenset(),
    settable=frozenset(),
    available=frozenset(),
    trusted=frozenset(),
    tablespaces=frozenset(),
)


def recorded(entries: Iterable[Entry]) -> list[dict[str, str]]:
    """Return the entries of a dump that some role cannot restore, as plain JSON values.

    How a subscription connects stays out: that may hold a password, and a manifest is not
    encrypted.
    """
    return [
        {
            "kind": entry.kind,
            "schema": entry.schema,
            "tag": entry.tag,
            "owner": entry.owner,
            "sql": "" if entry.kind == "SUBSCRIPTION" else " ".join(entry.definition.split()),
        }
        for entry in entries
        if entry.kind in KINDS and not may_restore(entry, NOBODY, frozenset())
    ]


def left_out(situation: Situation, cursor: Any) -> Iterator[Message]:
    """Yield what the role of a restore leaves out of the dump, for an administrator to run."""
    for record in situation.facts.get("restricted") or ():
        entry = _entry(record)
        if may_restore(entry, situation.rights, frozenset()):
            continue
        if entry.kind == "SUBSCRIPTION":
            yield Message(
                _(
                    "The subscription %(subscription)s is left out: only a superuser can restore"
                    " it. An administrator can create it in %(name)s, with connect = false."
                ),
                {"subscription": identifier(entry.tag), "name": situation.name},
            )
        else:
            yield Message(
                AFTERWARDS,
                {"name": situation.name, "sql": entry.definition},
            )


def _entry(record: Any) -> Entry:
    kind, schema, tag, owner, sql = (str(record.get(key, "")) for key in KEYS)
    return Entry(
        id=0,
        kind=kind,
        schema=schema,
        tag=tag,
        owner=owner,
        definition=sql,
        tablespace="",
        has_data=False,
    )
