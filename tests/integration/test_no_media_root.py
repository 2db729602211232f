"""Settings that name no place for media: there is none to save, unless rows say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group

from mipyme_backup import api
from mipyme_backup.errors import NoBackupError, StateError
from mipyme_backup.sources.media.source import MediaSource
from mipyme_backup.sources.media.target import MediaTarget
from tests.zoo.models import Document


@pytest.fixture(autouse=True)
def _no_place(backups: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = ""


def names(result: api.BackupResult) -> list[str]:
    return [source.name for source in result.manifest.sources]


def test_nothing_is_saved_and_nothing_is_missed() -> None:
    made = api.backup()
    Group.objects.all().delete()

    restored = api.restore(latest=True)

    assert "media" not in names(made) and made.manifest.whole
    assert restored.status == "complete" and restored.left_out == ()
    assert Group.objects.filter(name="before").exists()
    assert api.undo_restore().status == "undone"
    assert not Group.objects.exists()


def test_files_that_rows_name_are_told() -> None:
    """Django keeps such uploads in the working directory of each process."""
    Document.objects.create(file="uploaded.pdf")

    made = api.backup()

    assert "media" in names(made)
    assert any("uploaded.pdf" in warning for warning in made.manifest.warnings)


def test_media_alone_that_was_asked_for() -> None:
    made = api.backup(only=["media"])

    assert names(made) == ["media"]
    with pytest.raises(NoBackupError, match="nothing that could be restored"):
        api.restore(identifier=made.manifest.id, only=["media"])


def test_place_that_comes_is_saved_from_then_on(settings: Any, workdir: Path) -> None:
    before = api.backup()
    settings.MEDIA_ROOT = str(workdir / "media")

    after = api.backup()
    (workdir / "media/picture").unlink()
    api.restore(identifier=before.manifest.id)

    assert "media" not in names(before) and "media" in names(after)
    assert not (workdir / "media/picture").exists()
    assert api.restore(identifier=after.manifest.id).left_out == ()
    assert (workdir / "media/picture").read_text() == "before"


def test_whatever_is_left_out_is_said(settings: Any, workdir: Path) -> None:
    settings.MEDIA_ROOT = str(workdir / "media")
    api.backup()

    assert api.restore(latest=True, plan=True).left_out == ()
    for asked, left in (
        ({"only": ["database"]}, "media"),
        ({"only": ["media"]}, "database:default"),
        ({"to_media": workdir / "elsewhere"}, "database:default"),
        ({"to_database": str(workdir / "elsewhere.sqlite3")}, "media"),
    ):
        planned = api.restore(latest=True, plan=True, **asked)
        assert planned.left_out == (left,), asked
        assert f"In this backup, but not restored: {left}" in [str(line) for line in planned.plan]
        done = api.restore(latest=True, **asked)
        assert done.to_dict()["left_out"] == [left]


def test_journal_that_names_a_place_is_not_believed(workdir: Path) -> None:
    """Without a place in the settings, any folder could be swapped."""
    planted = MediaTarget.prepare(location=workdir / "victim", restore_id="0" * 16)
    source = MediaSource().part("media")
    assert source is not None

    with pytest.raises(StateError, match="victim"):
        source.restored_target(planted.state, elsewhere=False)
