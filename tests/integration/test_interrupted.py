"""What a run that died left behind is ended by the next one, and takes nothing that came since."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from django.contrib.auth.models import Group

from mipyme_backup import api
from mipyme_backup.errors import NoBackupError
from mipyme_backup.models import Restore
from mipyme_backup.operations import recovery
from mipyme_backup.operations import restore as restore_operation
from mipyme_backup.sources.media import MediaTarget
from mipyme_backup.sources.sqlite import SQLiteTarget
from tests.integration.conftest import LOCAL


class DiedError(BaseException):
    """In place of a power cut: nobody handles it."""


def die(*_arguments: Any, **_options: Any) -> NoReturn:
    raise DiedError


@pytest.fixture
def picture(backups: Path) -> Path:
    return backups.with_name("media") / "picture"


def journal(backups: Path) -> list[dict[str, Any]]:
    folder = backups.with_name("state") / "restores"
    return [json.loads(file.read_text()) for file in folder.glob("*.json")]


def test_swap_that_never_began_is_rolled_back_for_the_site_went_on(
    backups: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = api.backup()
    monkeypatch.setattr(restore_operation, "swap_all", die)
    with pytest.raises(DiedError):
        api.restore(identifier=made.manifest.id)
    monkeypatch.undo()
    (entry,) = journal(backups)
    assert entry["phase"] == "swapping"
    Group.objects.create(name="order taken after the reboot")
    picture.write_text("since")

    api.backup()

    assert Group.objects.filter(name="order taken after the reboot").exists()
    assert picture.read_text() == "since"
    assert journal(backups) == []
    assert Restore.objects.get(restore_id=entry["id"]).status == "abandoned"


@pytest.mark.parametrize("dies", [MediaTarget, SQLiteTarget])
def test_swap_that_had_begun_is_finished(
    backups: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, dies: type[Any]
) -> None:
    made = api.backup()
    Group.objects.create(name="since")
    picture.write_text("since")
    original = dies.swap

    def swap_and_die(target: Any) -> NoReturn:
        original(target)
        raise DiedError

    monkeypatch.setattr(dies, "swap", swap_and_die)
    with pytest.raises(DiedError):
        api.restore(identifier=made.manifest.id)
    monkeypatch.undo()

    api.backup()

    assert not Group.objects.filter(name="since").exists()
    assert picture.read_text() == "before"
    assert [entry["phase"] for entry in journal(backups)] == ["done"]


def test_note_of_a_dead_run_does_not_remove_a_backup_of_the_same_name(backups: Path) -> None:
    made = api.backup(kind="monthly")
    notes = backups.with_name("state") / "runs"
    note = {"name": made.manifest.name, "destinations": ["local"], "packs": []}
    flags = {"committing": False, "committed": False}
    (notes / f"{'d' * 16}.json").write_text(json.dumps({**note, **flags}))

    api.backup()

    assert [*notes.iterdir()] == []
    (verified,) = api.verify(identifiers=[made.manifest.id], level="content")
    assert verified.problems == ()


def test_copy_that_was_being_committed_stays_and_the_others_are_completed(
    backups: Path, settings: Any
) -> None:
    def place(local: str, seconds: float) -> None:
        far = {"location": backups.with_name("far"), "seconds": seconds}
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "STATE_DIR": backups.with_name("state"),
            "DESTINATIONS": {
                "local": {"BACKEND": local, "OPTIONS": {"location": backups}},
                "far": {"BACKEND": "tests.faulty.FarAway", "OPTIONS": far},
            },
        }

    place("tests.faulty.Interrupted", seconds=2)
    with pytest.raises(KeyboardInterrupt):
        api.backup()
    (made,) = [listed.to_dict() for listed in api.backups()]

    place(LOCAL, seconds=0)
    api.backup()

    assert made["status"] == "partial"
    verified = api.verify(identifiers=[made["id"]], level="content")
    assert {v.destination: v.problems for v in verified} == {"local": (), "far": ()}
    assert [*backups.with_name("state").glob("runs/*")] == []


@pytest.mark.parametrize("committed", [True, False])
def test_backup_on_a_disk_that_was_away_is_not_taken_for_a_leftover(
    backups: Path, committed: bool
) -> None:
    made = api.backup()
    note = {"name": made.manifest.name, "destinations": ["local"], "packs": []}
    flags = {"committing": True, "committed": committed}
    file = backups.with_name("state") / "runs" / f"{made.manifest.id}.json"
    file.write_text(json.dumps({**note, **flags}))
    mounted, away = backups / made.manifest.name, backups.with_name("away")
    mounted.rename(away)

    api.backup(kind="daily")
    away.rename(mounted)
    api.backup(kind="daily")

    (verified,) = api.verify(identifiers=[made.manifest.id], level="content")
    assert verified.problems == ()
    assert not file.exists()


@pytest.mark.parametrize("finished_by", ["backup", pytest.param("undo", marks=pytest.mark.rare)])
@pytest.mark.parametrize(
    ("dies", "name", "when"),
    [
        (MediaTarget, "undo", "before"),
        (MediaTarget, "undo", "after"),
        (SQLiteTarget, "undo", "before"),
        (SQLiteTarget, "undo", "after"),
        (recovery, "_end", "before"),
        (recovery, "_end", "after"),
    ],
)
@pytest.mark.parametrize("had_media", [True, False])
def test_undo_is_finished_by_the_next_run(
    backups: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    dies: Any,
    name: str,
    when: str,
    had_media: bool,
    finished_by: str,
) -> None:
    """What replaced nothing stays, whoever goes on."""
    made = api.backup()
    Group.objects.create(name="since")
    if had_media:
        picture.write_text("since")
    else:
        picture.unlink()
    api.restore(identifier=made.manifest.id)
    original = getattr(dies, name)

    def and_die(*arguments: Any) -> NoReturn:
        if when == "after":
            original(*arguments)
        raise DiedError

    monkeypatch.setattr(dies, name, and_die)
    touched = had_media or dies is not MediaTarget
    with pytest.raises(DiedError) if touched else contextlib.nullcontext():
        api.undo_restore()
    monkeypatch.setattr(dies, name, original)

    if finished_by == "backup":
        api.backup()
    else:
        with pytest.raises(NoBackupError):
            api.undo_restore()

    assert Group.objects.filter(name="since").exists()
    assert picture.read_text() == ("since" if had_media else "before")
    assert [entry["phase"] for entry in journal(backups)] == ["undone"]
