"""When what is due: the slots of the schedule, what to do now, and who is asked to look.

A slot is a moment that a cron expression names in the project's time zone. Cron and Celery beat
know none of them: each wakes us every quarter of an hour, and `due` says what there is to do. So
the clock changes, a machine that slept, and a scheduler in UTC are all met in one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim

from mipyme_backup.messages import Message, _

JOBS = ("status", "daily", "monthly", "verify", "prune", "drill")
"""The jobs, in the order in which those that are due together begin: who tells comes first."""

BACKUPS = frozenset({"daily", "monthly"})
"""The jobs that are kinds of backup. The first slot of one is due as soon as it is looked for."""

JOB_TEXTS = {
    "daily": Message(_("a daily backup")),
    "monthly": Message(_("a monthly backup")),
    "verify": Message(_("verification of the copies")),
    "prune": Message(_("deleting what is older than its retention")),
    "status": Message(_("a look at the state, and alerts")),
    "drill": Message(_("a restore drill")),
}
"""What each job is, for people."""

BEAT_NAME = "mipyme_backup: what is due"
BEAT_MINUTES = "*/15"
RUN_DUE_TASK = "mipyme_backup.run_due"

EVERY = timedelta(minutes=15)
"""How often is looked. All zones are whole quarters of an hour away from UTC."""

EARLY = timedelta(minutes=1)
"""How much before its time a slot may be tried again: who wakes us is not exact to the second."""

LONGEST_PAUSE = timedelta(hours=4)
"""How long a job that goes on failing waits at most before its slot is tried again."""


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """What became of the newest slot of a job that was tried: `failed` in a row, the last `at`.

    `before` are those that failed for earlier slots since one was done. `error` is why the last
    one failed, empty where it was killed.
    """

    slot: datetime
    done: bool
    failed: int = 0
    at: datetime | None = None
    before: int = 0
    error: str = ""

    @property
    def in_a_row(self) -> int:
        """How many failed since one was done, whichever their slots; one that runs counts."""
        return self.failed + self.before


@dataclass(frozen=True, kw_only=True)
class Due:
    """A job whose slot is to be done now."""

    job: str
    slot: datetime


def slots_between(
    expression: str, start: datetime, end: datetime, zone: tzinfo
) -> Iterator[datetime]:
    """Yield the slots after `start` and up to `end`, both aware, as moments in UTC.

    A time of day that the clocks skip is a slot when they have been set forward; one that comes
    twice is a slot once (as Debian's cron has it; cronsim does).
    """
    for slot in CronSim(expression, start.astimezone(zone)):
        moment = slot.astimezone(UTC)
        if moment > end:
            return
        if moment > start:
            yield moment


def next_slot(expression: str, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the first slot after `now`, in UTC; None where the expression names none."""
    return next((slot.astimezone(UTC) for slot in CronSim(expression, now.astimezone(zone))), None)


def last_slot(expression: str, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the last slot up to `now`, in UTC; None where the expression names none.

    Looks back further and further, since most expressions name a moment of the last days.
    """
    for days in (1, 8, 32, 367, 366 * 8):
        slots = [*slots_between(expression, now - timedelta(days=days), now, zone)]
        if slots:
            return slots[-1]
    return None


def due(
    schedule: Mapping[str, str | None],
    attempts: Mapping[str, Attempts],
    now: datetime,
    zone: tzinfo,
) -> list[Due]:
    """Return what is to be done now, in the order of `JOBS`; `attempts` by job.

    Of several slots that were missed, the last is made up for. A job that was never seen is due
    where it is a backup: a new installation has one at once. Others wait for their next slot,
    which needs their present one noted as done (`first_seen`).
    """
    found = []
    for job, slot in _last_slots(schedule, now, zone):
        tried = attempts.get(job)
        if tried is None:
            is_due = job in BACKUPS
        elif slot > tried.slot:
            is_due = True
        else:
            is_due = not tried.done and (now >= retry_at(tried) or _is_ahead(tried, now))
        if is_due:
            found.append(Due(job=job, slot=slot))
    return found


def first_seen(
    schedule: Mapping[str, str | None],
    attempts: Mapping[str, Attempts],
    now: datetime,
    zone: tzinfo,
) -> dict[str, Attempts]:
    """Return what to note of the jobs that are new and wait for their next slot."""
    return {
        job: Attempts(slot=slot, done=True)
        for job, slot in _last_slots(schedule, now, zone)
        if job not in attempts and job not in BACKUPS
    }


def retry_at(tried: Attempts) -> datetime:
    """Return when a failed slot is tried again: after 15 minutes, 30, 60 … up to four hours."""
    if tried.at is None or not tried.failed:
        return tried.slot
    return tried.at + min(EVERY * (1 << min(tried.failed - 1, 10)), LONGEST_PAUSE) - EARLY


def _is_ahead(tried: Attempts, now: datetime) -> bool:
    """Say whether the clock has been set back since."""
    return tried.at is not None and tried.at > now


def _last_slots(
    schedule: Mapping[str, str | None], now: datetime, zone: tzinfo
) -> Iterator[tuple[str, datetime]]:
    for job in JOBS:
        expression = schedule.get(job)
        slot = last_slot(expression, now, zone) if expression else None
        if slot is not None:
            yield job, slot


def beat_schedule() -> dict[str, dict[str, object]]:
    """Return the entry for Celery's ``app.conf.beat_schedule``: look every quarter of an hour.

    Right whatever ``timezone`` and ``enable_utc`` say; a message that lay in the queue until the
    next one came is dropped. Needs Celery.
    """
    from celery.schedules import crontab  # the app works without Celery

    return {
        BEAT_NAME: {
            "task": RUN_DUE_TASK,
            "schedule": crontab(minute=BEAT_MINUTES),
            "options": {"expires": EVERY.total_seconds()},
        }
    }
