"""The Python API, called as a project's own code would call it."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Group
from django.dispatch import Signal
from django.utils import timezone

from mipyme_backup import api, signals
from mipyme_backup.errors import (
    BackupError,
    ConfigurationError,
    DestinationError,
    LockedError,
    NoBackupError,
    UsageError,
)
from mipyme_backup.messages import Message
from mipyme_backup.models import Backup
from tests.integration.conftest import LOCAL


class Recorder:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.advanced = 0

    def step(self, message: Message, total: int | None = None) -> None:
        self.steps.append(str(message))

    def advance(self, size: int) -> None:
        self.advanced += size


def test_backup_restore_and_undo(backups: Path) -> None:
    made = api.backup(label="by code")
    Group.objects.update(name="after")
    picture = backups.parent / "media" / "picture"
    picture.write_text("after")

    planned = api.restore(latest=True, plan=True)
    after_plan = (Group.objects.get().name, picture.read_text())
    restored = api.restore(identifier=made.manifest.id)
    after_restore = (Group.objects.get().name, picture.read_text())
    undone = api.undo_restore()
    after_undo = (Group.objects.get().name, picture.read_text())

    assert (planned.status, restored.status, undone.status) == ("planned", "complete", "undone")
    assert after_plan == ("after", "after")
    assert after_restore == ("before", "before")
    assert after_undo == ("after", "after")


def test_results_are_what_json_prints(backups: Path) -> None:
    made = api.backup()
    (listed,) = api.backups()
    (verified,) = api.verify(latest=True, level="content")
    planned = api.restore(latest=True, plan=True)

    for result in (made, listed, verified, planned):
        assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert listed.to_dict() == made.to_dict()
    assert verified.to_dict()["ok"] is True
    with pytest.raises(AttributeError):
        made.sha256 = "changed"  # type: ignore[misc]


def test_progress_is_told(backups: Path) -> None:
    saving, loading = Recorder(), Recorder()

    made = api.backup(progress=saving)
    api.restore(latest=True, progress=loading, safety_backup=False)

    assert "Saving media.index.jsonl" in saving.steps
    assert saving.advanced >= made.manifest.raw_size > 0
    assert "Cutting over" in loading.steps
    assert loading.advanced > 0


def test_verify_tells_what_is_damaged(backups: Path) -> None:
    made = api.backup()
    (volume,) = backups.glob("manual_*/fixtures*")
    volume.write_bytes(b"damaged")

    (verified,) = api.verify(identifiers=[made.manifest.name])

    assert not verified.to_dict()["ok"]
    assert volume.name in verified.problems[0]
    assert api.backups()[0].to_dict()["copies"][0]["status"] == "damaged"


def test_monthly_one_is_named_by_the_month_of_its_slot_in_the_projects_time_zone(
    backups: Path,
) -> None:
    slot = datetime(2025, 1, 31, 23, 30, tzinfo=UTC)  # February in Madrid

    made = api.backup(kind="monthly", slot=slot)
    again = api.backup(kind="monthly", slot=slot + timedelta(days=1))

    assert made.manifest.slot == slot
    assert made.manifest.name == "monthly/mipyme_backup_202502"
    assert again.manifest.name == "monthly/mipyme_backup_202502_2"


@pytest.mark.parametrize("kind", ["manual", "monthly"])
def test_another_host_takes_no_name_of_ours(kind: str, backups: Path, settings: Any) -> None:
    """Where two hosts share a catalog, or see each other's backups, in one and the same second."""
    slot = datetime(2025, 1, 31, 12, tzinfo=UTC)
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "STATE_DIR": backups.with_name("host1")}
    with time_machine.travel(slot, tick=False):
        first = api.backup(kind=kind, slot=slot).manifest
        for copy in backups.glob(f"{first.name}/*"):
            copy.rename(copy.with_suffix(".away"))
        same_catalog = api.backup(kind=kind, slot=slot - timedelta(days=1)).manifest
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "STATE_DIR": backups.with_name("host2")}
        Backup.objects.all().delete()
        same_folder = api.backup(kind=kind, slot=slot).manifest

    assert same_catalog.name == f"{first.name}_2"
    assert same_folder.name == f"{first.name}_{same_folder.id}"


def test_hosts_that_gave_the_same_number_take_names_of_their_own(
    backups: Path, settings: Any
) -> None:
    """Each made a backup while the other one made its own."""
    given = settings.MIPYME_BACKUP
    away: dict[str, Path] = {}
    for minute, host in enumerate(("host1", "host2")):
        settings.MIPYME_BACKUP = {**given, "STATE_DIR": backups.with_name(host)}
        with time_machine.travel(datetime(2025, 1, 31, 12, minute, tzinfo=UTC), tick=False):
            made = api.backup().manifest
        away[made.name] = (backups / made.name).rename(backups.with_name(host + " away"))
        Backup.objects.all().delete()
    for name, folder in away.items():
        folder.rename(backups / name)

    with time_machine.travel(datetime(2025, 1, 31, 13, tzinfo=UTC), tick=False):
        again = api.backup().manifest

    assert again.name == f"manual_20250131T130000Z_{again.id}"


