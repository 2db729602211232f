"""The names of files come from every row that names one in the storage, and from no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import modify_settings
from pytest_django import DjangoDbBlocker

from mipyme_backup.sources.media.storages import kept_files, names_in
from tests.unit.sources.fixture_app.databases import migrated, sqlite_entry


def file_names(using: str) -> list[str]:
    """Return what rows name in the default storage."""
    (place,) = (place for place in kept_files() if place.key == "default")
    return [str(name) for name in names_in(place, using)]


@pytest.fixture
def origin(tmp_path: Path, settings: Any, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    from tests.settings import MEDIA_ROOT

    settings.MEDIA_ROOT = MEDIA_ROOT  # the fields' storages are made once, with this folder
    apps = {"append": "tests.unit.sources.fixture_app", "remove": "tests.zoo"}
    with modify_settings(INSTALLED_APPS=apps), django_db_blocker.unblock():
        with migrated("origin", sqlite_entry(tmp_path / "origin.sqlite3")) as alias:
            yield alias


def test_names_are_relative_to_the_storage_and_others_are_left_out(origin: str) -> None:
    from tests.unit.sources.fixture_app.models import Upload

    Upload.objects.using(origin).create(public="a/ñ.txt", private="b.txt", elsewhere="c.txt")
    Upload.objects.using(origin).create(public="", private="", elsewhere="")

    assert sorted(file_names(origin)) == ["a/ñ.txt", "private/papers/b.txt"]


def test_a_column_whose_migration_is_not_applied_names_nothing(origin: str) -> None:
    from tests.unit.sources.fixture_app.models import Upload

    Upload.objects.using(origin).create(public="a", private="b", elsewhere="c")
    with connections[origin].cursor() as cursor:
        cursor.execute("ALTER TABLE fixture_app_upload DROP COLUMN private")

    assert list(file_names(origin)) == ["a"]


def test_a_table_that_is_not_there_names_nothing(origin: str) -> None:
    with connections[origin].cursor() as cursor:
        cursor.execute("DROP TABLE fixture_app_upload")

    assert list(file_names(origin)) == []
