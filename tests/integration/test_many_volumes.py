"""More volumes than a manifest can list are refused before they are sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from mipyme_backup import api
from mipyme_backup.errors import BackupError
from mipyme_backup.operations import room
from mipyme_backup.operations.writing import Writer

SIZE = 65536
LIMIT = 4


@pytest.fixture(autouse=True)
def _little_room(backups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The true limit is some ten gigabytes of the smallest volumes: so the room is made small."""
    monkeypatch.setattr(room, "ROOM_BYTES", LIMIT * (room.ARTIFACT_BYTES + 2 * room.VOLUME_BYTES))
    Session.objects.create(
        session_key="noise", session_data=os.urandom(SIZE * 30).hex(), expire_date=timezone.now()
    )


def test_what_is_too_much_ends_when_that_is_certain_and_is_removed(
    backups: Path, settings: Any
) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "VOLUME_SIZE": SIZE}

    with pytest.raises(BackupError, match="more volumes than") as caught:
        api.backup(only=["database"])

    assert f"VOLUME_SIZE to {SIZE * 4}" in str(caught.value.hint)
    assert files(backups) == []


def test_a_smaller_volume_size_is_refused_before_anything_is_sent(
    backups: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.backup()
    before = files(backups)
    monkeypatch.setattr(Writer, "store", lambda *_args: pytest.fail("something was sent"))
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "VOLUME_SIZE": SIZE}

    with pytest.raises(BackupError, match="more volumes than"):
        api.backup()

    assert files(backups) == before


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