def test_settings_are_read_on_each_call(backups: Path, settings: Any) -> None:
    api.backup(only=["media"])
    elsewhere = backups.with_name("elsewhere")
    changed = {"BACKEND": LOCAL, "OPTIONS": {"location": elsewhere}}
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "DESTINATIONS": {"new": changed}}

    made = api.backup(only=["media"])

    assert [*made.copies] == ["new"]
    assert (elsewhere / made.manifest.name / "manifest.json").exists()


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda: api.backup(kind="weekly"), "weekly"),
        (lambda: api.backup(only=["medias"]), "medias"),
        (lambda: api.backup(destinations=["nowhere"]), "nowhere"),
        (lambda: api.backup(label="two\nlines"), "one line"),
        (lambda: api.backup(label="x" * 201), "200"),
        (api.restore, "Say which"),
        (lambda: api.restore(latest=True, at=timezone.now()), "Say which"),
        (lambda: api.verify(destination="nowhere"), "nowhere"),
        (lambda: api.backups(destination="nowhere"), "nowhere"),
    ],
)
def test_what_has_no_meaning_is_a_usage_error(backups: Path, call: Any, wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()

    assert wrong in str(caught.value)
    assert caught.value.exit_status == 2
    assert not list(backups.glob("*/manifest.json"))


def test_arguments_are_named(backups: Path) -> None:
    with pytest.raises(TypeError):
        api.restore("a" * 16)  # type: ignore[call-arg]


def test_moment_before_every_backup_matches_none(backups: Path) -> None:
    api.backup(only=["media"])

    with pytest.raises(NoBackupError):
        api.restore(at=timezone.now() - timedelta(days=1), only=["media"], plan=True)


def test_wrong_settings_name_their_key(backups: Path, settings: Any) -> None:
    options = {"location": backups, "colour": "red"}
    wrong = {"local": {"BACKEND": LOCAL, "OPTIONS": options}}
    settings.MIPYME_BACKUP = {"DESTINATIONS": wrong}

    with pytest.raises(ConfigurationError, match=r"DESTINATIONS\.local.*colour"):
        api.backup()


class TestSignals:
    def test_success_is_told_with_the_result(self, backups: Path) -> None:
        with _heard(signals.backup_finished) as heard:
            made = api.backup(only=["media"])

        assert [event["result"] for event in heard] == [made]

    def test_failure_is_told_with_the_error(self, backups: Path) -> None:
        api.backup(only=["media"])
        backups.with_name("media").joinpath("new").write_text("new")
        (backups / "pool").rename(backups / "was pool")
        (backups / "pool").write_text("in the way")

        with _heard(signals.backup_failed) as heard, pytest.raises(BackupError) as caught:
            api.backup(only=["media"])

        assert [event["error"] for event in heard] == [caught.value]
        assert isinstance(caught.value, DestinationError)
        assert api.backups()[0].to_dict()["status"] == "failed"

    def test_restore_is_told_before_and_after(self, backups: Path) -> None:
        made = api.backup(only=["media"])

        with _heard(signals.pre_restore) as before, _heard(signals.post_restore) as after:
            restored = api.restore(identifier=made.manifest.id, only=["media"])

        for (event,) in (before, after):
            assert event["restore_id"] == restored.id
            assert event["backup_id"] == made.manifest.id

    def test_listener_that_fails_harms_nothing(self, backups: Path) -> None:
        def listener(**_event: Any) -> None:
            raise ValueError("not our problem")

        signals.backup_finished.connect(listener)
        try:
            made = api.backup(only=["media"])
        finally:
            signals.backup_finished.disconnect(listener)

        assert made.status == "complete"


class TestLock:
    def test_held_one_is_refused_with_its_holder(self, backups: Path) -> None:
        with _held(backups, "backup"), pytest.raises(LockedError) as caught:
            api.backup(only=["media"])

        assert "process 4711" in str(caught.value)
        assert caught.value.exit_status == 5

    def test_scheduled_run_waits_for_it(self, backups: Path) -> None:
        released: list[float] = []

        def hold() -> None:
            with _held(backups, "backup"):
                holding.set()
                time.sleep(1.2)
                released.append(time.monotonic())

        holding = threading.Event()
        holder = threading.Thread(target=hold)
        holder.start()
        holding.wait(60)

        made = api.backup(only=["media"], wait=True)
        ended = time.monotonic()
        holder.join()

        assert made.status == "complete"
        assert ended > released[0]


def test_preflight_writes_nothing(backups: Path) -> None:
    assert api.preflight() == []
    assert not backups.exists()


@contextmanager
def _heard(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    def listener(**event: Any) -> None:
        events.append(event)

    signal.connect(listener)
    try:
        yield events
    finally:
        signal.disconnect(listener)


@contextmanager
def _held(backups: Path, operation: str) -> Iterator[None]:
    """Hold the project's lock, as another process would."""
    state = backups.with_name("state")
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"pid": 4711, "operation": operation, "since": "2025-01-02"}, file)
        file.flush()
        yield
