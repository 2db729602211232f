"""A database that is not there, one that is bare, one that was emptied: each by what it shows."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connections
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from mipyme_backup.sources import DatabaseSource
from mipyme_backup.sources.base import Condition
from mipyme_backup.sources.condition import expected_tables, tables_of
from tests.services import PostgreSQLServer
from tests.unit.sources.fixture_app.databases import known, migrated, sqlite_entry


@pytest.fixture(autouse=True)
def _own_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


def database_condition(
    alias: str, entry: Mapping[str, Any], held: Collection[str] = ()
) -> Condition:
    source = DatabaseSource(connections={alias: entry}).part(f"database:{alias}")
    assert source is not None
    return source.condition(held=held)


class Conditions:
    """The same on every engine."""

    HELD = ("auth_group", "auth_permission")

    @pytest.fixture
    def entry(self) -> dict[str, Any]:
        """The settings of a database that is there, and has nothing in it."""
        raise NotImplementedError

    def execute(self, entry: dict[str, Any], statement: str) -> None:
        raise NotImplementedError

    def test_one_with_its_tables_and_rows_is_used(self, entry: dict[str, Any]) -> None:
        with migrated("origin", entry):
            Group.objects.using("origin").create(name="cooks")

            assert database_condition("origin", entry, held=self.HELD) == "used"

    def test_rows_that_migrate_makes_are_none_of_the_projects(self, entry: dict[str, Any]) -> None:
        with migrated("origin", entry):
            assert Permission.objects.using("origin").exists()

            assert database_condition("origin", entry, held=self.HELD) == "emptied"
            assert database_condition("origin", entry) == "used"  # nothing is known to be lost

    def test_foreign_tables_do_not_make_it_the_projects(self, entry: dict[str, Any]) -> None:
        self.execute(entry, "CREATE TABLE spatial_notes (id integer)")

        with known("origin", entry):
            assert database_condition("origin", entry, held=self.HELD) == "bare"

    def test_migrations_that_were_applied_do(self, entry: dict[str, Any]) -> None:
        """The tables of a new version may all have other names."""
        self.execute(entry, "CREATE TABLE django_migrations (id integer, app varchar(99))")
        with known("origin", entry):
            before = database_condition("origin", entry)
            self.execute(entry, "INSERT INTO django_migrations VALUES (1, 'mipyme_backup')")
            with_ours = database_condition("origin", entry)
            self.execute(entry, "INSERT INTO django_migrations VALUES (2, 'shop')")

            assert (before, with_ours) == ("bare", "bare")
            assert database_condition("origin", entry) == "used"

    def test_where_no_table_is_expected_nothing_is_missed(self, entry: dict[str, Any]) -> None:
        with known("origin", entry), override_settings(DATABASE_ROUTERS=[Elsewhere()]):
            assert database_condition("origin", entry) == "unknown"


class Elsewhere:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db != "origin"


class TestOnSQLite(Conditions):
    @pytest.fixture
    def entry(self, tmp_path: Path) -> dict[str, Any]:
        entry = sqlite_entry(tmp_path / "origin.sqlite3")
        self.execute(entry, "VACUUM")
        return entry

    def execute(self, entry: dict[str, Any], statement: str) -> None:
        with contextlib.closing(sqlite3.connect(entry["NAME"])) as connection:
            connection.execute(statement)
            connection.commit()

    @pytest.mark.parametrize("touched", [False, True])
    def test_no_file_and_one_of_no_bytes(self, touched: bool, tmp_path: Path) -> None:
        entry = sqlite_entry(tmp_path / "gone.sqlite3")
        if touched:
            Path(entry["NAME"]).touch()

        with known("origin", entry):
            assert database_condition("origin", entry) == "missing"
        assert Path(entry["NAME"]).exists() == touched

    def test_one_that_is_no_database_tells_nothing(self, tmp_path: Path) -> None:
        entry = sqlite_entry(tmp_path / "text.sqlite3")
        Path(entry["NAME"]).write_text("not a database, but long enough" * 50)

        with known("origin", entry):
            assert database_condition("origin", entry) == "unknown"


class TestOnPostgreSQL(Conditions):
    HELD = ("public.auth_group", "public.auth_permission")

    @pytest.fixture
    def entry(
        self, postgresql_server: PostgreSQLServer, postgresql_database: str
    ) -> dict[str, Any]:
        return postgresql_server.settings(postgresql_database)

    def execute(self, entry: dict[str, Any], statement: str) -> None:
        with known("setup", entry), connections["setup"].cursor() as cursor:
            cursor.execute(statement)

    def test_no_such_database(self, entry: dict[str, Any]) -> None:
        entry = {**entry, "NAME": f"never_{secrets.token_hex(4)}"}

        with known("origin", entry):
            assert database_condition("origin", entry) == "missing"

    def test_server_that_is_away_tells_nothing(self, entry: dict[str, Any]) -> None:
        entry = {**entry, "HOST": "127.0.0.1", "PORT": "1"}

        with known("origin", entry):
            assert database_condition("origin", entry) == "unknown"

    def test_tables_in_any_schema_count(self, entry: dict[str, Any]) -> None:
        self.execute(entry, "CREATE SCHEMA tenant; CREATE TABLE tenant.auth_group (id integer)")

        with known("origin", entry):
            assert database_condition("origin", entry) == "used"


def test_only_tables_that_migrate_makes_are_the_projects() -> None:
    rows = {"auth_group": 3, "public.auth_user": 1, "legacy": 9, "other: auth_group": 5}

    assert tables_of("default", rows) == {"auth_group": 3, "public.auth_user": 1}
    assert "auth_group" in expected_tables("default")
    assert not any(name.startswith("mipyme_backup") for name in expected_tables("default"))
