"""The last months, day by day: what became of the backups, and how they grow. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from mipyme_backup.catalog.reading import Run, RunDetails

OUTCOMES = ("none", "failed", "running", "partial", "complete")
"""What may become of a day, in the order in which the better one counts."""


@dataclass(frozen=True, kw_only=True)
class Day:
    """A day of one kind of backup: the best outcome, and how many runs there were."""

    day: date
    outcome: str
    runs: int


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """The days of one kind, the first one first."""

    kind: str
    days: Sequence[Day]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many days had each outcome, for those that any day had."""
        found = [day.outcome for day in self.days]
        return {outcome: found.count(outcome) for outcome in reversed(OUTCOMES) if outcome in found}


@dataclass(frozen=True, kw_only=True)
class Point:
    """The last backup of a day that holds everything: sizes in bytes."""

    at: datetime
    name: str
    raw_size: int
    stored_size: int
    seconds: float


def calendars(
    runs: Iterable[Run], kinds: Sequence[str], *, today: date, days: int, zone: tzinfo
) -> list[Calendar]:
    """Return a calendar for each of the `kinds`, and for any other that ran; `today` is the last.

    A run that was made up for counts on the day of its slot. Safety backups are left out.
    """
    outcomes: defaultdict[str, defaultdict[date, list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        if run.kind != "safety":
            day = run.at.astimezone(zone).date()
            outcomes[run.kind][day].append(_outcome(run.status))
    span = [today - timedelta(days=ago) for ago in reversed(range(days))]
    return [
        Calendar(
            kind=kind,
            days=[
                Day(
                    day=day,
                    outcome=max(outcomes[kind][day], key=OUTCOMES.index, default="none"),
                    runs=len(outcomes[kind][day]),
                )
                for day in span
            ],
        )
        for kind in dict.fromkeys([*kinds, *sorted(outcomes)])
    ]


def _outcome(status: str) -> str:
    """Return what a run makes of its day: one that was abandoned, or that is not known, failed."""
    return status if status in OUTCOMES else "failed"


def last_of_each_day(runs: Iterable[Run], zone: tzinfo) -> list[Run]:
    """Return the last run of each day that counts, of runs with the newest first."""
    last: dict[date, Run] = {}
    for run in runs:
        if run.counts:
            last.setdefault(run.at.astimezone(zone).date(), run)
    return [*last.values()]


def trend(runs: Iterable[RunDetails]) -> list[Point]:
    """Return a point for each of the runs, the first one first."""
    points = [
        Point(
            at=run.finished_at,
            name=run.name,
            raw_size=run.raw_size,
            stored_size=run.stored_size,
            seconds=(run.finished_at - run.started_at).total_seconds(),
        )
        for run in runs
        if run.finished_at is not None
    ]
    return sorted(points, key=lambda point: point.at)
