"""The last months, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mipyme_backup.catalog.reading import Run, RunDetails
from mipyme_backup.monitoring.timeline import Calendar, calendars, last_of_each_day, trend

MADRID = ZoneInfo("Europe/Madrid")
TODAY = date(2026, 7, 15)


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ([], "none"),
        (["failed"], "failed"),
        (["abandoned"], "failed"),
        (["failed", "complete"], "complete"),
        (["failed", "partial"], "partial"),
        (["partial", "running"], "partial"),
        (["failed", "running"], "running"),
    ],
)
def test_best_outcome_of_a_day_counts(statuses: list[str], outcome: str) -> None:
    runs = [_run(hour=hour, status=status) for hour, status in enumerate(statuses)]

    (calendar,) = _calendars(runs)

    assert calendar.days[-1].outcome == outcome
    assert calendar.days[-1].runs == len(statuses)


def test_days_are_those_of_the_zone() -> None:
    """Half past eleven at night in UTC is the next day in Madrid."""
    runs = [_run(at=datetime(2026, 7, 13, 23, 30, tzinfo=UTC))]

    (calendar,) = _calendars(runs)

    assert _days(calendar) == {date(2026, 7, 14): "complete"}


def test_as_many_days_as_asked_for_over_a_change_of_the_clocks() -> None:
    (found,) = calendars([], ["daily"], today=date(2026, 4, 2), days=9, zone=MADRID)

    assert [day.day for day in found.days] == [
        date(2026, 3, 25) + timedelta(days=number) for number in range(9)
    ]


def test_run_before_the_first_day_is_left_out() -> None:
    (calendar,) = _calendars([_run(at=datetime(2026, 1, 1, tzinfo=UTC))])

    assert _days(calendar) == {}


def test_kind_that_ran_without_a_schedule_has_a_calendar_and_safety_has_none() -> None:
    runs = [_run(kind="manual"), _run(kind="safety"), _run(kind="daily")]

    assert [calendar.kind for calendar in _calendars(runs)] == ["daily", "manual"]


def test_outcomes_are_counted_the_best_first() -> None:
    (calendar,) = _calendars([_run(), _run(at=datetime(2026, 7, 14, tzinfo=UTC), status="failed")])

    assert [*calendar.counts.items()] == [("complete", 1), ("failed", 1), ("none", 5)]


@pytest.mark.parametrize(
    "other", [{"kind": "safety"}, {"whole": False}, {"status": "failed"}, {"status": "running"}]
)
def test_only_backups_that_count_are_followed(other: dict[str, Any]) -> None:
    runs = [_run(hour=9, pk=3, **other), _run(hour=8, pk=2), _run(hour=7, pk=1)]

    assert [run.pk for run in last_of_each_day(runs, MADRID)] == [2]


def test_trend_goes_from_the_first_to_the_last_and_leaves_out_what_goes_on() -> None:
    points = trend([_details(3, None), _details(2, 90), _details(1, 30)])

    assert [(point.name, point.seconds) for point in points] == [("1", 30), ("2", 90)]


def _run(
    *,
    at: datetime | None = None,
    hour: int = 0,
    kind: str = "daily",
    status: str = "complete",
    whole: bool = True,
    pk: int = 1,
) -> Run:
    at = at or datetime(2026, 7, 15, hour, tzinfo=UTC)
    return Run(pk=pk, kind=kind, status=status, whole=whole, sequence=pk, at=at)


def _details(number: int, seconds: float | None) -> RunDetails:
    started = datetime(2026, 7, number, tzinfo=UTC)
    return RunDetails(
        pk=number,
        backup_id=str(number),
        name=str(number),
        kind="daily",
        status="complete",
        started_at=started,
        finished_at=None if seconds is None else started + timedelta(seconds=seconds),
        raw_size=2,
        stored_size=1,
        copies={},
    )


def _calendars(runs: list[Run]) -> list[Calendar]:
    return calendars(runs, ["daily"], today=TODAY, days=7, zone=MADRID)


def _days(calendar: Calendar) -> dict[date, str]:
    return {day.day: day.outcome for day in calendar.days if day.outcome != "none"}
