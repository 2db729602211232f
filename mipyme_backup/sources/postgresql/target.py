"""Restores a PostgreSQL database: beside the live one, checked, then swapped in by renaming."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from django.db import Error

from mipyme_backup.errors import BackupError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Facts, Target, artifact_name, require_own
from mipyme_backup.sources.postgresql import content, owner_rights, plan, releases, subscriptions
from mipyme_backup.sources.postgresql import facts as facts_of
from mipyme_backup.sources.postgresql.archive import Contents
from mipyme_backup.sources.postgresql.connection import (
    connected,
    identifier,
    identity,
    server_major,
)
from mipyme_backup.sources.postgresql.differences import differences
from mipyme_backup.sources.postgresql.load import (
    closing_statements,
    create_statement,
    load_dump,
    opening_statements,
    property_statements,
)
from mipyme_backup.sources.postgresql.server import (
    Rights,
    beside,
    databases,
    drop_database,
    explained,
    maintenance,
    rights,
)
from mipyme_backup.sources.postgresql.site_role import SideLogins
from mipyme_backup.sources.postgresql.situation import Situation
from mipyme_backup.sources.postgresql.swap import exchange
from mipyme_backup.sources.postgresql.tools import find_tool
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")

# What later steps need of the manifest's facts; the rest (row counts) would bloat the journal.
KEPT_FACTS = (
    "major",
    "owner",
    "encoding",
    "collate",
    "ctype",
    "locale_provider",
    "icu_locale",
    "icu_rules",
    "builtin_locale",
    "connection_limit",
    "acl",
    "settings",
    "settings_withheld",
    "comment",
    "extensions",
    "extensions_used",
    "event_triggers",
    "restricted",
    "row_security_forced",
    "foreign_data_wrappers_used",
    "owners",
    "owner_rights",
    "roles",
    "size",
)


class PostgreSQLTarget(Target):
    """See `Target`. `state` holds the names of the databases and what facts are needed again.

    `model` is the database whose properties (owner, locale, privileges, settings) the restored
    one gets while it exists, `name` the one that it will be; they differ for a copy.
    """

    def __init__(
        self,
        state: dict[str, Any],
        settings_dict: Mapping[str, Any],
        bin_dir: Path | None = None,
        site: Mapping[str, Any] | None = None,
    ) -> None:
        self.state = state
        self._settings = settings_dict
        self._bin_dir = bin_dir
        self._alias: str = state["alias"]
        self._name: str = state["live"]
        self._side: str = state["side"]
        self._before: str = state["before"]
        self._parked: str = state["parked"]
        self._facts: Facts = state["facts"]
        self._logins = SideLogins(self._alias, settings_dict, site or settings_dict, self._side)

    @classmethod
    def prepare(
        cls,
        *,
        alias: str,
        settings_dict: Mapping[str, Any],
        restore_id: str,
        facts: Facts,
        to_database: str | None = None,
        bin_dir: Path | None = None,
        site: Mapping[str, Any] | None = None,
        drill: bool = False,
    ) -> Self:
        """Return the target of a new restore; nothing is changed on the server.

        `site` is the site's own entry of ``DATABASES``, where restores have another.

        `to_database` makes a copy of that name, which must not exist, and replaces nothing. That
        of a `drill` is never swapped in.
        """
        model = str(settings_dict.get("NAME") or "") or _name_by_service(alias, settings_dict)
        thrown_away = beside(model, "drill", restore_id) if drill else None
        name = thrown_away or to_database or model
        with (
            maintenance(alias, settings_dict, apart_from={name}) as connection,
            connection.cursor() as cursor,
        ):
            exists = name in databases(cursor)
            received = subscriptions.of_database(cursor, name)
        if to_database and exists:
            raise RestoreError(
                _("The database %(name)s exists already"),
                hint=_("Give another name, or drop it first."),
                name=name,
            )
        return cls(
            {
                "type": "postgresql",
                "alias": alias,
                "restore_id": restore_id,
                "model": model,
                "live": name,
                "replaces": exists,
                "side": thrown_away or beside(name, "restoring", restore_id),
                "before": beside(name, "before", restore_id),
                "parked": beside(name, "swapping", restore_id),
                "receiving": [one.name for one in received if one.enabled and one.ours],
                "facts": {key: facts[key] for key in KEPT_FACTS if key in facts},
            },
            settings_dict,
            bin_dir,
            site,
        )

    @classmethod
    def from_state(
        cls,
        state: dict[str, Any],
        settings_dict: Mapping[str, Any],
        bin_dir: Path | None = None,
        site: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the target that a journal's `state` describes."""
        return cls(state, settings_dict, bin_dir, site)

    @staticmethod
    def check_state(
        state: dict[str, Any], settings_dict: Mapping[str, Any], *, elsewhere: bool
    ) -> None:
        """Raise StateError where a journal's `state` names databases that are not called as ours.

        What was restored `elsewhere` has the name that the operator gave, and replaces nothing.
        """
        alias, restore_id = state["alias"], state["restore_id"]
        model = str(settings_dict.get("NAME") or "") or _name_by_service(alias, settings_dict)
        thrown_away = beside(model, "drill", restore_id)
        name = str(state["live"]) if elsewhere else model
        drill = elsewhere and name == thrown_away
        own = {
            "model": model,
            "live": name,
            "side": thrown_away if drill else beside(name, "restoring", restore_id),
            "before": beside(name, "before", restore_id),
            "parked": beside(name, "swapping", restore_id),
        }
        require_own(state, own if not elsewhere else {**own, "replaces": False})

    def plan(self) -> list[Message]:
        with self._maintenance() as connection, connection.cursor() as cursor:
            major = server_major(connection)
            tool = find_tool("pg_restore", major, self._bin_dir)
            allowed = rights(cursor, major)
            properties = self._properties(cursor, major)
            foreign = self._foreign_extensions(allowed)
            from_template1 = foreign & self._template1(properties, foreign)
            lines = plan.messages(
                Situation(
                    major=major,
                    rights=allowed,
                    facts=self._facts,
                    properties={**properties, "owner": self._owner(properties, allowed)},
                    name=self._name,
                    side=self._side,
                    before=self._before,
                    live=self._name if self.state["replaces"] else None,
                    missing=foreign - from_template1,
                    from_template1=from_template1,
                ),
                cursor,
            )
        return [*lines, *releases.client_warnings(tool)]

    @property
    def alias(self) -> str:
        return str(self.state["alias"])

    def kept_at(self) -> str:
        return str(self.state["before"])

    def claims(self) -> frozenset[str]:
        server = "/".join(identity(self._settings)[:-1])
        return frozenset(
            f"{server}/{name}" for name in (self._name, self._side, self._before, self._parked)
        )

    def has_live(self) -> bool:
        return bool(self.state["replaces"]) and not self._is_empty(self._name)

    def has_replaced(self) -> bool:
        with self._maintenance() as connection, connection.cursor() as cursor:
            kept = self._before in databases(cursor)
        return kept and not self._is_empty(self._before)

    def _is_empty(self, name: str) -> bool:
        """Say whether a database was made and never used; no, where it does not tell."""
        try:
            with (
                connected(self._alias, self._settings, name=name, read_only=True) as connection,
                connection.cursor() as cursor,
            ):
                return content.is_empty(cursor)
        except (Error, BackupError):
            return False

    def load(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        opening = artifacts[artifact_name(self._alias, "dump")]
        with self._maintenance() as connection, connection.cursor() as cursor:
            major = server_major(connection)
            program = find_tool("pg_restore", major, self._bin_dir).path
            allowed = rights(cursor, major)
            properties = self._properties(cursor, major)
            owner = self._owner(properties, allowed)
            self._create(cursor, properties, allowed, owner)
        login = self._logins.to_load(allowed, owner, major)
        with (
            connected(self._alias, login, name=self._side) as connection,
            connection.cursor() as cursor,
        ):
            allowed = rights(cursor, major)
            installed = frozenset(content.extensions(cursor))
        role = (login.get("OPTIONS") or {}).get("assume_role") if allowed.superuser else owner
        dump = opening()
        try:
            contents = load_dump(
                dump,
                login,
                program=program,
                name=self._side,
                role=None if role == login.get("USER") else role,
                rights=allowed,
                installed=installed,
                throwaway=self._name != self.state["model"],
                dump_roles=self._facts.get("roles") or (),
            )
        finally:
            dump.close()
        with explained(_("%(name)s could not be finished: %(reason)s"), name=self._side):
            with (
                connected(self._alias, login, name=self._side) as connection,
                connection.cursor() as cursor,
            ):
                if contents is not None:
                    self._disarm(cursor, contents, allowed, owner)
                cursor.execute("ANALYZE")
            with self._maintenance() as connection, connection.cursor() as cursor:
                allowed = rights(cursor, major)
                for statement in property_statements(self._side, properties, allowed)[0]:
                    cursor.execute(statement)

    def _disarm(self, cursor: Any, contents: Contents, allowed: Rights, owner: str) -> None:
        if allowed.superuser:
            owner = allowed.role
        trusted = owner_rights.trusted_owners(cursor, owner, self._facts)
        statement, warnings = owner_rights.disarming(contents, trusted, self._facts)
        if statement:
            cursor.execute(f"SET ROLE {identifier(owner)}")
            cursor.execute(statement)
            cursor.execute(f"SET ROLE {identifier(allowed.role)}")
        for warning in warnings:
            warn(logger, warning.text, **warning.params)

    def check(self, facts: Facts) -> list[Message]:
        with self._maintenance() as connection, connection.cursor() as cursor:
            major = server_major(connection)
            allowed = rights(cursor, major)
            owner = self._owner(self._properties(cursor, major), allowed)
        # The owner of a table on which row security is forced cannot count its rows.
        forced = self._facts.get("row_security_forced")
        settings = self._settings if forced else self._logins.to_load(allowed, owner, major)
        with (
            explained(_("%(name)s could not be checked: %(reason)s"), name=self._side),
            connected(self._alias, settings, name=self._side, read_only=True) as connection,
            connection.cursor() as cursor,
        ):
            return differences(cursor, facts)

    def side_settings(self) -> dict[str, Any]:
        return self._logins.to_use()

    def swap_has_begun(self) -> bool:
        with self._maintenance() as connection, connection.cursor() as cursor:
            return self._side not in databases(cursor)

    def swap(self) -> float:
        with self._maintenance() as connection, connection.cursor() as cursor:
            names = databases(cursor)
            if self._side not in names and self._name in names:
                return 0.0  # done before
            if self._side not in names:
                raise _nothing_to_swap(self._side)
            major = server_major(connection)
            present = self._name in names
            if present and not self.state["replaces"]:
                raise RestoreError(
                    _("%(name)s has come into being since the restore began"),
                    hint=_("Rename or drop it, and run the same command again."),
                    name=self._name,
                )
            properties = self._properties(cursor, major)
            allowed = rights(cursor, major)
            opening = opening_statements(
                self._side,
                properties,
                owner=self._owner(properties, allowed),
                rights=allowed,
                logins=self._logins.names(allowed),
            )
            with explained(_("%(name)s could not be opened: %(reason)s"), name=self._side):
                for statement in opening:
                    cursor.execute(statement)
        if not present:
            return self._exchange(self._side, None)
        # Its sessions of replication would come back; and what it receives from then on is lost.
        self._switch_subscriptions(on=False)
        try:
            return self._exchange(self._side, self._before)
        except BaseException:
            self._switch_subscriptions(on=True)
            raise

    def _switch_subscriptions(self, *, on: bool) -> None:
        """Let the live database receive, or not, what it received when the restore began."""
        names = self.state.get("receiving", ())
        subscriptions.switch(self._alias, self._settings, self._name, names, on=on)

    def undo(self) -> None:
        with self._maintenance() as connection, connection.cursor() as cursor:
            names = databases(cursor)
        if self._side in names:
            return  # undone before, or never swapped
        if not self.state["replaces"]:
            self._rename_away()
        elif self._before in names:
            with self._maintenance() as connection, connection.cursor() as cursor:
                found = subscriptions.of_database(cursor, self._name)
            enabled = [one.name for one in found if one.enabled and one.ours]
            subscriptions.switch(self._alias, self._settings, self._name, enabled, on=False)
            self._exchange(self._before, self._side if self._name in names else None)
            self._switch_subscriptions(on=True)
        else:
            raise _nothing_to_swap(self._before)

    def discard(self) -> None:
        self._drop(self._side)
        if self.state.get("receiving"):
            with self._maintenance() as connection, connection.cursor() as cursor:
                replaced = self._before in databases(cursor)
            if not replaced:  # a swap that was killed may have begun to disable them
                self._switch_subscriptions(on=True)

    def remove_replaced(self) -> None:
        self._drop(self._before)

    def _exchange(self, incoming: str, outgoing: str | None) -> float:
        return exchange(
            self._alias,
            self._settings,
            live=self._name,
            incoming=incoming,
            outgoing=outgoing,
            parked=self._parked,
        )

    def _rename_away(self) -> None:
        exchange(
            self._alias,
            self._settings,
            live=self._side,
            incoming=self._name,
            outgoing=None,
            parked=self._parked,
        )

    def _drop(self, name: str) -> None:
        with (
            explained(_("%(name)s could not be dropped: %(reason)s"), name=name),
            self._maintenance() as connection,
            connection.cursor() as cursor,
        ):
            found = subscriptions.of_database(cursor, name)
            subscriptions.detach(self._alias, self._settings, name, found)
            drop_database(cursor, name)

    def _create(
        self, cursor: Any, properties: Mapping[str, Any], allowed: Rights, owner: str
    ) -> None:
        foreign = self._foreign_extensions(allowed)
        statement = create_statement(
            self._side,
            properties,
            owner=owner,
            tablespace=_tablespace(properties, allowed),
            template="template1" if self._template1(properties, foreign) else "template0",
        )
        with explained(_("%(name)s could not be created: %(reason)s"), name=self._side):
            found = subscriptions.of_database(cursor, self._side)
            subscriptions.detach(self._alias, self._settings, self._side, found)
            drop_database(cursor, self._side)
            cursor.execute(statement)
            for closing in closing_statements(self._side, owner, *self._logins.names(allowed)):
                cursor.execute(closing)

    def _template1(self, properties: Mapping[str, Any], wanted: frozenset[str]) -> frozenset[str]:
        """Return which extensions an administrator has put into template1 for us to take over.

        None when it is of another encoding or locale: a copy of it could not be ours.
        """
        if not wanted:
            return frozenset()
        with (
            connected(self._alias, self._settings, name="template1", read_only=True) as connection,
            connection.cursor() as cursor,
        ):
            held = frozenset(wanted & set(content.extensions(cursor)))
            template = facts_of.database_properties(cursor, "template1", server_major(connection))
        same = ("encoding", "collate", "ctype", "locale_provider", "icu_locale", "builtin_locale")
        if template is None or any(template[key] != properties.get(key) for key in same):
            return frozenset()
        return held

    def _foreign_extensions(self, allowed: Rights) -> frozenset[str]:
        """Return the backup's extensions that our role cannot create."""
        names = set(self._facts.get("extensions") or ()) - {"plpgsql"}
        return frozenset(name for name in names if not allowed.may_create_extension(name))

    def _properties(self, cursor: Any, major: int) -> dict[str, Any]:
        """Return the properties of the live database, else those that the manifest tells."""
        live = facts_of.database_properties(cursor, self.state["model"], major)
        return live if live is not None else dict(self._facts)

    def _owner(self, properties: Mapping[str, Any], allowed: Rights) -> str:
        owner = str(properties.get("owner") or "")
        return owner if owner in allowed.assumable else allowed.role

    def _maintenance(self) -> Any:
        names = {self._name, self._side, self._before, self._parked}
        return maintenance(self._alias, self._settings, apart_from=names)


def _tablespace(properties: Mapping[str, Any], allowed: Rights) -> str | None:
    tablespace = properties.get("tablespace")
    if tablespace in {None, "pg_default"} or tablespace not in allowed.tablespaces:
        return None
    return str(tablespace)


def _name_by_service(alias: str, settings_dict: Mapping[str, Any]) -> str:
    with (
        connected(alias, settings_dict, read_only=True) as connection,
        connection.cursor() as cursor,
    ):
        return str(content.single(cursor, "SELECT current_database()"))


def _nothing_to_swap(name: str) -> RestoreError:
    return RestoreError(
        _("The database %(name)s is not there"),
        hint=_("Start the restore anew."),
        name=name,
    )
