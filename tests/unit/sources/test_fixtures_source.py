"""What a fixture leaves out, and why; what it never does to those who read it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.db import connections
from django.test import modify_settings, override_settings
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import ConfigurationError, SourceBusyError, SourceError
from mipyme_backup.sources.base import View
from mipyme_backup.sources.fixtures import FixturesSource
from tests.services import PostgreSQLServer
from tests.unit.sources.fixture_app.databases import (
    LiveSnapshot,
    artifact_of,
    migrated,
    numbers,
    read_all,
    rows_of,
    sqlite_entry,
)

APP = "tests.unit.sources.fixture_app"
MOMENT = datetime(2025, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _own_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with (
        modify_settings(INSTALLED_APPS={"append": APP, "remove": "tests.zoo"}),
        django_db_blocker.unblock(),
    ):
        yield


class LeavingOut:
    """The same on every engine."""

    CASCADE = ""

    @pytest.fixture
    def origin(self) -> Iterator[str]:
        """The alias of an empty database with all tables."""
        raise NotImplementedError

    def test_a_model_above_max_rows_is_left_out_and_named(self, origin: str) -> None:
        _users(origin, 11)
        Group.objects.using(origin).create(name="kept")
        artifact = artifact_of(FixturesSource(max_rows=10), origin)

        content = read_all(artifact.open())

        assert rows_of(content, "auth.User") == []
        assert len(rows_of(content, "auth.Group")) == 1
        assert "more than 10 rows" in artifact.facts()["left_out"]["auth.User"]
        assert "auth.User" not in artifact.facts()["models"]
        assert [str(warning) for warning in artifact.warnings()] == [
            "fixtures leave out auth.User: it has more than 10 rows; 11 rows are left out"
        ]
        assert artifact.facts()["left_out_rows"] == {"auth.User": 11}

    def test_a_model_of_just_max_rows_is_written(self, origin: str) -> None:
        _users(origin, 10)

        content = read_all(artifact_of(FixturesSource(max_rows=10), origin).open())

        assert len(rows_of(content, "auth.User")) == 10

    def test_rows_that_refer_to_what_is_left_out_are_left_out_too(self, origin: str) -> None:
        from tests.unit.sources.fixture_app.models import Loose, Receipt, Stub, Vault

        vaults = [Vault(content=str(number)) for number in range(4)]
        Vault.objects.using(origin).bulk_create(vaults)
        receipt = Receipt.objects.using(origin).create(vault_id=vaults[0].pk)
        Stub.objects.using(origin).create(receipt_id=receipt.pk)
        Loose.objects.using(origin).create(vault_id=vaults[0].pk)
        artifact = artifact_of(FixturesSource(max_rows=3), origin)

        content = read_all(artifact.open())

        left_out = artifact.facts()["left_out"]
        assert sorted(left_out) == ["fixture_app.Receipt", "fixture_app.Stub", "fixture_app.Vault"]
        assert "refers to fixture_app.Receipt" in left_out["fixture_app.Stub"]
        assert len(rows_of(content, "fixture_app.Loose")) == 1

    def test_rows_that_could_refer_to_it_but_do_not_are_kept(self, origin: str) -> None:
        from tests.unit.sources.fixture_app.models import Receipt, Vault

        Vault.objects.using(origin).bulk_create([Vault(content="") for _ in range(4)])
        Receipt.objects.using(origin).create(vault=None)
        artifact = artifact_of(FixturesSource(max_rows=3), origin)

        content = read_all(artifact.open())

        assert list(artifact.facts()["left_out"]) == ["fixture_app.Vault"]
        assert len(rows_of(content, "fixture_app.Receipt")) == 1

    def test_both_halves_of_a_cycle_are_left_out_when_one_must_be(self, origin: str) -> None:
        from tests.unit.sources.fixture_app.models import Chicken, Egg, Vault

        vaults = Vault.objects.using(origin).bulk_create([Vault(content="") for _ in range(4)])
        egg = Egg.objects.using(origin).create()
        chicken = Chicken.objects.using(origin).create(egg_id=egg.pk, vault_id=vaults[0].pk)
        Egg.objects.using(origin).update(chicken=chicken.pk)
        artifact = artifact_of(FixturesSource(max_rows=3), origin)

        content = read_all(artifact.open())

        assert {"fixture_app.Chicken", "fixture_app.Egg"} < set(artifact.facts()["left_out"])
        assert b"chicken" not in content

    def test_a_row_that_the_project_cannot_read_leaves_out_its_model_only(
        self, origin: str
    ) -> None:
        from tests.unit.sources.fixture_app.models import Vault

        rows = [Vault(content="open") for _ in range(5000)] + [Vault(content="locked")]
        Vault.objects.using(origin).bulk_create(rows, batch_size=500)
        _users(origin, 2)
        artifact = artifact_of(FixturesSource(), origin)

        content = read_all(artifact.open())

        reason = artifact.facts()["left_out"]["fixture_app.Vault"]
        assert "could not be read (RuntimeError)" in reason and "hunter2" not in reason
        assert rows_of(content, "fixture_app.Vault") == []
        assert len(rows_of(content, "auth.User")) == 2

    def test_a_missing_table_and_a_missing_column_leave_out_their_models_only(
        self, origin: str
    ) -> None:
        with connections[origin].cursor() as cursor:
            cursor.execute("DROP TABLE fixture_app_loose")
            cursor.execute("ALTER TABLE fixture_app_rate DROP COLUMN value")
        _users(origin, 2)
        artifact = artifact_of(FixturesSource(), origin)

        content = read_all(artifact.open())

        left_out = artifact.facts()["left_out"]
        assert sorted(left_out) == ["fixture_app.Loose", "fixture_app.Rate"]
        assert "fixture_app_loose" in left_out["fixture_app.Loose"]
        assert len(rows_of(content, "auth.User")) == 2

    def test_models_whose_tables_are_not_made_yet_are_one_sentence(self, origin: str) -> None:
        tables = ("egg", "chicken", "loose", "vault", "stub", "receipt")
        with connections[origin].cursor() as cursor:
            for table in tables:
                cursor.execute(f"DROP TABLE fixture_app_{table}{self.CASCADE}")
            cursor.execute("ALTER TABLE fixture_app_rate DROP COLUMN value")
        artifact = artifact_of(FixturesSource(), origin)

        read_all(artifact.open())

        absent, unreadable = sorted(map(str, artifact.warnings()), key=len, reverse=True)
        assert "(6; migrate makes them): fixture_app.Chicken, fixture_app.Egg" in absent
        assert absent.endswith(", …") and "fixture_app.Vault" not in absent
        assert "fixture_app.Rate" in unreadable
        facts = artifact.facts()
        assert facts["absent"] == [f"fixture_app.{t.title()}" for t in sorted(tables)]
        assert {*facts["absent"]} < {*facts["left_out"]}

    def test_a_model_larger_than_what_is_held_back_is_written_whole(
        self, origin: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mipyme_backup.sources.fixtures.export.HELD_BYTES", 1000)
        _users(origin, 2500)
        artifact = artifact_of(FixturesSource(), origin)

        content = read_all(artifact.open())

        written = {row["pk"] for row in rows_of(content, "auth.User")}
        assert written == numbers(origin, User)
        assert artifact.facts()["models"]["auth.User"] == 2500

    def test_a_model_too_large_to_hold_that_cannot_be_read_leaves_no_row(
        self, origin: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.unit.sources.fixture_app.models import Vault

        monkeypatch.setattr("mipyme_backup.sources.fixtures.export.HELD_BYTES", 1000)
        rows = [Vault(content="open") for _ in range(5000)] + [Vault(content="locked")]
        Vault.objects.using(origin).bulk_create(rows, batch_size=500)
        artifact = artifact_of(FixturesSource(), origin)

        content = read_all(artifact.open())

        assert list(artifact.facts()["left_out"]) == ["fixture_app.Vault"]
        assert rows_of(content, "fixture_app.Vault") == []

    def test_keys_that_are_numbers_of_permissions_travel_by_natural_key(self, origin: str) -> None:
        from tests.unit.sources.fixture_app.models import Grant, GrantLog

        permission = Permission.objects.using(origin).get(codename="add_user")
        Grant.objects.using(origin).create(permission=permission, note="x")
        GrantLog.objects.using(origin).create(grant_id=permission.pk)
        artifact = artifact_of(FixturesSource(), origin)

        (row,) = rows_of(read_all(artifact.open()), "fixture_app.Grant")

        assert "pk" not in row
        assert row["fields"] == {"permission": ["add_user", "auth", "user"], "note": "x"}
        assert "gives anew" in artifact.facts()["left_out"]["fixture_app.GrantLog"]

    def test_microseconds_are_kept(self, origin: str) -> None:
        User.objects.using(origin).create(username="x", last_login=MOMENT, date_joined=MOMENT)

        (row,) = rows_of(read_all(artifact_of(FixturesSource(), origin).open()), "auth.User")

        assert datetime.fromisoformat(row["fields"]["last_login"]) == MOMENT

    def test_the_number_of_queries_does_not_grow_with_the_rows(self, origin: str) -> None:
        counts = []
        for number in (1, 40):
            group = Group.objects.using(origin).create(name=f"group {number}")
            for user in _users(origin, number, start=number * 100):
                user.groups.add(group)
                user.user_permissions.set(Permission.objects.using(origin).all()[:5])
            counts.append(_queries_of(origin))

        assert counts[0] == counts[1]


class TestOnSQLite(LeavingOut):
    @pytest.fixture
    def origin(self, tmp_path: Path) -> Iterator[str]:
        with migrated("origin", sqlite_entry(tmp_path / "origin.sqlite3")) as alias:
            yield alias

    def test_decimals_in_json_stay_numbers(self, origin: str) -> None:
        from tests.unit.sources.fixture_app.models import Measured

        Measured.objects.using(origin).create(document={"length": 1.5, "at": MOMENT})

        content = read_all(artifact_of(FixturesSource(), origin).open())

        (row,) = rows_of(content, "fixture_app.Measured")
        assert float(row["fields"]["document"]["length"]) == 1.5

    def test_null_where_none_may_be_leaves_the_model_out(self, origin: str) -> None:
        with connections[origin].cursor() as cursor:
            cursor.execute("INSERT INTO fixture_app_measured (document) VALUES ('null')")
        artifact = artifact_of(FixturesSource(), origin)

        read_all(artifact.open())

        reason = artifact.facts()["left_out"]["fixture_app.Measured"]
        assert "document may not be null" in reason


class TestOnPostgreSQL(LeavingOut):
    CASCADE = " CASCADE"

    @pytest.fixture
    def origin(
        self, postgresql_server: PostgreSQLServer, postgresql_database: str
    ) -> Iterator[str]:
        with migrated("origin", postgresql_server.settings(postgresql_database)) as alias:
            yield alias

    def test_dates_and_decimals_that_python_or_loaddata_cannot_hold_leave_their_models_out(
        self, origin: str
    ) -> None:
        from tests.unit.sources.fixture_app.models import Egg

        Egg.objects.using(origin).bulk_create([Egg() for _ in range(3000)])
        with connections[origin].cursor() as cursor:
            cursor.execute("INSERT INTO fixture_app_egg (day) VALUES ('infinity')")
            cursor.execute("INSERT INTO fixture_app_rate (value) VALUES ('NaN')")
        _users(origin, 2)
        artifact = artifact_of(FixturesSource(), origin)

        content = read_all(artifact.open())

        assert sorted(artifact.facts()["left_out"]) == ["fixture_app.Egg", "fixture_app.Rate"]
        assert len(rows_of(content, "auth.User")) == 2

    def test_all_models_are_read_as_of_one_moment(self, origin: str) -> None:
        _users(origin, 3000)
        reader = artifact_of(FixturesSource(exclude=("auth.Group",)), origin).open()
        start = reader.read(10)
        _users(origin, 5, start=5000)
        content = start + read_all(reader)

        assert len(rows_of(content, "auth.User")) == 3000

    def test_a_lost_connection_is_an_error_and_not_a_reason_to_leave_out(
        self, origin: str, postgresql_server: PostgreSQLServer
    ) -> None:
        rows = [User(username=f"u{n}", password="x" * 100) for n in range(12000)]
        User.objects.using(origin).bulk_create(rows, batch_size=1000)
        reader = artifact_of(FixturesSource(max_rows=None), origin).open()
        reader.read(1)

        postgresql_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{connections[origin].settings_dict['NAME']}'"
        )

        with pytest.raises(SourceError, match="could not be read"):
            read_all(reader)

    def test_closing_early_ends_the_thread_and_its_connection(
        self, origin: str, postgresql_server: PostgreSQLServer
    ) -> None:
        rows = [User(username=f"u{n}", password="x" * 100) for n in range(12000)]
        User.objects.using(origin).bulk_create(rows, batch_size=1000)
        reader = artifact_of(FixturesSource(), origin).open()
        reader.read(1)

        reader.close()

        assert not [thread for thread in threading.enumerate() if thread.name == "fixtures"]
        (sessions,) = postgresql_server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            f" AND datname = '{connections[origin].settings_dict['NAME']}'"
        )
        assert sessions == (0,)
        with pytest.raises(SourceError, match="closed"):
            reader.read(1)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    with migrated("origin", sqlite_entry(tmp_path / "origin.sqlite3")) as alias:
        yield alias


def test_any_thread_may_read(small: str) -> None:
    _users(small, 3000)
    reader = artifact_of(FixturesSource(), small).open()
    parts: list[bytes] = []

    def read_a_bit() -> None:
        parts.append(reader.read(50_000))

    while not parts or parts[-1]:
        thread = threading.Thread(target=read_a_bit)
        thread.start()
        thread.join()
    reader.close()

    assert len(rows_of(b"".join(parts), "auth.User")) == 3000


def test_the_thread_stays_a_few_chunks_ahead_only(small: str) -> None:
    rows = [User(username=f"u{n}", password="x" * 100) for n in range(12_000)]
    User.objects.using(small).bulk_create(rows, batch_size=1000)
    source = FixturesSource()
    artifact = artifact_of(source, small)
    reader = artifact.open()
    reader.read(1)
    time.sleep(1)  # time enough to read it all

    ahead = artifact.facts()["models"].get("auth.User", 0)
    total = len(read_all(reader))

    assert total > 2_500_000
    assert ahead < 9_000


def test_what_reading_raises_reaches_the_reader(small: str) -> None:
    class Busy(LiveSnapshot):
        def reading(self) -> Any:
            raise SourceBusyError("somebody waits")

    (artifact,) = FixturesSource().artifacts(View(snapshots={"default": Busy("default", small)}))

    with pytest.raises(SourceBusyError, match="somebody waits"):
        read_all(artifact.open())


def test_default_exclusions_hold_no_rows(small: str) -> None:
    Session.objects.using(small).create(
        session_key="k", session_data="secret", expire_date=MOMENT + timedelta(days=1)
    )
    artifact = artifact_of(FixturesSource(), small)

    content = read_all(artifact.open())

    written = {json.loads(line)["model"] for line in content.splitlines()}
    assert written.isdisjoint({"sessions.session", "auth.permission", "contenttypes.contenttype"})
    assert "sessions.Session" in artifact.facts()["excluded"]
    assert "mipyme_backup" not in content.decode()


def test_excluding_a_model_excludes_its_own_links_without_a_warning(small: str) -> None:
    group = Group.objects.using(small).create(name="g")
    for user in _users(small, 2):
        user.groups.add(group)
    artifact = artifact_of(FixturesSource(exclude=("auth.user", "contenttypes")), small)

    content = read_all(artifact.open())

    assert rows_of(content, "auth.User_groups") == []
    assert len(rows_of(content, "auth.Group")) == 1
    assert artifact.warnings() == []


@pytest.mark.parametrize("label", ["nothing", "auth.Nobody", "", ".", "auth.User.name"])
def test_a_label_that_names_nothing_is_refused(label: str) -> None:
    source = FixturesSource(exclude=(label,))

    with pytest.raises(ConfigurationError, match="no installed app or model"):
        source.preflight()


def test_default_exclusions_need_not_be_installed() -> None:
    apps = ["django.contrib.contenttypes", "django.contrib.auth"]
    with override_settings(INSTALLED_APPS=apps):
        assert list(FixturesSource().preflight()) == []


def test_options_of_the_wrong_shape_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"max_rows": "100"},
        {"max_rows": -1},
        {"max_rows": True},
        {"exclude": "auth.User"},
        {"aliases": "default"},
    ]
    for options in wrong:
        with pytest.raises(ConfigurationError):
            FixturesSource(**options)
    with pytest.raises(ConfigurationError, match="nowhere"):
        FixturesSource(aliases=["nowhere"]).preflight()


def test_every_open_snapshot_gets_its_artifact_and_the_default_one_comes_first(small: str) -> None:
    aliases = ["b.c", "a", "default"]
    view = View(snapshots={alias: LiveSnapshot(alias, small) for alias in aliases})

    names = [artifact.name for artifact in FixturesSource().artifacts(view)]
    some = [artifact.name for artifact in FixturesSource(aliases=["a"]).artifacts(view)]

    assert names == ["fixtures.jsonl", "fixtures.a.jsonl", "fixtures.b%2Ec.jsonl"]
    assert some == ["fixtures.a.jsonl"]


def test_routers_decide_what_another_database_holds(small: str) -> None:
    class GroupsElsewhere:
        def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
            return (hints.get("model_name") == "group") == (db == "origin")

    _users(small, 1)
    Group.objects.using(small).create(name="g")
    with override_settings(DATABASE_ROUTERS=[GroupsElsewhere()]):
        content = read_all(artifact_of(FixturesSource(), small, alias="origin").open())

    assert {json.loads(line)["model"] for line in content.splitlines()} == {"auth.group"}


def test_tables_that_another_database_never_had_are_no_warning(small: str) -> None:
    with connections[small].cursor() as cursor:
        cursor.execute("DROP TABLE fixture_app_loose")
    artifact = artifact_of(FixturesSource(), small, alias="origin")

    read_all(artifact.open())

    assert artifact.warnings() == []


def test_facts_begin_anew_when_the_artifact_is_opened_again(small: str) -> None:
    _users(small, 2)
    artifact = artifact_of(FixturesSource(), small)

    first = read_all(artifact.open())
    second = read_all(artifact.open())

    assert first == second
    assert artifact.facts()["models"]["auth.User"] == 2


def _users(alias: str, count: int, start: int = 0) -> list[User]:
    users = [User(username=f"user{number}", password="!") for number in range(start, start + count)]
    return User.objects.using(alias).bulk_create(users)


def _queries_of(alias: str) -> int:
    """Return how many queries the fixture of `alias` takes, whatever thread makes them."""
    made: list[str] = []

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        made.append(sql)
        return execute(sql, *rest)

    class Counting(LiveSnapshot):
        @contextlib.contextmanager
        def reading(self) -> Iterator[str]:
            with super().reading() as using, connections[using].execute_wrapper(count):
                yield using

    (artifact,) = FixturesSource().artifacts(
        View(snapshots={"default": Counting("default", alias)})
    )
    read_all(artifact.open())
    return len(made)
