"""PostgreSQL as an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Condition, Facts, ServerLock, Target, Where, require_own
from mipyme_backup.sources.engines import Database, Dump
from mipyme_backup.sources.postgresql import content, counting
from mipyme_backup.sources.postgresql.advisory import AdvisoryLock
from mipyme_backup.sources.postgresql.condition import condition_of
from mipyme_backup.sources.postgresql.connection import identity, unshadowed
from mipyme_backup.sources.postgresql.in_place import InPlaceTarget
from mipyme_backup.sources.postgresql.parse import check_dump
from mipyme_backup.sources.postgresql.snapshot import PostgreSQLSnapshot, preflight
from mipyme_backup.sources.postgresql.target import PostgreSQLTarget


class PostgreSQL:
    """PostgreSQL, by its own client tools; see `engines.Engine`."""

    suffix = "dump"

    def identity(self, database: Database) -> tuple[str, ...]:
        return identity(database.settings)

    def origin(self, database: Database) -> Mapping[str, str]:
        name, host = (str(database.settings.get(key) or "") for key in ("NAME", "HOST"))
        return {"name": name, "place": host} if name else {}

    def server(self, database: Database) -> tuple[str, ...]:
        return identity(database.settings)[:-1]

    def server_lock(self, database: Database) -> ServerLock:
        return AdvisoryLock(database.alias, database.settings)

    def preflight(self, database: Database) -> Iterable[Message]:
        return preflight(database.alias, database.settings, bin_dir=database.bin_dir)

    def condition(
        self, database: Database, *, wanted: frozenset[str], held: frozenset[str]
    ) -> Condition:
        return condition_of(database.alias, database.settings, wanted=wanted, held=held)

    def open_snapshot(
        self, database: Database, *, work_dir: Path, without_rows: frozenset[str]
    ) -> PostgreSQLSnapshot:
        return PostgreSQLSnapshot(
            database.alias, database.settings, without_rows=without_rows, bin_dir=database.bin_dir
        )

    def check_content(self, database: Database, reader: Reader, facts: Facts) -> None:
        check_dump(reader, int(facts["major"]), database.bin_dir)

    def target(self, database: Database, dump: Dump, where: Where) -> Target:
        if where.in_place:
            return InPlaceTarget.prepare(
                alias=database.alias,
                settings_dict=database.restore_settings,
                restore_id=dump.restore_id,
                facts=dump.facts,
                bin_dir=database.bin_dir,
            )
        return self._beside(database, dump, to_database=where.to_database)

    def drill_target(self, database: Database, dump: Dump, file: Path) -> Target:
        return self._beside(database, dump, drill=True)

    def _beside(
        self,
        database: Database,
        dump: Dump,
        *,
        to_database: str | None = None,
        drill: bool = False,
    ) -> Target:
        return PostgreSQLTarget.prepare(
            alias=database.alias,
            settings_dict=database.restore_settings,
            restore_id=dump.restore_id,
            facts=dump.facts,
            to_database=to_database,
            bin_dir=database.bin_dir,
            site=database.site,
            drill=drill,
        )

    def restored_target(
        self, database: Database, state: dict[str, Any], *, elsewhere: bool
    ) -> Target:
        settings = database.restore_settings
        if state["type"] == "postgresql_in_place":
            InPlaceTarget.check_state(state, settings)
            return InPlaceTarget.from_state(state, settings, database.bin_dir)
        require_own(state, {"type": "postgresql"})
        PostgreSQLTarget.check_state(state, settings, elsewhere=elsewhere)
        return PostgreSQLTarget.from_state(state, settings, database.bin_dir, database.site)

    def path_elsewhere(self, name: str) -> None:
        return None

    def broken_rules(self, connection: BaseDatabaseWrapper) -> Iterator[Message]:
        with unshadowed(connection) as cursor:
            invalid = content.names(cursor, content.INVALID_INDEXES)
            unvalidated = content.names(cursor, content.OWN_UNVALIDATED)
        for index in invalid:
            yield Message(_("the index %(name)s is not valid"), {"name": index})
        for name in unvalidated:
            table, _dot, constraint = name.rpartition(".")
            try:
                with connection.cursor() as cursor:
                    cursor.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}")
            except Error as error:
                yield Message("%(reason)s", {"reason": " ".join(str(error).split())})

    def sequences_behind(self, connection: BaseDatabaseWrapper) -> Iterable[str]:
        with unshadowed(connection) as cursor:
            return counting.sequences_behind(cursor)
