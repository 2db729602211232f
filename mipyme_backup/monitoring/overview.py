"""All that the page of the admin shows: from the last look, the catalog and the settings.

Nothing is looked at for it, so a destination that is away or slow is nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from mipyme_backup.catalog import needed, reading
from mipyme_backup.catalog.reading import PastDrill, Run, RunDetails
from mipyme_backup.catalog.selection import MADE
from mipyme_backup.errors import CatalogError
from mipyme_backup.messages import Message
from mipyme_backup.monitoring.contents import SavedContent, saved_contents
from mipyme_backup.monitoring.last_look import LastLook
from mipyme_backup.monitoring.places import CopiesRow, Place, copies_of, places_of
from mipyme_backup.monitoring.timeline import Calendar, Point, calendars, last_of_each_day, trend
from mipyme_backup.operations import scheduled
from mipyme_backup.operations.scheduled import Coming
from mipyme_backup.policy.checklist import Checklist, Entry
from mipyme_backup.policy.checklist import checklist as checklist_of
from mipyme_backup.policy.finding import LEVELS, Level
from mipyme_backup.policy.status_facts import set_back
from mipyme_backup.schedule import BACKUPS, JOBS, Attempts

DAYS = 90
NEWEST = 12
MOST_TASKS = 10
"""Each is asked for once a second by every page that shows it; the list of tasks has all."""


@dataclass(frozen=True, kw_only=True)
class Age:
    """How old the newest good backup is, against what may be lost; None of none.

    `rpo` is the promise, `grace` how long a run takes, `most` the age that alerts; an hour by which
    the clocks were set back since is in both.
    """

    name: str
    finished_at: datetime
    age: timedelta
    rpo: timedelta
    grace: timedelta
    most: timedelta

    @property
    def level(self) -> Level:
        if self.age > self.most:
            return "critical"
        return "ok" if self.age <= self.rpo + self.grace else "warning"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How long a restore takes, measured by the last drill and predicted, against the RTO."""

    rto: timedelta
    drill: PastDrill | None
    predicted: timedelta | None
    overdue: bool

    @property
    def measured(self) -> timedelta | None:
        return timedelta(seconds=self.drill.seconds) if self.drill else None

    @property
    def level(self) -> Level:
        known = [time for time in (self.measured, self.predicted) if time is not None]
        failed = self.drill is not None and not self.drill.passed
        return (
            "warning" if failed or self.overdue or max(known, default=self.rto) > self.rto else "ok"
        )


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What the settings ask for. None stands for the policy's own contacts and checklist."""

    project: str
    rpo: timedelta
    rto: timedelta
    max_age: timedelta
    destinations: Sequence[str]
    schedule: Mapping[str, str | None]
    contacts: Sequence[Mapping[str, str]] | None
    review: date | None


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the catalog knows: the `runs` of the last days, and the last drill.

    `newest` are the last that made a backup, `daily` the last of each day that counts, both the
    newest first; `good` is the newest that counts and has a good copy, with its manifest. `tasks`
    are the newest rows of those that people asked for and that wait or run.
    """

    runs: Sequence[Run] = ()
    newest: Sequence[RunDetails] = ()
    daily: Sequence[RunDetails] = ()
    good: RunDetails | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    drill: PastDrill | None = None
    tasks: Sequence[Any] = ()


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The page. `unreadable` says why the catalog could not be read, None where it could."""

    now: datetime
    promises: Promises
    look: LastLook
    past: Past
    unreadable: Message | None
    age: Age | None
    recovery: Recovery
    coming: Sequence[Coming]
    coming_known: bool
    calendars: Sequence[Calendar]
    trend: Sequence[Point]
    places: Sequence[Place]
    copies: Sequence[CopiesRow]
    saved: Sequence[SavedContent]
    checklist: Checklist

    @property
    def level(self) -> Level:
        """The worst of what the look found and of what the clock says since."""
        age: Level = self.age.level if self.age else "critical"
        return max(self.look.level, age, key=LEVELS.index)

    @property
    def newer_than_look(self) -> bool:
        """Whether a backup has ended since the look, whose findings may be out of date."""
        return bool(self.age and self.look.at and self.age.finished_at > self.look.at)


