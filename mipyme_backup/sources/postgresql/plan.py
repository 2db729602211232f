"""What a restore will do to a server and what stands in its way, known before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.sources.postgresql import content, plan_rights, restricted, subscriptions
from mipyme_backup.sources.postgresql.connection import identifier
from mipyme_backup.sources.postgresql.load import property_statements
from mipyme_backup.sources.postgresql.situation import Situation
from mipyme_backup.sources.postgresql.swap import others_sessions


def messages(situation: Situation, cursor: Any) -> list[Message]:
    """Return the plan, first what is done, then what is lost or left to an administrator.

    Raises RestoreError for the first thing that forbids the restore.
    """
    steps: tuple[Callable[[Situation, Any], Iterator[Message]], ...] = (
        _version,
        plan_rights.may_create,
        plan_rights.row_security,
        plan_rights.foreign_data_wrappers,
        _steps,
        _locale,
        _extensions,
        plan_rights.roles,
        plan_rights.owner_rights,
        plan_rights.as_superuser,
        _left_to_administrators,
        restricted.left_out,
        _in_the_way,
        _subscriptions,
    )
    return [message for step in steps for message in step(situation, cursor)]


def in_place_messages(
    situation: Situation,
    cursor: Any,
    foreign_objects: Sequence[tuple[str, str]],
    publications: Mapping[str, str],
) -> list[Message]:
    """Return the plan of a restore in place; `foreign_objects` are what others own, with them.

    `publications` are those of others, with the tables that each of them loses.

    Raises RestoreError for the first thing that forbids it.
    """
    if foreign_objects:
        raise RestoreError(
            _("%(role)s cannot replace what belongs to others in %(name)s: %(objects)s"),
            hint=_(
                "As administrator, in that database: REASSIGN OWNED BY %(owners)s TO %(quoted)s;"
            ),
            role=situation.rights.role,
            name=situation.name,
            objects=", ".join(f"{name} ({owner})" for name, owner in foreign_objects[:5]),
            owners=", ".join(sorted({identifier(owner) for _name, owner in foreign_objects})),
            quoted=identifier(situation.rights.role),
        )
    text = _(
        "Everything in %(name)s is dropped and loaded again in one transaction, IN PLACE: the site"
        " waits as long as the loading takes, and --undo cannot bring back what was replaced (the"
        " safety backup can)."
    )
    lines = [Message(text, {"name": situation.name})]
    for step in (
        _version,
        plan_rights.row_security,
        _extensions,
        plan_rights.in_place_owners,
        plan_rights.owner_rights,
        _event_triggers,
        restricted.left_out,
        _prepared,
    ):
        lines += step(situation, cursor)
    for publication, tables in publications.items():
        if tables:
            sql = f"ALTER PUBLICATION {identifier(publication)} ADD TABLE {tables};"
            lines.append(Message(restricted.AFTERWARDS, {"name": situation.name, "sql": sql}))
    return lines


def _version(situation: Situation, cursor: Any) -> Iterator[Message]:
    dumped = int(situation.facts.get("major") or 0)
    if dumped > situation.major:
        raise RestoreError(
            _("The backup is of PostgreSQL %(dumped)d, the server is PostgreSQL %(major)d"),
            hint=_("Restore to a server of version %(dumped)d or newer."),
            dumped=dumped,
            major=situation.major,
        )
    yield from ()


def _steps(situation: Situation, cursor: Any) -> Iterator[Message]:
    yield Message(
        _("%(side)s is created and loaded; it takes about %(size)d MB on the database server"),
        {
            "side": situation.side,
            "size": max(1, round(int(situation.facts.get("size") or 0) / 1e6)),
        },
    )
    if situation.live is None:
        yield Message(_("%(side)s becomes %(name)s, which does not exist now"), _names(situation))
    else:
        yield Message(
            _("%(name)s becomes %(before)s, %(side)s becomes %(name)s; all sessions are ended"),
            _names(situation),
        )


def _locale(situation: Situation, cursor: Any) -> Iterator[Message]:
    encoding = str(situation.properties.get("encoding") or "UTF8")
    cursor.execute("SELECT pg_catalog.pg_char_to_encoding(%s)", [encoding])
    if cursor.fetchone()[0] < 0:
        raise RestoreError(
            _("The server does not know the encoding %(encoding)s"), encoding=encoding
        )
    dumped = situation.facts.get("encoding")
    if dumped and dumped != encoding:
        yield Message(
            _("The backup's encoding is %(dumped)s, the restored database's will be %(encoding)s"),
            {"dumped": dumped, "encoding": encoding},
        )
    locale = situation.properties.get("collate")
    if situation.live is None and situation.properties.get("locale_provider") == "libc" and locale:
        known = content.names(
            cursor, "SELECT collcollate FROM pg_catalog.pg_collation WHERE collprovider = 'c'"
        )
        if _plain(locale) not in {"c", "posix", *map(_plain, known)}:
            yield Message(
                _("The server may lack the locale %(locale)s; install it there if loading fails"),
                {"locale": locale},
            )


def _extensions(situation: Situation, cursor: Any) -> Iterator[Message]:
    used = set(situation.facts.get("extensions_used") or ())
    for name in sorted(situation.missing):
        available = name in situation.rights.available
        if name in used and not available:
            raise RestoreError(
                _("The backup needs the extension %(extension)s, which the server lacks"),
                hint=_("Install its package on the database server."),
                extension=name,
            )
        if name in used:
            raise RestoreError(
                _("The backup needs the extension %(extension)s, which %(role)s may not create"),
                hint=_(
                    "As administrator, connected to template1: CREATE EXTENSION %(quoted)s; "
                    "the restored database is then made from that."
                ),
                extension=name,
                quoted=identifier(name),
                role=situation.rights.role,
            )
        yield Message(
            _(
                "The extension %(extension)s is left out: nothing in the backup is built on it. "
                "An administrator can add it: CREATE EXTENSION %(quoted)s;"
            ),
            {"extension": name, "quoted": identifier(name)},
        )
    for name in sorted(situation.from_template1):
        yield Message(_("The extension %(extension)s comes from template1"), {"extension": name})


def _left_to_administrators(situation: Situation, cursor: Any) -> Iterator[Message]:
    rights = situation.rights
    _ours, theirs = property_statements(situation.name, situation.properties, rights)
    for statement in theirs:
        yield Message(
            _("Only an administrator can do this, afterwards: %(sql)s"), {"sql": statement}
        )
    if situation.live is None:
        for role, parameter in situation.facts.get("settings_withheld") or ():
            yield Message(
                _("%(parameter)s was set for the database%(role)s; its value is not in the backup"),
                {"parameter": parameter, "role": f" ({role})" if role else ""},
            )
    yield from _event_triggers(situation, cursor)


def _event_triggers(situation: Situation, cursor: Any) -> Iterator[Message]:
    if not situation.rights.superuser:
        for name in situation.facts.get("event_triggers") or ():
            yield Message(
                _("The event trigger %(name)s is left out: only a superuser can create it"),
                {"name": name},
            )


def _prepared(situation: Situation, cursor: Any) -> Iterator[Message]:
    cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [situation.live])
    if prepared := [row[0] for row in cursor.fetchall()]:
        raise RestoreError(
            _("%(live)s has prepared transactions (%(names)s), and cannot be replaced"),
            hint=_("Finish them with COMMIT PREPARED or ROLLBACK PREPARED."),
            live=situation.live,
            names=", ".join(prepared),
        )
    yield from ()


def _in_the_way(situation: Situation, cursor: Any) -> Iterator[Message]:
    if situation.live is None:
        return
    yield from _prepared(situation, cursor)
    if sessions := others_sessions(cursor, situation.live):
        yield Message(
            _(
                "%(role)s may not end the sessions of %(sessions)s: stop them before, or, as "
                "administrator: GRANT pg_signal_backend TO %(quoted)s;"
            ),
            {
                "role": situation.rights.role,
                "quoted": identifier(situation.rights.role),
                "sessions": ", ".join(sessions),
            },
        )
    cursor.execute(
        "SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE database = %s",
        [situation.live],
    )
    if slots := [row[0] for row in cursor.fetchall()]:
        yield Message(
            _(
                "The logical replication slots %(slots)s stay with the replaced database: what "
                "reads them must start anew"
            ),
            {"slots": ", ".join(slots)},
        )


def _subscriptions(situation: Situation, cursor: Any) -> Iterator[Message]:
    """Say what becomes of logical replication into the database that is replaced."""
    if situation.live is None:
        return
    for found in subscriptions.of_database(cursor, situation.live):
        params = {
            "subscription": identifier(found.name),
            "name": situation.name,
            "before": situation.before,
            "sql": "; ".join(found.detaching) + ";",
        }
        if found.ours:
            text = _(
                "The subscription %(subscription)s is disabled before %(name)s is replaced, and is"
                " disabled in what is restored. Its slot does not send again what came since the"
                " backup: copy that from the publisher. Afterwards, in %(name)s: ALTER SUBSCRIPTION"
                " %(subscription)s ENABLE; ALTER SUBSCRIPTION %(subscription)s REFRESH PUBLICATION"
                " WITH (copy_data = false);"
            )
        else:
            text = _(
                "The subscription %(subscription)s belongs to another role: %(before)s would go on"
                " receiving and could not be dropped. As administrator, in %(name)s, before the"
                " restore: %(sql)s"
            )
        yield Message(text, params)


def _names(situation: Situation) -> dict[str, object]:
    return {"name": situation.name, "side": situation.side, "before": situation.before}


def _plain(locale: str) -> str:
    return locale.lower().replace("-", "")
