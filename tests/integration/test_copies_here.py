"""Every copy on this server: told until one goes elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mipyme_backup import api

LOCAL = "mipyme_backup.destinations.LocalDestination"


@pytest.fixture(autouse=True)
def _is_set_up_well() -> None:
    """The rule is judged here."""


def add(settings: Any, **destinations: dict[str, Any]) -> None:
    given = settings.MIPYME_BACKUP
    known = given["DESTINATIONS"]
    settings.MIPYME_BACKUP = {**given, "DESTINATIONS": {**known, **destinations}}


def told() -> dict[str, str]:
    return {one.id: f"{one.message} {one.hint}" for one in api.status().findings}


def test_two_folders_of_one_server(backups: Path, settings: Any, workdir: Path) -> None:
    add(settings, second={"BACKEND": LOCAL, "OPTIONS": {"location": workdir / "second"}})
    api.backup()

    assert "offsite.md" in told()["copies_here"]


def test_a_storage_that_is_a_folder_here_is_no_other_place(
    backups: Path, settings: Any, workdir: Path
) -> None:
    storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(workdir / "third")},
    }
    settings.STORAGES = {**settings.STORAGES, "third": storage}
    destination = "mipyme_backup.destinations.StorageDestination"
    add(settings, third={"BACKEND": destination, "OPTIONS": {"storage": "third"}})
    api.backup()

    assert "copies_here" in told()


def test_another_machine_is(backups: Path, settings: Any) -> None:
    """Also while it is away: that is told by itself."""
    storage = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": "backups",
            "endpoint_url": "http://127.0.0.1:9",
            "region_name": "us-east-1",
            "access_key": "who",
            "secret_key": "what",
        },
    }
    settings.STORAGES = {**settings.STORAGES, "offsite": storage}
    destination = "mipyme_backup.destinations.StorageDestination"
    add(settings, offsite={"BACKEND": destination, "OPTIONS": {"storage": "offsite"}})

    found = told()

    assert "copies_here" not in found and "destination_unreachable:offsite" in found
