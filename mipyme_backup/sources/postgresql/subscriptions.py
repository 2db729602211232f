"""Subscriptions of logical replication: they tie a database to a slot of another server.

A database that has one cannot be dropped, and goes on receiving under whatever name. The slot
belongs to the publisher: it is never dropped here, because what was restored may use it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import Error

from mipyme_backup.errors import BackupError
from mipyme_backup.messages import Message, _
from mipyme_backup.sources.postgresql.connection import connected, identifier, reason
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")

SUBSCRIPTIONS = """
    SELECT s.subname, s.subenabled, s.subslotname IS NOT NULL,
           (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
           OR pg_has_role(s.subowner, 'USAGE')
    FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
    WHERE d.datname = %s ORDER BY 1
"""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A subscription of a database; `ours` says whether our role may change it."""

    name: str
    enabled: bool
    has_slot: bool
    ours: bool

    @property
    def detaching(self) -> list[str]:
        """The SQL that removes it and leaves its slot to the publisher."""
        quoted = f"SUBSCRIPTION {identifier(self.name)}"
        disable = [f"ALTER {quoted} DISABLE"] if self.enabled else []
        detach = [f"ALTER {quoted} SET (slot_name = NONE)"] if self.has_slot else []
        return [*disable, *detach, f"DROP {quoted}"]


def of_database(cursor: Any, name: str) -> list[Subscription]:
    """Return the subscriptions of the database `name`, asked from any database of the server."""
    cursor.execute(SUBSCRIPTIONS, [name])
    return [
        Subscription(name=found, enabled=enabled, has_slot=has_slot, ours=ours)
        for found, enabled, has_slot, ours in cursor.fetchall()
    ]


def not_dumped(cursor: Any, alias: str) -> list[Message]:
    """Say which subscriptions of the database that `cursor` is in no dump of our role has."""
    cursor.execute("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")
    if cursor.fetchone()[0]:
        return []
    cursor.execute("SELECT current_database()")
    names = [one.name for one in of_database(cursor, cursor.fetchone()[0])]
    text = _("The subscriptions of %(alias)s are not saved, only a superuser may: %(names)s")
    return [Message(text, {"alias": alias, "names": ", ".join(names)})] if names else []


def detach(
    alias: str, settings_dict: Mapping[str, Any], name: str, found: Iterable[Subscription]
) -> None:
    """Remove the subscriptions that were `found` in the database `name`, which is to be dropped.

    One that is not ours stays, and the server will say that it is in the way.
    """
    _execute(alias, settings_dict, name, [s for one in found if one.ours for s in one.detaching])


def switch(
    alias: str, settings_dict: Mapping[str, Any], name: str, names: Iterable[str], *, on: bool
) -> None:
    """Enable or disable the subscriptions `names` of the database `name`; warn of a failure."""
    verb = "ENABLE" if on else "DISABLE"
    for one in names:
        statement = f"ALTER SUBSCRIPTION {identifier(one)} {verb}"
        try:
            _execute(alias, settings_dict, name, [statement])
        except (Error, BackupError) as error:
            warn(
                logger,
                _("In %(name)s, %(sql)s failed: %(reason)s"),
                name=name,
                sql=statement,
                reason=reason(error),
            )


def _execute(
    alias: str, settings_dict: Mapping[str, Any], name: str, statements: list[str]
) -> None:
    if not statements:
        return
    with (
        connected(alias, settings_dict, name=name) as connection,
        connection.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)
