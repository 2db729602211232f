"""System checks, by their ids: mistakes stop the project, the machine's state does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import celery
import pytest
from django.core import checks

from mipyme_backup.checks import check_deployment, check_settings
from mipyme_backup.destinations import LocalDestination

LOCAL = "mipyme_backup.destinations.LocalDestination"


def ids(found: list[checks.CheckMessage]) -> list[str | None]:
    return [message.id for message in found]


def local(location: object) -> dict[str, Any]:
    return {"DESTINATIONS": {"local": {"BACKEND": LOCAL, "OPTIONS": {"location": location}}}}


def test_defaults_are_fine(settings: Any) -> None:
    settings.MIPYME_BACKUP = {}

    assert check_settings() == []


def test_django_runs_them(settings: Any) -> None:
    settings.MIPYME_BACKUP = {"TYPO": 1}

    assert "mipyme_backup.E001" in ids(checks.run_checks())
    assert "mipyme_backup.E001" in ids(checks.run_checks(tags=["mipyme_backup"]))


@pytest.mark.parametrize(
    "value", [{"TYPO": 1}, {"JOBS": 0}, None, {"RETENTION": {"daily": "x"}}, {"SOURCES": []}]
)
def test_malformed_settings_are_errors_with_their_text(value: object, settings: Any) -> None:
    settings.MIPYME_BACKUP = value

    (found,) = check_settings()

    assert found.id == "mipyme_backup.E001"
    assert found.level == checks.ERROR
    assert "MIPYME_BACKUP" in found.msg


def test_every_problem_is_told_at_once(settings: Any) -> None:
    settings.MIPYME_BACKUP = {"TYPO": 1, "JOBS": 0}

    assert ids(check_settings()) == ["mipyme_backup.E001", "mipyme_backup.E001"]


def test_a_missing_base_dir_is_an_error_with_the_remedy(settings: Any) -> None:
    settings.MIPYME_BACKUP = {}
    del settings.BASE_DIR

    (found,) = check_settings()

    assert found.id == "mipyme_backup.E001"
    assert found.hint == "Set MIPYME_BACKUP['DESTINATIONS']."
    assert check_deployment() == []


@pytest.mark.parametrize("location", [None, 7, b"/bytes"])
def test_a_destination_without_a_place_is_no_traceback(location: object, settings: Any) -> None:
    settings.MIPYME_BACKUP = local(location)

    assert ids(check_settings()) == ["mipyme_backup.E001"]
    assert check_deployment() == []


class Tape(LocalDestination):
    """A back end that calls the number of a tape its location."""

    def __init__(self, *, location: int) -> None:
        super().__init__(location=f"/dev/st{location}")


def test_an_odd_location_of_a_foreign_back_end_is_its_own_affair(
    settings: Any, tmp_path: Path
) -> None:
    tape = {"BACKEND": f"{__name__}.Tape", "OPTIONS": {"location": 7}}
    settings.MIPYME_BACKUP = {"DESTINATIONS": {"tape": tape}, "STATE_DIR": str(tmp_path)}

    assert check_settings() == []


@pytest.mark.parametrize("key", ["MEDIA_ROOT", "STATIC_ROOT"])
@pytest.mark.parametrize("below", [".", "backups", "a/b/c"])
def test_backups_in_public_files_are_an_error(
    key: str, below: str, settings: Any, tmp_path: Path
) -> None:
    setattr(settings, key, str(tmp_path / "public"))
    settings.MIPYME_BACKUP = local(tmp_path / "public" / below)

    (found,) = check_settings()

    assert found.id == "mipyme_backup.E002"
    assert found.level == checks.ERROR
    assert key in found.msg
    assert found.hint


def test_links_are_resolved_on_both_sides(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "also_public").symlink_to(tmp_path / "public")
    (tmp_path / "backups").symlink_to(tmp_path / "public" / "hidden")
    settings.MEDIA_ROOT = tmp_path / "also_public"
    settings.MIPYME_BACKUP = local(str(tmp_path / "backups"))

    assert ids(check_settings()) == ["mipyme_backup.E002"]


def test_a_name_that_only_begins_alike_is_fine(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    settings.MIPYME_BACKUP = local(tmp_path / "media_backups")

    assert check_settings() == []


def test_without_public_files_nothing_lies_in_them(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = ""
    settings.STATIC_ROOT = None
    settings.MIPYME_BACKUP = local(tmp_path)

    assert check_settings() == []


def test_state_in_public_files_is_an_error_too(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    settings.MIPYME_BACKUP = {
        **local(tmp_path / "backups"),
        "STATE_DIR": str(tmp_path / "media" / "state"),
    }

    (found,) = check_settings()

    assert found.id == "mipyme_backup.E002"
    assert "STATE_DIR" in found.msg


def test_unencrypted_backups_are_a_warning_of_deployment_only(settings: Any) -> None:
    settings.MIPYME_BACKUP = {}

    assert "mipyme_backup.W001" in ids(checks.run_checks(include_deployment_checks=True))
    assert "mipyme_backup.W001" not in ids(checks.run_checks())


def test_a_machine_that_cannot_back_up_is_a_warning_of_deployment_only(
    settings: Any, tmp_path: Path
) -> None:
    settings.MIPYME_BACKUP = {
        "ENCRYPTION": {
            "BACKEND": "mipyme_backup.encryption.GPG",
            "OPTIONS": {"passphrase_file": tmp_path / "missing"},
        }
    }

    settings.ADMINS = [("Ana", "ana@example.org")]

    (found,) = check_deployment()

    assert check_settings() == []
    assert found.id == "mipyme_backup.W002"
    assert found.level == checks.WARNING
    assert str(tmp_path / "missing") in found.msg


@pytest.mark.parametrize(
    ("admins", "alerts", "warned"),
    [
        ([], {}, True),
        ([("Ana", "ana@example.org")], {}, False),
        ([("Ana", "ana@example.org")], {"recipients": []}, True),
        ([], {"recipients": ["ana@example.org"]}, False),
        ([], {"webhooks": ["https://example.org/hook"]}, False),
        ([], {"heartbeat_url": "https://example.org/ping"}, True),
    ],
)
def test_alerts_that_nobody_gets_are_a_warning_of_deployment_only(
    admins: list[Any], alerts: dict[str, Any], warned: bool, settings: Any
) -> None:
    settings.ADMINS, settings.MIPYME_BACKUP = admins, {"ALERTS": alerts}

    assert ("mipyme_backup.W003" in ids(check_deployment())) is warned
    assert "mipyme_backup.W003" not in ids(checks.run_checks())


@pytest.mark.parametrize(
    ("accepted", "warned"),
    [
        (None, False),
        (["json"], False),
        (["json", "pickle"], True),
        (["application/x-python-serialize"], True),
    ],
)
def test_workers_that_unpickle_are_a_warning_of_deployment_only(
    accepted: list[str] | None, warned: bool, settings: Any, tmp_path: Path
) -> None:
    settings.MIPYME_BACKUP = local(tmp_path)
    before = celery.current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        with celery.Celery("tests", broker="memory://", set_as_current=True) as app:
            if accepted is not None:
                app.conf.accept_content = accepted

            assert ("mipyme_backup.W005" in ids(check_deployment())) is warned
            assert "mipyme_backup.W005" not in ids(checks.run_checks())
    finally:
        before.set_current()


def test_malformed_settings_are_told_once(settings: Any) -> None:
    settings.MIPYME_BACKUP = {"TYPO": 1}

    assert check_deployment() == []


S3 = "storages.backends.s3.S3Storage"
FILES = "django.core.files.storage.FileSystemStorage"


def stored_in(alias: str, media: str = "default") -> dict[str, Any]:
    return {
        "DESTINATIONS": {
            "offsite": {
                "BACKEND": "mipyme_backup.destinations.StorageDestination",
                "OPTIONS": {"storage": alias},
            }
        },
        "SOURCES": {
            "media": {
                "BACKEND": "mipyme_backup.sources.MediaSource",
                "OPTIONS": {"storage": media},
            }
        },
    }


def storage(settings: Any, alias: str, backend: str, **options: object) -> None:
    settings.STORAGES = {**settings.STORAGES, alias: {"BACKEND": backend, "OPTIONS": options}}


class TestBackupsInTheMediaStorage:
    def test_the_same_alias_is_an_error(self, settings: Any) -> None:
        storage(settings, "default", S3, bucket_name="shop")
        settings.MIPYME_BACKUP = stored_in("default")

        (found,) = check_settings()

        assert (found.id, found.level) == ("mipyme_backup.E003", checks.ERROR)
        assert "offsite" in found.msg and "'default'" in found.msg
        assert found.hint

    @pytest.mark.parametrize(
        ("location", "expected"), [("media", ["mipyme_backup.E003"]), ("backups", [])]
    )
    def test_another_alias_is_one_where_it_means_the_same_place(
        self, settings: Any, location: str, expected: list[str]
    ) -> None:
        storage(settings, "default", S3, bucket_name="shop", location="media/")
        storage(settings, "offsite", S3, bucket_name="shop", location=location, access_key="b")
        settings.MIPYME_BACKUP = stored_in("offsite")

        assert ids(check_settings()) == expected

    def test_a_folder_inside_the_media_folder_is_one(self, settings: Any, tmp_path: Path) -> None:
        storage(settings, "uploads", FILES, location=tmp_path / "uploads")
        storage(settings, "offsite", FILES, location=tmp_path / "uploads" / "backups")
        settings.MIPYME_BACKUP = stored_in("offsite", media="uploads")

        assert ids(check_settings()) == ["mipyme_backup.E003"]

    def test_a_local_destination_inside_the_media_folder_is_one(
        self, settings: Any, tmp_path: Path
    ) -> None:
        storage(settings, "uploads", FILES, location=tmp_path / "uploads")
        settings.MIPYME_BACKUP = {
            **stored_in("offsite", media="uploads"),
            **local(tmp_path / "uploads"),
        }

        assert ids(check_settings()) == ["mipyme_backup.E003"]

    def test_any_storage_that_is_saved_counts(self, settings: Any) -> None:
        storage(settings, "offsite", S3, bucket_name="shop")
        media: dict[str, Any] = {"BACKEND": "mipyme_backup.sources.MediaSource"}
        settings.MIPYME_BACKUP = {**stored_in("offsite"), "SOURCES": {"media": media}}
        assert ids(check_settings()) == []

        media["OPTIONS"] = {"storages": ["default", "offsite"]}

        assert ids(check_settings()) == ["mipyme_backup.E003"]

    def test_a_local_destination_in_a_folder_that_is_saved_is_one(
        self, settings: Any, tmp_path: Path
    ) -> None:
        settings.MIPYME_BACKUP = {
            **local(tmp_path / "etc" / "backups"),
            "SOURCES": {
                "etc": {
                    "BACKEND": "mipyme_backup.sources.FolderSource",
                    "OPTIONS": {"folder": tmp_path / "etc"},
                }
            },
        }

        assert ids(check_settings()) == ["mipyme_backup.E003"]

    def test_a_storage_in_public_files_is_told_once(self, settings: Any) -> None:
        settings.MIPYME_BACKUP = stored_in("default")

        assert ids(check_settings()) == ["mipyme_backup.E002"]

    def test_a_storage_of_its_own_is_fine(self, settings: Any, tmp_path: Path) -> None:
        storage(settings, "offsite", FILES, location=tmp_path / "backups")
        settings.MIPYME_BACKUP = stored_in("offsite")

        assert check_settings() == []

    @pytest.mark.parametrize("alias", ["nowhere", "broken"])
    def test_a_storage_that_cannot_be_made_is_no_traceback(self, settings: Any, alias: str) -> None:
        storage(settings, "broken", "no.such.Storage")
        settings.MIPYME_BACKUP = stored_in(alias)

        assert check_settings() == []


@pytest.mark.parametrize(
    ("module", "given", "warned"),
    [
        ("config.settings", {}, True),
        ("mysite.settings.production", {}, True),
        ("settings", {}, True),
        ("MySite.settings", {}, True),
        ("tortilleria.settings", {}, False),
        ("config.settings", {"PROJECT": "config"}, False),
        ("config.settings", {"PROJECT": "tortilleria"}, False),
    ],
)
def test_default_name_that_many_have_is_a_warning_of_deployment_only(
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    given: dict[str, Any],
    warned: bool,
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", module)
    settings.MIPYME_BACKUP = given

    found = {message.id: message for message in check_deployment()}

    assert ("mipyme_backup.W006" in found) is warned
    assert "mipyme_backup.W006" not in ids(checks.run_checks())
    if warned:
        assert "PROJECT" in str(found["mipyme_backup.W006"].hint)