def gather(
    promises: Promises,
    *,
    look: LastLook,
    state_dir: Path,
    lines: Sequence[str],
    now: datetime,
    zone: tzinfo,
) -> Overview:
    """Read the catalog, and what `STATE_DIR` tells of the schedule; `lines` are the checklist's.

    A web server may be kept from both: the overview tells so.
    """
    past, entries, unreadable = Past(), list[Entry](), None
    try:
        with needed():
            past = _past(promises.project, now - timedelta(days=DAYS), zone)
            entries = reading.checklist_entries(promises.project)
    except CatalogError as error:
        unreadable = error.message
    known: Mapping[str, Attempts] | None = None
    if scheduled.can_be_read(state_dir):
        known = scheduled.attempts(state_dir)
    return overview(
        promises,
        look=look,
        past=past,
        unreadable=unreadable,
        coming=scheduled.coming(known or {}, promises.schedule, now, zone),
        coming_known=known is not None,
        checklist=checklist_of(lines, entries),
        now=now,
        zone=zone,
    )


def _past(project: str, since: datetime, zone: tzinfo) -> Past:
    """Read the catalog."""
    runs = reading.runs_since(project, since)
    newest = [run.pk for run in runs if run.status in MADE][:NEWEST]
    daily = [run.pk for run in last_of_each_day(runs, zone)]
    counting = sorted(
        (run for run in runs if run.counts), key=lambda run: (run.sequence, run.at), reverse=True
    )
    candidates = [run.pk for run in counting[:NEWEST]]
    known = reading.details_of({*newest, *daily, *candidates})
    good = next((known[pk] for pk in candidates if pk in known and known[pk].good), None)
    if good is None and (pk := reading.newest_good(project)) is not None:
        good = reading.details_of([pk]).get(pk)
    return Past(
        runs=runs,
        newest=[known[pk] for pk in newest if pk in known],
        daily=[known[pk] for pk in daily if pk in known],
        good=good,
        manifest=reading.manifest_of(good.pk) if good else {},
        drill=reading.last_drill(),
        tasks=reading.tasks_under_way(project, MOST_TASKS),
    )


def overview(
    promises: Promises,
    *,
    look: LastLook,
    past: Past,
    unreadable: Message | None,
    coming: Sequence[Coming],
    coming_known: bool,
    checklist: Checklist,
    now: datetime,
    zone: tzinfo,
) -> Overview:
    """Put together what the page shows; `coming_known` says whether the last runs are known."""
    copies = copies_of(promises.destinations, past.newest)
    kinds = [kind for kind in JOBS if kind in BACKUPS and promises.schedule.get(kind)]
    return Overview(
        now=now,
        promises=promises,
        look=look,
        past=past,
        unreadable=unreadable,
        age=_age(promises, look, past, now, zone),
        recovery=_recovery(promises, look, past),
        coming=sorted(
            coming, key=lambda job: (job.next_slot is None, job.next_slot or now, job.job)
        ),
        coming_known=coming_known,
        calendars=calendars(
            past.runs, kinds, today=now.astimezone(zone).date(), days=DAYS, zone=zone
        ),
        trend=trend(past.daily),
        places=places_of(promises.destinations, look, copies),
        copies=copies,
        saved=saved_contents(past.manifest),
        checklist=checklist,
    )


def _age(promises: Promises, look: LastLook, past: Past, now: datetime, zone: tzinfo) -> Age | None:
    """Return the age of the newest good backup.

    The look saw the destinations themselves, so of what had ended by then it knows best; one that
    failed saw none.
    """
    seen, good = look.facts.get("newest_good"), past.good
    ended = good.finished_at if good is not None else None
    saw = look.at if look.facts.get("destinations") else None
    if good is not None and ended is not None and (saw is None or ended > saw):
        return _age_of(promises, good.name, ended, now, zone, good.seconds or 0)
    if not seen:
        return None
    finished = datetime.fromisoformat(seen["finished_at"])
    took = good.seconds if good is not None and good.backup_id == seen["id"] else 0
    return _age_of(promises, seen["name"], finished, now, zone, took or 0)


def _age_of(
    promises: Promises,
    name: str,
    finished_at: datetime,
    now: datetime,
    zone: tzinfo,
    seconds: float,
) -> Age:
    clock = set_back(finished_at, now, zone)
    return Age(
        name=name,
        finished_at=finished_at,
        age=max(now - finished_at, timedelta()),
        rpo=promises.rpo,
        grace=timedelta(seconds=seconds) + clock,
        most=promises.max_age + clock,
    )


def _recovery(promises: Promises, look: LastLook, past: Past) -> Recovery:
    seconds = look.facts.get("predicted_restore_seconds")
    return Recovery(
        rto=promises.rto,
        drill=past.drill,
        predicted=None if seconds is None else timedelta(seconds=seconds),
        overdue=any(finding.id == "drill_overdue" for finding in look.findings),
    )
