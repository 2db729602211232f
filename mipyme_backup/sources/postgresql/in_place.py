"""Restores a PostgreSQL database in place: for a role that may not create databases.

Nothing can be loaded beside, so `load` only reads the dump to its end, and `swap` drops what is
live and loads the dump in one transaction: the database is all old or all new at any kill. What
was replaced is gone then; the safety backup has it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from django.db import Error

from mipyme_backup import process
from mipyme_backup.errors import BackupError, ProcessError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import CHUNK, Child, Reader
from mipyme_backup.sources.base import Facts, Target, artifact_name, require_own
from mipyme_backup.sources.postgresql import content, owner_rights, plan, releases, replacing
from mipyme_backup.sources.postgresql.archive import Peeked, WholeDump, peek_contents
from mipyme_backup.sources.postgresql.connection import (
    APPLICATION,
    client_environment,
    client_secrets,
    connected,
    conninfo,
    identifier,
    identity,
    server_major,
)
from mipyme_backup.sources.postgresql.load import NO_OWNER, restore_flags
from mipyme_backup.sources.postgresql.parse import check_dump
from mipyme_backup.sources.postgresql.selection import select
from mipyme_backup.sources.postgresql.server import explained, rights
from mipyme_backup.sources.postgresql.site_role import quiet
from mipyme_backup.sources.postgresql.situation import Situation
from mipyme_backup.sources.postgresql.swap import END_SESSIONS
from mipyme_backup.sources.postgresql.target import KEPT_FACTS
from mipyme_backup.sources.postgresql.tools import find_tool
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")


class InPlaceTarget(Target):
    """See `Target`. `state` holds, beside names and facts, the ids of the tables that are live.

    They tell a later process whether the transaction was committed: none of them is left then.
    """

    for_good = True

    def __init__(
        self,
        state: dict[str, Any],
        settings_dict: Mapping[str, Any],
        bin_dir: Path | None = None,
    ) -> None:
        self.state = state
        self._settings = settings_dict
        self._bin_dir = bin_dir
        self._alias: str = state["alias"]
        self._facts: Facts = state["facts"]
        self._rows: Mapping[str, int] = {}
        self._open: Callable[[], Reader] | None = None
        self._failure: BackupError | None = None

    @classmethod
    def prepare(
        cls,
        *,
        alias: str,
        settings_dict: Mapping[str, Any],
        restore_id: str,
        facts: Facts,
        bin_dir: Path | None = None,
    ) -> Self:
        """Return the target of a new restore; nothing is changed on the server."""
        with (
            connected(alias, settings_dict, read_only=True) as connection,
            connection.cursor() as cursor,
        ):
            name = str(content.single(cursor, "SELECT current_database()"))
            tables = content.names(cursor, replacing.TABLE_IDS)
            saved = facts.get("tables") or {}
            labels = [table.label for table in replacing.extension_tables(cursor)]
        return cls(
            {
                "type": "postgresql_in_place",
                "alias": alias,
                "restore_id": restore_id,
                "live": name,
                "replaced": "",
                "tables": tables,
                "extension_rows": {label: saved[label] for label in labels if label in saved},
                "facts": {key: facts[key] for key in KEPT_FACTS if key in facts},
            },
            settings_dict,
            bin_dir,
        )

    @classmethod
    def from_state(
        cls, state: dict[str, Any], settings_dict: Mapping[str, Any], bin_dir: Path | None = None
    ) -> Self:
        """Return the target that a journal's `state` describes."""
        return cls(state, settings_dict, bin_dir)

    @staticmethod
    def check_state(state: dict[str, Any], settings_dict: Mapping[str, Any]) -> None:
        """Raise StateError where a journal's `state` names another database than ours."""
        if settings_dict.get("NAME"):
            require_own(state, {"live": str(settings_dict["NAME"])})

    def plan(self) -> list[Message]:
        with self._connected() as connection, connection.cursor() as cursor:
            major = server_major(connection)
            tools = [find_tool(name, major, self._bin_dir) for name in ("pg_restore", "psql")]
            allowed = rights(cursor, major)
            foreign = {
                name
                for name in set(self._facts.get("extensions") or ()) - {"plpgsql"}
                if not allowed.may_create_extension(name)
            }
            cursor.execute(replacing.FOREIGN_OBJECTS)
            foreign_objects = [(str(name), str(owner)) for name, owner in cursor.fetchall()]
            publications = replacing.foreign_publications(cursor)
            restricted = [
                record
                for record in self._facts.get("restricted") or ()
                if record["kind"] != "PUBLICATION" or record["tag"] not in publications
            ]
            lines = plan.in_place_messages(
                Situation(
                    major=major,
                    rights=allowed,
                    facts={**self._facts, "restricted": restricted},
                    properties={"owner": allowed.role},
                    name=self.state["live"],
                    side=self.state["live"],
                    before=self.state["live"],
                    live=self.state["live"],
                    missing=frozenset(foreign - set(content.extensions(cursor))),
                    from_template1=frozenset(),
                ),
                cursor,
                foreign_objects=foreign_objects,
                publications=publications,
            )
            self._require_replaceable(cursor)
        return [*lines, *releases.client_warnings(tools[-1])]

    @property
    def alias(self) -> str:
        return str(self.state["alias"])

    def _require_replaceable(self, cursor: Any) -> None:
        """Raise RestoreError where rows that are an extension's users' could not be replaced."""
        for table in replacing.extension_tables(cursor):
            if table.may_delete and table.may_insert:
                continue
            saved = int(self.state.get("extension_rows", {}).get(table.label, 0))
            query = f"SELECT EXISTS (SELECT FROM ONLY {table.quoted} {table.condition})"  # noqa: S608
            if saved or (_readable(cursor, table) and content.single(cursor, query)):
                raise RestoreError(
                    _(
                        "The rows of %(table)s, which belongs to the extension %(extension)s,"
                        " cannot be replaced by %(role)s."
                    ),
                    hint=_(
                        "As administrator, in that database: GRANT SELECT, INSERT, DELETE ON"
                        " %(table)s TO %(role)s;"
                    ),
                    table=table.quoted,
                    extension=table.extension,
                    role=identifier(rights(cursor, server_major(cursor.db)).role),
                )

    def claims(self) -> frozenset[str]:
        return frozenset({"/".join((*identity(self._settings)[:-1], self.state["live"]))})

    def has_live(self) -> bool:
        try:
            with self._connected() as connection, connection.cursor() as cursor:
                return not content.is_empty(cursor)
        except (Error, BackupError):
            return True

    def load(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        """Read the dump to its end, and keep nothing but how to open it again."""
        opener = artifacts[artifact_name(self._alias, "dump")]
        reader = opener()
        try:
            check_dump(reader, int(self._facts["major"]), self._bin_dir)
        finally:
            reader.close()
        self._open = opener

    def check(self, facts: Facts) -> list[Message]:
        """Find nothing now: the rows are counted before the transaction commits."""
        self._rows = dict(facts.get("tables") or {})
        return []

    def swap_has_begun(self) -> bool:
        return self._committed()

    def swap(self) -> float:
        if self._open is None and self._committed():
            return 0.0
        if self._failure is not None:
            raise self._failure  # the same again would only keep the site waiting
        if self._open is None:
            raise RestoreError(
                _("%(name)s was not replaced: the restore was interrupted before that."),
                hint=_("Run the restore again."),
                name=self.state["live"],
            )
        started = time.monotonic()
        try:
            self._replace(self._open())
        except BackupError as error:
            if not self._committed():  # the answer to COMMIT may have been lost
                self._failure = error
                raise
        seconds = time.monotonic() - started
        try:
            with self._connected() as connection, connection.cursor() as cursor:
                cursor.execute("ANALYZE")
        except (Error, BackupError) as error:
            logger.warning("%s was restored, but not analyzed: %s", self.state["live"], error)
        return seconds

    def discard(self) -> None:
        self._open = None

    def undo(self) -> None:
        if self._committed():
            raise RestoreError(
                _("%(name)s was replaced in place: what it held before is in the safety backup."),
                hint=_("Restore that one: list_backups shows it."),
                name=self.state["live"],
            )

    def remove_replaced(self) -> None:
        """Nothing was kept."""

    def _committed(self) -> bool:
        """Say whether none of the tables that were live is there any more, and others are.

        Where none was, nobody can tell: others may have been made since.
        """
        if not self.state["tables"]:
            return False
        with (
            explained(_("%(name)s could not be looked at: %(reason)s"), name=self.state["live"]),
            self._connected() as connection,
            connection.cursor() as cursor,
        ):
            present = content.names(cursor, replacing.TABLE_IDS)
        return bool(present) and not {*present} & {*self.state["tables"]}

    def _replace(self, dump: Reader) -> None:
        with self._connected() as connection, connection.cursor() as cursor:
            major = server_major(connection)
            allowed = rights(cursor, major)
            installed = frozenset(content.extensions(cursor))
            kept_schemas = frozenset(content.names(cursor, replacing.KEPT_SCHEMAS))
            publications = frozenset(replacing.foreign_publications(cursor))
            # What `plan` let pass has no rows, here and in the backup.
            untouched = {
                (table.schema, table.name)
                for table in replacing.extension_tables(cursor)
                if not (table.may_delete and table.may_insert)
            }
            tools = (find_tool(t, major, self._bin_dir).path for t in ("pg_restore", "psql"))
            restore, psql = tools
            trusted = owner_rights.trusted_owners(cursor, allowed.role, self._facts)
            cursor.execute(END_SESSIONS, [self.state["live"]])
        try:
            contents, stream = peek_contents(WholeDump(dump))
            chosen = select(contents.entries, allowed, installed, kept_schemas)
            chosen = chosen.without_rows(untouched).without_publications(publications)
            flags = restore_flags(contents, allowed, self._facts.get("roles") or ())
            disarm, warnings = "", list[Message]()
            if NO_OWNER in flags:
                disarm, warnings = owner_rights.disarming(contents, trusted, self._facts)
            with (
                process.secret_file(chosen.use_list()) as (use_list, descriptor),
                client_secrets(self._settings) as (secrets, descriptors),
            ):
                script = Child(
                    replacing.script_arguments(
                        restore,
                        use_list=use_list if contents.known else None,
                        flags=flags,
                    ),
                    stdin=stream,
                    pass_fds=[descriptor],
                )
                login = quiet(self._settings, allowed, major)
                self._run(psql, script, disarm, login, secrets, descriptors)
            for warning in warnings:
                warn(logger, warning.text, **warning.params)
        finally:
            dump.close()

    def _run(
        self,
        psql: Path,
        script: Reader,
        disarm: str,
        settings: Mapping[str, Any],
        secrets: Mapping[str, str],
        descriptors: list[int],
    ) -> None:
        opening = replacing.opening(
            role=(self._settings.get("OPTIONS") or {}).get("assume_role"),
            rows=self._rows,
            disarm=disarm,
        )
        child = Child(
            replacing.psql_arguments(psql, conninfo(settings, name=self.state["live"])),
            stdin=Peeked(opening.encode(), script),
            env={**client_environment(APPLICATION, os.environ), **secrets},
            pass_fds=descriptors,
        )
        try:
            while child.read(CHUNK):
                pass
        except ProcessError as error:
            raise RestoreError(
                _("Loading %(name)s in place failed: %(reason)s"),
                hint=_("Nothing was changed. Mend what the server refused and restore again."),
                name=self.state["live"],
                reason=str(error),
            ) from error
        finally:
            child.close()

    def _connected(self) -> Any:
        return connected(self._alias, self._settings)


def _readable(cursor: Any, table: replacing.ExtensionTable) -> bool:
    query = "SELECT pg_catalog.has_table_privilege(%s, 'SELECT')"
    cursor.execute(query, [table.quoted])
    return bool(cursor.fetchone()[0])
