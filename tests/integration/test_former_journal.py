"""The journal of the version before: its restores are finished, rolled back and undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group

from mipyme_backup import api
from mipyme_backup.sources.media.folder_swap import FolderSwap
from mipyme_backup.sources.sqlite import SQLiteTarget

NEW_KEYS = ("source", "tag")
"""What the states of targets did not hold before."""


class KilledError(BaseException):
    """Ends a run as a kill does: no handler of an error sees it."""


@pytest.fixture
def saved(backups: Path) -> str:
    saved = api.backup()
    change("after")
    return saved.manifest.id


def change(name: str) -> None:
    Group.objects.all().update(name=name)
    picture().write_text(name)


def picture() -> Path:
    from django.conf import settings

    return Path(settings.MEDIA_ROOT) / "picture"


def live() -> tuple[str, str]:
    return Group.objects.get().name, picture().read_text()


def made_former(state: Path) -> str:
    """Take from the one record what the version before did not write; return its phase."""
    (file,) = (state / "restores").glob("*.json")
    record: dict[str, Any] = json.loads(file.read_text())
    for target in record["targets"]:
        for key in NEW_KEYS:
            target.pop(key, None)
    file.write_text(json.dumps(record))
    return str(record["phase"])


def killed_in(monkeypatch: pytest.MonkeyPatch, where: type, method: str, saved: str) -> None:
    def die(*_args: Any, **_options: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(where, method, die)
        with pytest.raises(KilledError):
            api.restore(identifier=saved)


def test_swap_that_was_interrupted_is_finished(
    saved: str, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_in(monkeypatch, FolderSwap, "swap", saved)
    assert made_former(backups.with_name("state")) == "swapping"

    api.backup()

    assert live() == ("before", "before")


def test_load_that_was_interrupted_is_rolled_back(
    saved: str, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mipyme_backup.operations.restore.roll_back", lambda *_args: True)
    killed_in(monkeypatch, SQLiteTarget, "check", saved)
    assert made_former(backups.with_name("state")) == "loading"
    assert [*backups.parent.glob("**/*restoring*")]

    api.backup()

    assert live() == ("after", "after")
    assert not [*backups.parent.glob("**/*restoring*")]


def test_restore_is_undone(saved: str, backups: Path) -> None:
    api.restore(identifier=saved)
    assert made_former(backups.with_name("state")) == "done"

    api.undo_restore()

    assert live() == ("after", "after")
