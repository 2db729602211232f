"""Each place where file fields keep files is found: aliases, objects, callables, tenants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.storage import FileSystemStorage, InMemoryStorage, storages
from django.db import models
from django.test.utils import isolate_apps, override_settings

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.sources.media import MediaSource
from mipyme_backup.sources.media.storages import Kept, folder_of, kept_files, storage_called
from mipyme_backup.sources.media.tables import Anywhere, ExpectedFiles

FILES = "django.core.files.storage.FileSystemStorage"
asked = threading.local()


class TenantStorage(FileSystemStorage):
    """Keeps the files of each tenant in a folder of its own, as the tenant of the moment."""

    @property
    def base_location(self) -> str:
        from django.conf import settings

        return str(Path(settings.MEDIA_ROOT) / asked.tenant)

    @property
    def location(self) -> str:
        return self.base_location


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    aliases = {
        "default": {"BACKEND": FILES},
        "private": {"BACKEND": FILES, "OPTIONS": {"location": tmp_path / "private"}},
        "thumbnails": {"BACKEND": FILES, "OPTIONS": {"location": tmp_path / "media" / "thumbs"}},
        "unused": {"BACKEND": FILES, "OPTIONS": {"location": tmp_path / "unused"}},
        "broken": {"BACKEND": "nowhere.Storage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    with (
        isolate_apps("tests.zoo"),
        override_settings(MEDIA_ROOT=str(tmp_path / "media"), STORAGES=aliases),
    ):
        yield tmp_path


def model(**fields: models.FileField) -> type[models.Model]:
    attributes = {**fields, "Meta": type("Meta", (), {"app_label": "zoo"}), "__module__": __name__}
    return type("Paper", (models.Model,), attributes)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a model be the only one that is installed."""
    from mipyme_backup.sources.media import storages as module

    def install(installed: type[models.Model]) -> None:
        registry = type("Apps", (), {"get_models": lambda _self, **_options: [installed]})()
        monkeypatch.setattr(module, "apps", registry)

    return install


def kept(names: list[str] | None = None) -> dict[str, Kept]:
    return {place.key: place for place in kept_files(names)}


def prefixes(place: Kept) -> dict[str, str]:
    return {field.name: prefix for field, prefix in place.fields.items()}


def test_alias_object_and_callable(folder: Path, only: Any) -> None:
    own = FileSystemStorage(location=folder / "own")
    only(
        model(
            plain=models.FileField(),
            hidden=models.FileField(storage=storages["private"]),
            called=models.FileField(storage=lambda: storages["private"]),
            scan=models.FileField(storage=own),
            image=models.ImageField(storage=FileSystemStorage(location=folder / "own")),
        )
    )

    found = kept()

    assert [*found] == ["default", "private", "zoo.Paper.scan"]
    assert prefixes(found["default"]) == {"plain": ""}
    assert prefixes(found["private"]) == {"hidden": "", "called": ""}
    assert prefixes(found["zoo.Paper.scan"]) == {"scan": "", "image": ""}
    assert found["zoo.Paper.scan"].folder == folder / "own"
    assert MediaSource().aliases == {"default", "private"}
    assert MediaSource(exclude=["private"]).aliases == {"default"}
    names = [source.name for source in MediaSource().split()]
    assert names == ["media", "media:private", "media:zoo.Paper.scan"]


def test_folder_in_another_one_is_part_of_it(folder: Path, only: Any) -> None:
    only(
        model(
            small=models.FileField(storage=storages["thumbnails"]),
            tiny=models.FileField(
                storage=FileSystemStorage(location=folder / "media" / "thumbs" / "tiny")
            ),
        )
    )

    (place,) = kept_files()

    assert prefixes(place) == {"small": "thumbs/", "tiny": "thumbs/tiny/"}
    assert place.aliases == {"default": "", "thumbnails": "thumbs"}


