"""What a fixture holds comes back through plain ``loaddata``, row for row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.test import modify_settings
from pytest_django import DjangoDbBlocker

from mipyme_backup.sources.fixtures import FixturesSource
from tests.services import PostgreSQLServer
from tests.unit.sources.fixture_app.databases import (
    UNREADABLE,
    artifact_of,
    contents,
    known,
    manage,
    migrated,
    read_all,
    sqlite_entry,
)
from tests.zoo.models import Note
from tests.zoo.populate import populate

LOADDATA = ("loaddata", "--format=jsonl", "-")


@pytest.fixture(autouse=True)
def _own_databases(
    django_db_blocker: DjangoDbBlocker, settings: Any, tmp_path: Path
) -> Iterator[None]:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    with django_db_blocker.unblock():
        yield


def _fill(alias: str) -> None:
    """Fill the zoo, and give permissions: some of `migrate`, some made by hand."""
    populate(alias)
    gone = ContentType.objects.using(alias).create(app_label="gone", model="thing")
    by_hand = Permission.objects.using(alias).create(
        codename="launch", name="Can launch", content_type=gone
    )
    Note.objects.using(alias).create(content_type=gone, object_id="7", text="of a lost model")
    group = Group.objects.using(alias).get()
    group.permissions.set([by_hand, *Permission.objects.using(alias).order_by("codename")[:9]])
    user = User.objects.using(alias).order_by("pk")[0]
    user.user_permissions.set(Permission.objects.using(alias).filter(codename__contains="user"))


class RoundTrip:
    """The same on every engine."""

    @pytest.fixture
    def entries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The ``DATABASES`` entries of two empty databases."""
        raise NotImplementedError

    def test_every_row_comes_back_through_plain_loaddata(
        self, entries: tuple[dict[str, Any], dict[str, Any]]
    ) -> None:
        origin, empty = entries
        with migrated("origin", origin):
            _fill("origin")
            artifact = artifact_of(FixturesSource(), "origin")
            content = read_all(artifact.open())
            before = contents("origin")
            types = _numbers_of_types("origin")

        manage(empty, "migrate", "--verbosity=0")
        manage(empty, *LOADDATA, stdin=content)

        with known("loaded", empty):
            assert contents("loaded") == before
            assert _numbers_of_types("loaded") != types
        assert artifact.name == "fixtures.jsonl"
        unreadable = {label for label, rows in before.items() if rows == UNREADABLE}
        assert set(artifact.facts()["left_out"]) == unreadable
        assert len(artifact.warnings()) == len(unreadable)
        written = artifact.facts()["models"]
        assert sum(written.values()) == content.count(b"\n")
        assert written["zoo.Article"] == 300 and written["zoo.Article_tags"] == 400
        assert written["zoo.Empty"] == 0 and "zoo.Ledger" not in written


class TestOnSQLite(RoundTrip):
    @pytest.fixture
    def entries(self, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        return sqlite_entry(tmp_path / "origin.sqlite3"), sqlite_entry(tmp_path / "empty.sqlite3")


@pytest.mark.rare
class TestOnPostgreSQL(RoundTrip):
    @pytest.fixture
    def entries(
        self, postgresql_server: PostgreSQLServer, postgresql_database: str
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        other = f"{postgresql_database}_empty"
        postgresql_server.create_database(other)
        needed = ["django.contrib.postgres", "tests.zoo_postgresql"]
        with modify_settings(INSTALLED_APPS={"append": needed}):
            yield (
                postgresql_server.settings(postgresql_database),
                postgresql_server.settings(other),
            )
        postgresql_server.drop_database(other)


def _numbers_of_types(alias: str) -> dict[int, tuple[str, str]]:
    rows = ContentType.objects.using(alias).values_list("pk", "app_label", "model")
    return {pk: (app, model) for pk, app, model in rows}
