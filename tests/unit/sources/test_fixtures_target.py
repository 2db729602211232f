"""A fixture is merged into a live database: whole, by primary key, or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.test import modify_settings
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import DamagedError, RestoreError
from mipyme_backup.process import Reader
from mipyme_backup.sources.fixtures import FixturesSource, FixturesTarget
from tests.services import PostgreSQLServer
from tests.unit.sources.fixture_app.databases import (
    ROOT,
    artifact_of,
    contents,
    environment,
    known,
    migrated,
    numbers,
    read_all,
    sqlite_entry,
)

APP = "tests.unit.sources.fixture_app"


@pytest.fixture(autouse=True)
def _own_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with (
        modify_settings(INSTALLED_APPS={"append": APP, "remove": "tests.zoo"}),
        django_db_blocker.unblock(),
    ):
        yield


class Merging:
    """The same on every engine."""

    @pytest.fixture
    def entry(self) -> dict[str, Any]:
        """The ``DATABASES`` entry of an empty database."""
        raise NotImplementedError

    @pytest.fixture
    def live(self, entry: dict[str, Any]) -> Iterator[str]:
        with migrated("live", entry) as alias:
            users = [User(username=f"user{number}", password="!") for number in range(5)]
            User.objects.using(alias).bulk_create(users)
            group = Group.objects.using(alias).create(name="editors")
            for user in users:
                user.groups.add(group)
            group.permissions.set(Permission.objects.using(alias).all()[:3])
            yield alias

    def test_the_same_database_is_unchanged_by_its_own_fixture(self, live: str) -> None:
        before = contents(live)

        _restore(live, _fixture(live))

        assert contents(live) == before

    def test_rows_are_put_back_and_those_added_since_stay(self, live: str) -> None:
        fixture = _fixture(live)
        User.objects.using(live).filter(username="user0").update(username="renamed")
        User.objects.using(live).filter(username="user1").delete()
        User.objects.using(live).create(username="added")

        _restore(live, fixture)

        names = set(User.objects.using(live).values_list("username", flat=True))
        assert names == {"user0", "user1", "user2", "user3", "user4", "added"}
        assert Group.objects.using(live).get().user_set.count() == 5

    def test_links_that_were_removed_and_made_again_do_not_clash(self, live: str) -> None:
        fixture = _fixture(live)
        before = contents(live)["auth.Group_permissions"]
        group = Group.objects.using(live).get()
        permissions = list(group.permissions.all())
        group.permissions.clear()
        group.permissions.set(permissions)
        assert contents(live)["auth.Group_permissions"] != before

        _restore(live, fixture)

        assert set(group.permissions.all()) == set(permissions)

    def test_new_rows_get_keys_of_their_own_afterwards(self, live: str) -> None:
        fixture = _fixture(live)
        with connections[live].cursor() as cursor:
            for table in ("auth_group_permissions", "auth_user_groups", "auth_user"):
                cursor.execute(f"DELETE FROM {table}")
            if connections[live].vendor == "postgresql":
                cursor.execute("ALTER SEQUENCE auth_user_id_seq RESTART")

        _restore(live, fixture)

        User.objects.using(live).create(username="next")
        assert len(numbers(live, User)) == 6

    def test_a_row_that_does_not_fit_changes_nothing_and_is_named(self, live: str) -> None:
        fixture = _fixture(live)
        User.objects.using(live).filter(username="user4").delete()
        User.objects.using(live).create(username="user4", first_name="another")
        User.objects.using(live).filter(username="user0").update(first_name="changed since")
        before = contents(live)

        with pytest.raises(RestoreError, match=r"nothing was changed: auth\.User \d+: .*sername"):
            _restore(live, fixture)

        assert contents(live) == before

    def test_a_reference_to_nothing_changes_nothing(self, live: str) -> None:
        from tests.unit.sources.fixture_app.models import Receipt

        line = {"model": "fixture_app.receipt", "pk": 1, "fields": {"vault": 99}}

        with pytest.raises(RestoreError, match="nothing was changed"):
            _restore(live, json.dumps(line).encode() + b"\n")

        assert not Receipt.objects.using(live).exists()

    def test_a_permission_that_is_gone_is_named(self, live: str) -> None:
        line = {
            "model": "auth.group_permissions",
            "pk": 1,
            "fields": {"group": 1, "permission": ["fly", "auth", "user"]},
        }

        with pytest.raises(RestoreError, match="Permission matching query does not exist"):
            _restore(live, json.dumps(line).encode() + b"\n")

    def test_content_types_of_the_database_that_was_live_before_are_forgotten(
        self, live: str
    ) -> None:
        types = ContentType.objects.db_manager(live)
        kind = types.create(app_label="gone", model="thing")
        fixture = _fixture(live)
        types.get_by_natural_key("gone", "thing")  # cached from now on
        with connections[live].cursor() as cursor:  # the number is another's in this database
            cursor.execute(
                "UPDATE django_content_type SET app_label = 'x' WHERE id = %s", [kind.pk]
            )

        _restore(live, fixture)

        things = types.filter(model="thing").order_by("app_label").values_list("app_label", "pk")
        assert [app for app, _pk in things] == ["gone", "x"]
        assert dict(things)["x"] == kind.pk

    def test_kill_9_at_the_end_of_the_merge_changes_nothing(
        self, entry: dict[str, Any], live: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "fixture"
        path.write_bytes(_fixture(live))
        User.objects.using(live).update(first_name="changed since")
        before = contents(live)
        connections[live].close()
        with _stalled(entry, path) as process:
            os.kill(process.pid, signal.SIGKILL)

        assert contents(live) == before
        _restore(live, path.read_bytes())
        assert not User.objects.using(live).filter(first_name="changed since").exists()


class TestOnSQLite(Merging):
    @pytest.fixture
    def entry(self, tmp_path: Path) -> dict[str, Any]:
        return sqlite_entry(tmp_path / "live.sqlite3")


class TestOnPostgreSQL(Merging):
    @pytest.fixture
    def entry(
        self, postgresql_server: PostgreSQLServer, postgresql_database: str
    ) -> dict[str, Any]:
        return postgresql_server.settings(postgresql_database)

    def test_a_connection_that_the_server_ended_is_replaced(
        self, live: str, postgresql_server: PostgreSQLServer
    ) -> None:
        fixture = _fixture(live)
        before = contents(live)
        User.objects.using(live).all().delete()
        target = _loaded(live, fixture)
        postgresql_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{connections[live].settings_dict['NAME']}'"
        )

        target.swap()

        assert contents(live) == before


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    with migrated("live", sqlite_entry(tmp_path / "live.sqlite3")) as alias:
        User.objects.using(alias).create(username="one")
        yield alias


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_fixture_that_was_cut_off_is_damaged(small: str, cut: int) -> None:
    fixture = _fixture(small)

    with pytest.raises(DamagedError):
        _loaded(small, fixture[:-cut])


@pytest.mark.parametrize(
    "line",
    [b"", b"garbage", b"[]", b"{}", b'"x"', b'{"model": 1, "fields": {}}', b"\xff", b"[" * 100_000],
)
def test_a_line_that_is_no_row_is_damage_and_is_numbered(small: str, line: bytes) -> None:
    fixture = _fixture(small)
    count = fixture.count(b"\n")

    with pytest.raises(DamagedError, match=f"Line {count + 1} of the fixture"):
        _loaded(small, fixture + line + b"\n")


@pytest.mark.parametrize(
    "row",
    [
        {"model": "shop.product", "pk": 1, "fields": {}},
        {"model": "auth.robot", "pk": 1, "fields": {}},
        {"model": "nonsense", "pk": 1, "fields": {}},
        {"model": "auth.group", "pk": 1, "fields": {"name": "x", "colour": "red"}},
    ],
)
def test_models_and_fields_that_the_code_lacks_stop_the_load(
    small: str, row: dict[str, Any]
) -> None:
    with pytest.raises(RestoreError, match=str(row["model"])) as stopped:
        _loaded(small, json.dumps(row).encode() + b"\n")

    assert "Deploy the version" in str(stopped.value.hint)


def test_loading_alone_changes_nothing(small: str) -> None:
    fixture = _fixture(small)
    User.objects.using(small).all().delete()

    _loaded(small, fixture)

    assert not User.objects.using(small).exists()


def test_rows_that_the_manifest_does_not_state_are_differences(small: str) -> None:
    target = _loaded(small, _fixture(small))
    facts = dict(artifact_facts(small))

    assert target.check(facts) == []
    more = {**facts, "models": {**facts["models"], "auth.User": 2}}
    assert [str(problem) for problem in target.check(more)] == [
        "The fixture holds 1 rows of auth.User, the manifest says 2."
    ]
    assert len(target.check({})) == len([n for n in facts["models"].values() if n])


def test_the_plan_says_that_rows_are_merged_and_stay(small: str) -> None:
    plan = " ".join(str(message) for message in FixturesTarget.prepare(alias=small).plan())

    assert "merged into the database live by primary key" in plan
    assert "rows that were added since stay" in plan
    assert "run migrate first" not in plan


def test_the_plan_names_missing_migrations(tmp_path: Path) -> None:
    with known("live", sqlite_entry(tmp_path / "empty.sqlite3")):
        target = FixturesTarget.prepare(alias="live")
        plan = " ".join(str(message) for message in target.plan())

        assert "migrations are not applied to live; run migrate first" in plan
        assert not target.has_live()


def test_rows_whose_tables_are_not_made_yet_stop_the_load(small: str, tmp_path: Path) -> None:
    fixture = _fixture(small)
    with known("other", sqlite_entry(tmp_path / "empty.sqlite3")):
        with pytest.raises(
            RestoreError, match=r"other lacks the tables of .*auth\.User"
        ) as stopped:
            FixturesTarget.prepare(alias="other").load(
                {"fixtures.other.jsonl": lambda: io.BytesIO(fixture)}
            )

    assert "migrate first" in str(stopped.value.hint)


def test_a_database_that_cannot_be_reached_stops_at_the_plan(tmp_path: Path) -> None:
    with known("live", sqlite_entry(tmp_path / "no folder" / "x.sqlite3")):
        with pytest.raises(RestoreError, match="cannot be read"):
            FixturesTarget.prepare(alias="live").plan()


def test_rows_make_the_database_live(small: str) -> None:
    assert FixturesTarget.prepare(alias=small).has_live()


def test_a_later_process_is_told_to_run_the_restore_again(small: str) -> None:
    target = _loaded(small, _fixture(small))
    later = FixturesTarget.from_state(json.loads(json.dumps(target.state)))

    with pytest.raises(RestoreError, match="cannot be merged") as stopped:
        later.swap()

    assert "Run the restore again" in str(stopped.value.hint)


def test_what_cannot_be_undone_says_what_to_do_instead(small: str) -> None:
    with pytest.raises(RestoreError) as stopped:
        FixturesTarget.prepare(alias=small).undo()

    assert "safety backup" in str(stopped.value.hint)


def test_an_alias_that_is_not_configured_is_refused() -> None:
    with pytest.raises(RestoreError, match="elsewhere"):
        FixturesTarget.prepare(alias="elsewhere")


def test_a_backup_without_this_fixture_is_refused(small: str) -> None:
    with pytest.raises(RestoreError, match="no fixture of the database live"):
        FixturesTarget.prepare(alias=small).load({"fixtures.jsonl": lambda: io.BytesIO(b"")})


class _Slow:
    """A `Reader` that gives a few bytes at a time, as a network may."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int, /) -> bytes:
        return self._content.read(min(size, 7))

    def close(self) -> None:
        self._content.close()


def artifact_facts(alias: str) -> Mapping[str, Any]:
    artifact = artifact_of(FixturesSource(), alias)
    read_all(artifact.open())
    return artifact.facts()


def _fixture(alias: str) -> bytes:
    return read_all(artifact_of(FixturesSource(), alias).open())


def _loaded(alias: str, content: bytes) -> FixturesTarget:
    target = FixturesTarget.prepare(alias=alias)
    openers: dict[str, Callable[[], Reader]] = {f"fixtures.{alias}.jsonl": lambda: _Slow(content)}
    target.load(openers)
    return target


def _restore(alias: str, content: bytes) -> None:
    assert _loaded(alias, content).swap() == 0.0


@contextlib.contextmanager
def _stalled(entry: dict[str, Any], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that has merged the fixture at `path` and not committed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.sources.fixture_app.merge_and_stall", str(path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(entry),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        yield process
    finally:
        process.kill()
        process.communicate()