def test_folder_around_the_default_one_takes_it_in(folder: Path, only: Any) -> None:
    only(model(outer=models.FileField(storage=FileSystemStorage(location=folder))))

    (place,) = kept_files()

    assert place.key == "zoo.Paper.outer"
    assert place.aliases == {"default": "media"}


def test_two_names_of_one_folder_are_one(folder: Path, only: Any) -> None:
    (folder / "private").mkdir()
    (folder / "link").symlink_to(folder / "private")
    only(
        model(
            one=models.FileField(storage=storages["private"]),
            two=models.FileField(storage=FileSystemStorage(location=folder / "link")),
        )
    )

    assert [*kept()] == ["default", "private"]


def test_storage_of_a_tenant_is_saved_from_the_root_of_all(folder: Path, only: Any) -> None:
    only(model(contract=models.FileField(storage=TenantStorage())))

    for tenant in ("north", "south"):
        asked.tenant = tenant
        (place,) = kept_files()
        assert place.folder == folder / "media"
        assert {field.name for field in place.in_context} == {"contract"}
    del asked.tenant
    assert folder_of(TenantStorage()) == folder / "media"


def test_unused_and_broken_aliases_are_left_alone(folder: Path, only: Any) -> None:
    only(model(plain=models.FileField()))

    assert [*kept()] == ["default"]
    assert [*kept(["unused"])] == ["unused"]
    with pytest.raises(ConfigurationError, match="cannot be used"):
        kept(["broken"])["broken"].remote  # noqa: B018
    with pytest.raises(ConfigurationError, match="does not have"):
        storage_called("nothing")


def test_field_by_its_name(folder: Path, only: Any) -> None:
    own = InMemoryStorage()
    only(model(scan=models.FileField(storage=own)))

    assert storage_called("zoo.Paper.scan") is own
    assert kept()["zoo.Paper.scan"].remote


def test_no_media_root_is_no_folder(folder: Path, only: Any) -> None:
    only(model(plain=models.FileField()))
    with override_settings(MEDIA_ROOT="", STORAGES={"default": {"BACKEND": FILES}}):
        assert kept()["default"].folder is None


class TestNamesWhoseFolderDependsOnContext:
    def expected(self) -> ExpectedFiles:
        names = [
            Anywhere("north", "a.pdf"),
            Anywhere("north", "a.pdf"),  # two rows that name one file
            Anywhere("south", "a.pdf"),
            Anywhere("south", "2024/b.pdf"),
        ]
        return ExpectedFiles(names, Path("/srv/media"))

    def test_as_many_must_turn_up_as_places_name(self) -> None:
        expected = self.expected()
        assert expected.missing == 3
        expected.found(b"north/a.pdf")
        assert [*expected.missing_names()] == [b"a.pdf", b"2024/b.pdf"]

    def test_end_of_a_path_is_made_of_whole_names(self) -> None:
        expected = self.expected()
        expected.found(b"south/other2024/b.pdf")
        expected.found(b"south/2024/b.pdf")
        expected.found(b"north/a.pdf")
        expected.found(b"south/a.pdf")
        expected.found(b"west/a.pdf")
        assert expected.missing == 0

    def test_what_is_expected_is_known_by_its_end(self) -> None:
        expected = self.expected()
        assert b"north/a.pdf" in expected
        assert b"north/ba.pdf" not in expected


def test_default_storage_that_cannot_be_made_is_told_when_it_is_saved(
    folder: Path, only: Any
) -> None:
    """Everything else works without: a restore of the database, the status."""
    only(model(plain=models.FileField(), hidden=models.FileField(storage=storages["private"])))
    with override_settings(
        STORAGES={**settings.STORAGES, "default": {"BACKEND": "nowhere.Storage"}}
    ):
        default, private = MediaSource().split()

        assert (default.name, private.name) == ("media", "media:private")
        assert [*private.preflight()] == []
        with pytest.raises(ConfigurationError, match="cannot be used"):
            list(default.preflight())
