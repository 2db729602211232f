"""The schedule: what is due, what comes, and the work of each job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from mipyme_backup import conf
from mipyme_backup.api.given import Silent, zone
from mipyme_backup.api.keeping import backup, prune
from mipyme_backup.api.restoring import drill
from mipyme_backup.api.watching import ends_with_check, heartbeat, watch
from mipyme_backup.errors import (
    AlertError,
    DestinationError,
    KeyMissingError,
    SlotDoneError,
    UsageError,
    reason_of,
)
from mipyme_backup.messages import _
from mipyme_backup.operations import rationed, rolling, scheduled
from mipyme_backup.operations.project import Progress
from mipyme_backup.operations.scheduled import Coming, Outcome
from mipyme_backup.parts import build_project
from mipyme_backup.results import BackupResult
from mipyme_backup.schedule import JOBS, Due, last_slot
from mipyme_backup.translation import in_project_language, said, translated

T = TypeVar("T")


def due(*, now: datetime | None = None) -> list[Due]:
    """Return what the schedule has to be done now; `now` is aware, the present without it.

    Asking is what a schedule is called for: that it was is noted, for the status to judge.
    """
    settings, moment = conf.load(), now or datetime.now(UTC)
    scheduled.note_call(settings.state_dir, moment)
    return scheduled.what_is_due(settings.state_dir, settings.schedule, moment, zone())


def coming(*, now: datetime | None = None) -> list[Coming]:
    """Return each job of the schedule with what became of its last slot, and its next one."""
    settings = conf.load()
    known = scheduled.attempts(settings.state_dir)
    return scheduled.coming(known, settings.schedule, now or datetime.now(UTC), zone())


def run_job(*, job: str, slot: datetime, progress: Progress | None = None) -> Outcome:
    """Do the work of a slot once, however often it is asked for; see `schedule.JOBS`.

    A backup waits for the lock. An error is the outcome's; raises UsageError for an unknown job
    and a naive slot.
    """
    if job not in JOBS or slot.tzinfo is None:
        raise UsageError(
            _("There is no job %(job)s with the slot %(slot)s."),
            hint=_("Jobs: %(known)s. A slot is a moment with its time zone."),
            job=job,
            slot=slot,
            known=", ".join(JOBS),
        )
    work, state_dir = _works(progress or Silent())[job], conf.load().state_dir
    scheduled.note_call(state_dir, datetime.now(UTC), job)
    with in_project_language():
        outcome = scheduled.run_once(state_dir, Due(job=job, slot=slot), work)
    scheduled.note_call(state_dir, datetime.now(UTC))
    return outcome


def may_run_job(*, job: str, slot: datetime, attempts: int) -> bool:
    """Say whether a message may have the job done for the slot: it may be an old or a false one.

    That is the newest slot of the job; once it has failed `attempts` times, when it is due.
    """
    settings, now = conf.load(), datetime.now(UTC)
    expression = settings.schedule.get(job)
    if expression is None or slot != last_slot(expression, now, zone()):
        return False
    return not scheduled.is_exhausted(settings.state_dir, Due(job=job, slot=slot), attempts, now)


def run_rationed(*, verb: str, once_in: timedelta, attempts: int, work: Callable[[], T]) -> T:
    """Return what `work` does, for a message that any program may have sent; see the tasks.

    It is done once in each stretch of `once_in`, and tried `attempts` times where it fails. Raises
    TooSoonError where it was done or is being done, and the error of the work.
    """
    return rationed.run(conf.load().state_dir, verb, once_in, attempts, work, datetime.now(UTC))


def run_due(*, progress: Progress | None = None) -> Iterator[Outcome]:
    """Do what is due, once, one after the other; yields each outcome when it is there."""
    for one in due():
        yield run_job(job=one.job, slot=one.slot, progress=progress)


def _works(progress: Progress) -> Mapping[str, Callable[[datetime], object]]:
    """Return what is done for the slot of each job."""
    return {
        "daily": lambda slot: _scheduled_backup("daily", slot, progress),
        "monthly": lambda slot: _scheduled_backup("monthly", slot, progress),
        "verify": lambda slot: _scheduled_verification(slot, progress),
        "prune": lambda slot: _scheduled_prune(progress),
        "status": lambda slot: _scheduled_look(),
        "drill": lambda slot: _scheduled_drill(progress),
    }


def _scheduled_backup(kind: str, slot: datetime, progress: Progress) -> BackupResult:
    """Take the backup of a slot, with the heartbeat told of its start and its end."""
    heartbeat("start", kind)
    try:
        result = backup(kind=kind, slot=slot, wait=True, progress=progress)
    except SlotDoneError as error:
        heartbeat("success", translated(error.message))
        raise
    except BaseException as error:
        heartbeat("fail", f"{kind}: {said(reason_of(error))}")
        raise
    heartbeat("success", f"{kind}: {result.manifest.name}, {result.status}")
    return result


def _scheduled_verification(slot: datetime, progress: Progress) -> None:
    project = build_project()
    with ends_with_check(project):
        rolling.run(project, slot, progress)


def _scheduled_look() -> None:
    """Look and tell; raises AlertError where a channel could not be told."""
    for delivery in watch().deliveries:
        if delivery.failed:
            raise AlertError(
                _("An alert to %(channel)s has not arrived: %(reason)s"),
                hint=_("Send one by hand: manage.py backup_status --test-alert"),
                channel=delivery.channel,
                reason=delivery.error,
            )


def _scheduled_prune(progress: Progress) -> None:
    """Prune; raises what kept a destination from it.

    Where nothing may be pruned anywhere, another finding of `status` is to blame.
    """
    for pruned in prune(wait=True, progress=progress).destinations:
        if isinstance(pruned.error, DestinationError):
            raise pruned.error


def _scheduled_drill(progress: Progress) -> None:
    """Drill where this host can open its backups; what it finds is kept, and `status` tells."""
    with contextlib.suppress(KeyMissingError):
        drill(wait=True, progress=progress)
