"""A pin is seen wherever the backup is, and outlives the catalog."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from mipyme_backup import api
from mipyme_backup.errors import LockedError, NoBackupError
from mipyme_backup.models import Backup
from tests.integration.conftest import LOCAL
from tests.integration.test_api import _held

ADD_ONLY = "tests.faulty.AddOnly"


@pytest.fixture
def places(backups: Path, settings: Any) -> dict[str, Any]:
    """The destinations of the settings, to be changed: the local folder and one elsewhere."""
    places = {
        "local": {"BACKEND": LOCAL, "OPTIONS": {"location": backups}},
        "other": {"BACKEND": LOCAL, "OPTIONS": {"location": backups.with_name("other")}},
    }
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "DESTINATIONS": places}
    return places


def pinned(**options: Any) -> bool:
    (row,) = api.backups(**options)
    return bool(row.to_dict()["pinned"])


def test_pin_is_set_and_taken_away(places: dict[str, Any]) -> None:
    made = api.backup(only=["media"])

    result = api.pin(identifier=made.manifest.id[:6])
    while_pinned = (pinned(), pinned(destination="local"), pinned(destination="other"))
    removed = api.pin(identifier=made.manifest.name, pinned=False)

    assert result.to_dict() == {
        "id": made.manifest.id,
        "name": made.manifest.name,
        "pinned": True,
        "copies": [{"destination": name, "error": None} for name in ("local", "other")],
    }
    assert while_pinned == (True, True, True)
    assert not removed.pinned
    assert not any((pinned(), pinned(destination="local"), pinned(destination="other")))


def test_pinned_backup_is_as_good_as_before(places: dict[str, Any]) -> None:
    made = api.backup()

    api.pin(identifier=made.manifest.id)

    verified = api.verify(identifiers=[made.manifest.id], level="content")
    assert {result.destination: result.problems for result in verified} == {
        "local": (),
        "other": (),
    }


def test_pin_outlives_the_catalog_and_the_state(places: dict[str, Any], backups: Path) -> None:
    made = api.backup(only=["media"])
    api.pin(identifier=made.manifest.id)

    Backup.objects.all().delete()
    shutil.rmtree(backups.with_name("state"))

    assert pinned(sync=True)


def test_sync_brings_back_no_pin_that_was_taken_away(places: dict[str, Any], backups: Path) -> None:
    places["other"]["BACKEND"] = ADD_ONLY
    made = api.backup(only=["media"])
    api.pin(identifier=made.manifest.id)

    removed = api.pin(identifier=made.manifest.id, pinned=False)

    assert not removed.failed  # an empty file is no pin
    assert (backups.with_name("other") / made.manifest.name / "pinned").read_bytes() == b""
    assert not pinned(sync=True)
    Backup.objects.all().delete()
    assert not pinned(sync=True)


def test_destination_that_is_away_is_told_and_the_pin_stays(
    places: dict[str, Any], backups: Path
) -> None:
    made = api.backup(only=["media"])
    api.pin(identifier=made.manifest.id)
    place = backups.with_name("other") / made.manifest.name
    (place / "pinned").unlink()
    (place / "pinned").mkdir()  # a folder cannot be removed as a file

    with pytest.raises(CommandError) as caught:
        call_command("pin_backup", made.manifest.id, remove=True)

    assert caught.value.returncode == 3
    assert pinned()
    (place / "pinned").rmdir()
    assert not api.pin(identifier=made.manifest.id, pinned=False).pinned
    assert not pinned()


def test_unknown_backup_and_held_lock_are_refused(places: dict[str, Any], backups: Path) -> None:
    made = api.backup(only=["media"])

    with pytest.raises(NoBackupError):
        api.pin(identifier="nothing")
    with _held(backups, "backup"), pytest.raises(LockedError):
        api.pin(identifier=made.manifest.id)


def test_command_prints_json_and_the_list_shows_it(
    places: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = api.backup(only=["media"])

    call_command("pin_backup", made.manifest.id, "--json")
    printed = json.loads(capsys.readouterr().out)
    call_command("pin_backup", made.manifest.id)
    call_command("list_backups")
    said = capsys.readouterr().out

    assert printed["pinned"] is True
    assert f"{made.manifest.name} is pinned." in said
    assert "complete pinned" in " ".join(said.split())
