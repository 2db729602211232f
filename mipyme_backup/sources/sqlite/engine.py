"""SQLite as an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.messages import Message
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Condition, Facts, ServerLock, Target, Where, require_own
from mipyme_backup.sources.engines import Database, Dump
from mipyme_backup.sources.sqlite.condition import condition_of
from mipyme_backup.sources.sqlite.files import identity, in_memory, live_path, preflight
from mipyme_backup.sources.sqlite.parse import check_file
from mipyme_backup.sources.sqlite.snapshot import SQLiteSnapshot
from mipyme_backup.sources.sqlite.target import SQLiteTarget


class SQLite:
    """SQLite, in a file; see `engines.Engine`."""

    suffix = "sqlite3"

    def identity(self, database: Database) -> tuple[str, ...]:
        return identity(database.settings)

    def origin(self, database: Database) -> Mapping[str, str]:
        name = database.settings.get("NAME")
        if not name or in_memory(name):
            return {}
        path = live_path(database.settings)
        return {"name": path.name, "place": str(path.parent)}

    def server(self, database: Database) -> None:
        return None

    def server_lock(self, database: Database) -> ServerLock:
        raise NotImplementedError("SQLite has no server")

    def preflight(self, database: Database) -> Iterable[Message]:
        preflight(database.alias, database.settings)
        return ()

    def condition(
        self, database: Database, *, wanted: frozenset[str], held: frozenset[str]
    ) -> Condition:
        return condition_of(database.alias, database.settings, wanted=wanted, held=held)

    def open_snapshot(
        self, database: Database, *, work_dir: Path, without_rows: frozenset[str]
    ) -> SQLiteSnapshot:
        return SQLiteSnapshot(
            database.alias, database.settings, work_dir=work_dir, without_rows=without_rows
        )

    def check_content(self, database: Database, reader: Reader, facts: Facts) -> None:
        check_file(reader)

    def target(self, database: Database, dump: Dump, where: Where) -> Target:
        """Return the target; a file is swapped as ever, also `in_place`."""
        return SQLiteTarget.prepare(
            alias=database.alias,
            settings_dict=database.restore_settings,
            restore_id=dump.restore_id,
            to_database=where.to_database,
            raw_size=dump.raw_size,
        )

    def drill_target(self, database: Database, dump: Dump, file: Path) -> Target:
        return self.target(database, dump, Where(to_database=str(file)))

    def restored_target(
        self, database: Database, state: dict[str, Any], *, elsewhere: bool
    ) -> Target:
        require_own(state, {"type": "sqlite"})
        SQLiteTarget.check_state(state, database.restore_settings, elsewhere=elsewhere)
        return SQLiteTarget.from_state(state)

    def path_elsewhere(self, name: str) -> Path:
        return Path(name)

    def broken_rules(self, connection: BaseDatabaseWrapper) -> Iterator[Message]:
        return iter(())

    def sequences_behind(self, connection: BaseDatabaseWrapper) -> Iterable[str]:
        behind = []
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")
            if not cursor.fetchone()[0]:
                return []
            cursor.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name")
            for name, value in cursor.fetchall():
                quoted = '"{}"'.format(name.replace('"', '""'))
                cursor.execute(f"SELECT max(rowid) FROM {quoted}")  # noqa: S608 - quoted above
                highest = cursor.fetchone()[0]
                if highest is not None and highest > value:
                    behind.append(name)
        return behind
