"""What the schedule has left undone: slots without a backup, jobs that go on failing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, tzinfo

from mipyme_backup.operations.project import Project
from mipyme_backup.operations.scheduled import WHO_TELLS, attempts, can_be_read, last_call
from mipyme_backup.policy.status_facts import FailingJob, MissedSlot, Silence
from mipyme_backup.schedule import BACKUPS, slots_between

GRACE = timedelta(hours=1)
"""How long after its slot a backup may begin: the schedule looks every quarter of an hour."""

LOOKED_BACK = timedelta(days=35)
"""Any month has a slot in it; older ones would make the look longer, and say nothing more."""

FAILURES = 2
"""What fails once is tried again a quarter of an hour later, and is told only then."""

LONGEST_JOB = timedelta(days=1)
"""How long the caller may be at one job, so that it cannot call again meanwhile."""

TOLD_OTHERWISE = BACKUPS | {WHO_TELLS}
"""How runs of backups ended is in the catalog; a look that fails tells so itself."""


def failing_jobs(project: Project, schedule: Mapping[str, str | None]) -> Iterator[FailingJob]:
    """Yield the jobs of the `schedule` whose newest slot was tried on this host, in vain."""
    for job, tried in attempts(project.state_dir).items():
        is_ours = schedule.get(job) is not None and job not in TOLD_OTHERWISE
        if is_ours and not tried.done and tried.in_a_row >= FAILURES:
            yield FailingJob(job=job, failed=tried.in_a_row, reason=tried.error)


def missed_slots(
    project: Project, schedule: Mapping[str, str | None], now: datetime, zone: tzinfo
) -> Iterator[MissedSlot]:
    """Yield the slots since the newest one of its kind that a backup stands for, in `zone`.

    Where none ever did, since the first run of the schedule that the catalog knows. Who takes
    backups without the schedule misses nothing.
    """
    served, began = project.catalog.slots(project.name, now)
    for kind in sorted(BACKUPS):
        expression, since = schedule.get(kind), served.get(kind, began)
        if expression is not None and since is not None:
            start = max(since, now - LOOKED_BACK)
            for slot in slots_between(expression, start, now - GRACE, zone):
                yield MissedSlot(kind=kind, slot=slot.astimezone(zone))


def silence(
    project: Project,
    schedule: Mapping[str, str | None],
    now: datetime,
    zone: tzinfo,
    *,
    catalog: bool,
) -> Silence | None:
    """Say since when nothing calls the schedule, None where something does or nothing has to.

    That is so once a slot has come since the last call. Where another host calls it, the catalog
    knows what that made: then the slots of backups are looked at alone. Nothing is said where
    neither can be known (`catalog` is False), and of a `schedule` without any job, which is turned
    off on purpose.
    """
    jobs = {job: expression for job, expression in schedule.items() if expression is not None}
    if not jobs or not can_be_read(project.state_dir):
        return None
    call = last_call(project.state_dir)
    if call is not None and call.job and timedelta() <= now - call.at < LONGEST_JOB:
        return None
    served, _began = project.catalog.slots(project.name, now)
    newest = max(served.values(), default=None)
    since = call.at if call is not None else None
    if newest is not None and (since is None or newest > since):
        since = newest
        jobs = {job: expression for job, expression in jobs.items() if job in BACKUPS}
    if since is None:
        return Silence(since=None) if catalog else None
    awaited = (slots_between(expression, since, now - GRACE, zone) for expression in jobs.values())
    silent = any(next(slots, None) is not None for slots in awaited)
    return Silence(since=since) if silent else None
