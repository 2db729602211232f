"""Any storage by Django's own interface: nothing that it says is taken on trust."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage

from mipyme_backup.destinations import StorageDestination
from mipyme_backup.errors import DeletionRefusedError, DestinationError
from mipyme_backup.testing import read_whole

SECRET = "AccountKey-s3cr3t-0123456789"


class Renaming(InMemoryStorage):
    def get_alternative_name(self, file_root: str, file_ext: str) -> str:
        return f"{file_root}_again{file_ext}"

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name.replace("object", "thing")


class Keeping(InMemoryStorage):
    """Swallows every delete, and writes over nothing."""

    def delete(self, name: str) -> None:
        return


class Forbidding(InMemoryStorage):
    def delete(self, name: str) -> None:
        raise PermissionError(13, "append-only")


class Shortening(InMemoryStorage):
    def _save(self, name: str, content: Any) -> str:
        return str(super()._save(name, ContentFile(content.read()[:-1])))  # type: ignore[misc]


class Broken(InMemoryStorage):
    account_key = ""
    error: Exception = RuntimeError(f"signed with {SECRET} at https://blob.example/x?sig={SECRET}")

    def __init__(self, account_key: str = "") -> None:
        super().__init__()
        self.account_key = account_key

    def exists(self, name: str) -> bool:
        raise self.error

    def listdir(self, path: str) -> Any:
        raise self.error


class Scrambling(FileSystemStorage):
    def _open(self, name: str, mode: str = "rb") -> Any:
        with super()._open(name, mode) as file:  # type: ignore[misc]
            return ContentFile(file.read()[::-1])

    def _save(self, name: str, content: Any) -> str:
        return str(super()._save(name, ContentFile(content.read()[::-1])))  # type: ignore[misc]


class WithoutListing(InMemoryStorage):
    def listdir(self, path: str) -> Any:
        raise NotImplementedError("no listing here")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "spooled"
    file.write_bytes(b"content")
    return file


def offsite(settings: Any, kind: type, **options: Any) -> StorageDestination:
    entry = {"BACKEND": f"{__name__}.{kind.__qualname__}", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "offsite": entry}
    return StorageDestination(storage="offsite")


def test_what_was_saved_under_another_name_is_removed_again(settings: Any, file: Path) -> None:
    destination = offsite(settings, Renaming)

    with pytest.raises(DestinationError, match="another name, backup/thing"):
        destination.put("backup/object", file)

    assert list(destination.entries()) == []


@pytest.mark.parametrize("kind", [Keeping, Forbidding])
def test_a_delete_that_did_nothing_is_no_delete(settings: Any, file: Path, kind: type) -> None:
    destination = offsite(settings, kind)
    destination.put("backup/object", file)

    with pytest.raises(DeletionRefusedError):
        destination.delete("backup/object")

    assert read_whole(destination.open("backup/object")) == b"content"


@pytest.mark.parametrize("kind", [Keeping, Forbidding])
def test_where_nothing_can_be_deleted_one_probe_stays(settings: Any, kind: type) -> None:
    destination = offsite(settings, kind)

    destination.check()
    destination.check()

    assert destination.may_delete is False
    assert list(destination.entries()) == []
    assert destination._access.storage.listdir("") == ([], [".mipyme_backup_probe"])


class Ahead(InMemoryStorage):
    def get_modified_time(self, name: str) -> datetime:
        return super().get_modified_time(name) + timedelta(hours=1)


class Timeless(InMemoryStorage):
    def get_modified_time(self, name: str) -> datetime:
        raise NotImplementedError


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("kind", [Ahead, Timeless])
def test_clock_of_a_storage(settings: Any, kind: type, use_tz: bool) -> None:
    settings.USE_TZ = use_tz
    destination = offsite(settings, kind)

    destination.probe()

    skew = destination.skew
    if kind is Timeless:
        assert skew is None
    else:
        assert skew is not None and abs(skew - timedelta(hours=1)) < timedelta(minutes=1)


def test_what_cannot_be_replaced_stays_as_it_was(settings: Any, file: Path) -> None:
    destination = offsite(settings, Keeping)
    destination.put("backup/object", file)
    file.write_bytes(b"other")

    with pytest.raises(DeletionRefusedError):
        destination.put("backup/object", file)

    assert read_whole(destination.open("backup/object")) == b"content"
    assert [entry.name for entry in destination.entries()] == ["backup/object"]


def test_what_was_stored_short_is_no_object(settings: Any, file: Path) -> None:
    destination = offsite(settings, Shortening)

    with pytest.raises(DestinationError, match="6 of the 7 bytes") as caught:
        destination.put("backup/object", file)

    assert not caught.value.permanent
    assert list(destination.entries()) == []


def test_an_error_of_its_library_may_pass_and_gives_no_secret_away(
    settings: Any, file: Path
) -> None:
    destination = offsite(settings, Broken, account_key=SECRET)

    for call in (
        lambda: destination.put("a", file),
        lambda: destination.open("a"),
        lambda: list(destination.entries()),
        lambda: destination.delete("a"),
    ):
        with pytest.raises(DestinationError, match="RuntimeError: signed with") as caught:
            call()
        assert not caught.value.permanent
        assert "s3cr3t" not in str(caught.value)


def test_a_storage_that_cannot_list_never_looks_empty(settings: Any) -> None:
    with pytest.raises(DestinationError, match="no listing here") as caught:
        list(offsite(settings, WithoutListing).entries())

    assert caught.value.permanent


def test_a_storage_of_files_is_not_remote(settings: Any, tmp_path: Path) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "files": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path},
        },
    }

    assert not StorageDestination(storage="files").remote
    assert offsite(settings, Keeping).remote


def test_files_that_a_storage_changes_are_changed_by_it(
    settings: Any, tmp_path: Path, file: Path
) -> None:
    destination = offsite(settings, Scrambling, location=tmp_path / "backups")

    destination.put("object", file)

    assert (tmp_path / "backups" / "object").read_bytes() == b"tnetnoc"
    assert read_whole(destination.open("object")) == b"content"
    assert not destination.remote
