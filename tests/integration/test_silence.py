"""Whether anything calls the schedule: judged by the last call, whoever made it."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import celery
import pytest
import time_machine
from django.core.management import call_command

from mipyme_backup import api
from mipyme_backup.operations import scheduled
from mipyme_backup.schedule import JOBS

MADRID = ZoneInfo("Europe/Madrid")
MORNING = datetime(2026, 7, 15, 9, 7, tzinfo=MADRID)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _is_set_up_well() -> None:
    """The rule is judged here."""


def silence_at(moment: datetime) -> str | None:
    """Return what a look at the moment says of the schedule; None where all is well with it."""
    with time_machine.travel(moment):
        found = {one.id: one for one in api.status().findings}
    silent = found.get("schedule_silent")
    return None if silent is None else str(silent.message)


def schedule(settings: Any, **expressions: str | None) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "SCHEDULE": expressions}


def test_project_that_was_never_scheduled(backups: Path) -> None:
    api.backup()

    assert "has never been called" in str(silence_at(MORNING))


def test_schedule_that_is_off_is_meant_so(backups: Path, settings: Any) -> None:
    schedule(settings, **dict.fromkeys(JOBS))

    assert silence_at(MORNING) is None


def test_calls_that_stop(backups: Path) -> None:
    with time_machine.travel(MORNING):
        call_command("schedule_backups", "run-due", verbosity=0)

    assert silence_at(MORNING + 15 * MINUTE) is None
    assert silence_at(datetime(2026, 7, 15, 10, 59, tzinfo=MADRID)) is None
    # The look of ten o'clock is an hour overdue.
    assert "for 1 h" in str(silence_at(MORNING + 2 * HOUR))


def test_what_is_called_once_a_day_for_a_daily_job_is_enough(backups: Path, settings: Any) -> None:
    off = {job: None for job in JOBS if job != "daily"}
    schedule(settings, daily="0 2 * * *", **off)
    with time_machine.travel(datetime(2026, 7, 15, 2, 10, tzinfo=MADRID)):
        list(api.run_due())

    assert silence_at(datetime(2026, 7, 16, 2, 10, tzinfo=MADRID)) is None
    assert silence_at(datetime(2026, 7, 16, 3, 10, tzinfo=MADRID)) is not None


def test_celery_beat_calls_it(backups: Path, broker: celery.Celery) -> None:
    from mipyme_backup import tasks

    with time_machine.travel(MORNING):
        tasks.run_due()

    assert silence_at(MORNING + 30 * MINUTE) is None


def test_a_long_job_keeps_its_caller_busy(backups: Path) -> None:
    """A loop in a container calls again only when what was due is done."""
    state = backups.with_name("state")
    with time_machine.travel(MORNING):
        api.status()
        scheduled.note_call(state, MORNING, "verify")

    assert silence_at(MORNING + 5 * HOUR) is None
    assert silence_at(MORNING + timedelta(days=1, hours=1)) is not None


def test_another_host_calls_it(backups: Path) -> None:
    """This one knows of no call; the catalog knows the backup that the other's made."""
    with time_machine.travel(MORNING):
        list(api.run_due())
    shutil.rmtree(backups.with_name("state"))

    assert silence_at(MORNING + 3 * HOUR) is None
    assert silence_at(datetime(2026, 7, 16, 3, 1, tzinfo=MADRID)) is not None


@pytest.mark.parametrize("record", [b"", b"[]", b'{"at": "soon", "job": ""}'])
def test_record_that_is_none_is_no_call(record: bytes, backups: Path) -> None:
    with time_machine.travel(MORNING):
        api.due()
    (backups.with_name("state") / "schedule" / "called.json").write_bytes(record)

    assert silence_at(MORNING) is not None
