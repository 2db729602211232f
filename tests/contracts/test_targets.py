"""Every target keeps the contract, on the engine that it is for."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.sources.base import Snapshot
from mipyme_backup.sources.postgresql import PostgreSQLSnapshot, PostgreSQLTarget
from mipyme_backup.sources.sqlite import SQLiteSnapshot, SQLiteTarget
from mipyme_backup.testing import Restoring, TargetContract, read_whole
from tests.services import PostgreSQLServer


def saved(snapshot: Snapshot) -> tuple[str, bytes, Mapping[str, Any]]:
    """Return the name, the bytes and the facts of the database as it is now."""
    with closing(snapshot):
        artifact = snapshot.artifact()
        return artifact.name, read_whole(artifact.open()), artifact.facts()


class TestSQLiteTarget(TargetContract):
    @pytest.fixture
    def restoring(self, tmp_path: Path) -> Restoring:
        live = tmp_path / "db.sqlite3"
        entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": live}
        self.execute(live, "CREATE TABLE item (name text)")
        self.execute(live, "INSERT INTO item VALUES ('new')")
        name, data, facts = saved(
            SQLiteSnapshot("default", entry, work_dir=tmp_path / "w", without_rows=frozenset())
        )
        self.execute(live, "UPDATE item SET name = 'old'")
        return Restoring(
            make=lambda: SQLiteTarget.prepare(
                alias="default", settings_dict=entry, restore_id="ab12", raw_size=len(data)
            ),
            again=SQLiteTarget.from_state,
            live=lambda: self.execute(live, "SELECT name FROM item"),
            artifacts={name: lambda: io.BytesIO(data)},
            facts=facts,
        )

    def execute(self, live: Path, statement: str) -> list[Any]:
        with closing(sqlite3.connect(live)) as connection, connection:
            return connection.execute(statement).fetchall()


@pytest.mark.usefixtures("database_access")
class TestPostgreSQLTarget(TargetContract):
    @pytest.fixture
    def restoring(self, postgresql_server: PostgreSQLServer, postgresql_database: str) -> Restoring:
        server, database = postgresql_server, postgresql_database
        entry = server.settings(database)
        server.execute("CREATE TABLE item (name text)", database)
        server.execute("INSERT INTO item VALUES ('new')", database)
        name, data, facts = saved(PostgreSQLSnapshot("default", entry, bin_dir=server.bin_dir))
        server.execute("UPDATE item SET name = 'old'", database)
        return Restoring(
            make=lambda: PostgreSQLTarget.prepare(
                alias="default",
                settings_dict=entry,
                restore_id="ab12",
                facts=facts,
                bin_dir=server.bin_dir,
            ),
            again=lambda state: PostgreSQLTarget.from_state(state, entry, server.bin_dir),
            live=lambda: server.execute("SELECT name FROM item", database),
            artifacts={name: lambda: io.BytesIO(data)},
            facts=facts,
        )
