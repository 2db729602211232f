"""Every source keeps the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.sources import DatabaseSource
from mipyme_backup.sources.base import Source, View
from mipyme_backup.sources.postgresql import PostgreSQLSnapshot
from mipyme_backup.sources.sqlite import SQLiteSnapshot
from mipyme_backup.testing import FakeSource, SourceContract
from tests.services import PostgreSQLServer
from tests.unit.sources.media_trees import media_source


class TestFakeSource(SourceContract):
    @pytest.fixture
    def source(self) -> Source:
        return FakeSource({"first": b"x" * 3000, "empty": b"", "files.tar": b"y"}, packs={"z": "1"})

    @pytest.fixture
    def view(self) -> View:
        return View()


class TestDatabaseSourceOnSQLite(SourceContract):
    @pytest.fixture
    def source(self) -> Source:
        return DatabaseSource(aliases=["default"])

    @pytest.fixture
    def view(self, tmp_path: Path) -> Iterator[View]:
        live = tmp_path / "db.sqlite3"
        with closing(sqlite3.connect(live)) as database:
            database.execute("CREATE TABLE item (id integer PRIMARY KEY, name text)")
            database.execute("INSERT INTO item (name) VALUES ('one'), ('two')")
            database.commit()
        snapshot = SQLiteSnapshot(
            "default",
            {"ENGINE": "django.db.backends.sqlite3", "NAME": live},
            work_dir=tmp_path / "work",
            without_rows=frozenset(),
        )
        with closing(snapshot):
            yield View(snapshots={"default": snapshot})


@pytest.mark.usefixtures("database_access")
class TestDatabaseSourceOnPostgreSQL(SourceContract):
    def what_stays(self, name: str, data: bytes, facts: Mapping[str, Any]) -> Any:
        return name, facts  # pg_dump writes the time into its head

    @pytest.fixture
    def source(self) -> Source:
        return DatabaseSource(aliases=["default"])

    @pytest.fixture
    def view(self, postgresql_server: PostgreSQLServer, postgresql_database: str) -> Iterator[View]:
        postgresql_server.execute(
            "CREATE TABLE item (id int); INSERT INTO item SELECT generate_series(1, 1000)",
            postgresql_database,
        )
        snapshot = PostgreSQLSnapshot(
            "default",
            postgresql_server.settings(postgresql_database),
            bin_dir=postgresql_server.bin_dir,
        )
        with closing(snapshot):
            yield View(snapshots={"default": snapshot})


class TestMediaSource(SourceContract):
    def what_stays(self, name: str, data: bytes, facts: Mapping[str, Any]) -> Any:
        # Without an index that knows it, a pack is made anew, under an id of its own.
        return name, {key: value for key, value in facts.items() if key != "packs"}

    @pytest.fixture(autouse=True)
    def media(self, tmp_path: Path, settings: object) -> None:
        folder = tmp_path / "media"
        (folder / "photos").mkdir(parents=True)
        (folder / "photos" / "one.jpg").write_bytes(b"one" * 5000)
        (folder / "photos" / "two.jpg").write_bytes(b"two" * 50)
        (folder / "empty").touch()
        settings.MEDIA_ROOT = str(folder)  # type: ignore[attr-defined]

    @pytest.fixture
    def source(self) -> Source:
        return media_source(pack_size=8000)

    @pytest.fixture
    def view(self) -> View:
        return View()
