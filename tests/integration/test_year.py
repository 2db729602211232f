"""A year of an unattended host, with the clock moved: outages, clock changes, two schedulers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine

from mipyme_backup import api
from mipyme_backup.errors import DestinationError, SlotDoneError
from mipyme_backup.models import Backup
from mipyme_backup.operations import scheduled
from mipyme_backup.policy.status import level_of
from mipyme_backup.schedule import Due
from tests.integration.pruning import History, history
from tests.unit.test_schedule import DAILY, MONTHLY, ZONES

__all__ = ["history"]
OUTAGES = 20
QUARTER = timedelta(minutes=15)
EXPRESSIONS = {"daily": DAILY, "monthly": MONTHLY}


def outages(chance: random.Random, start: datetime) -> list[tuple[datetime, datetime]]:
    """Return when the host is off: so long that runs are missed, never a whole day."""
    begins = [start + timedelta(days=chance.uniform(2, 364)) for _number in range(OUTAGES)]
    return [(begin, begin + timedelta(hours=chance.uniform(0.2, 20))) for begin in begins]


def wakes(
    start: datetime, end: datetime, off: list[tuple[datetime, datetime]], every: timedelta
) -> Iterator[datetime]:
    now = start
    while now < end:
        if not any(begin <= now < stop for begin, stop in off):
            yield now
        now += every


@pytest.mark.parametrize(
    ("zone", "every"),
    [
        ("America/New_York", timedelta(hours=5)),
        *(pytest.param(zone, QUARTER, marks=pytest.mark.torture) for zone in ZONES),
    ],
)
@pytest.mark.timeout(3600)
def test_one_run_for_each_slot(
    zone: str,
    every: timedelta,
    workdir: Path,
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
) -> None:
    """Two hosts share the slots that are done, as by the catalog; one in ten runs fails.

    Not those of the first moment: in a slice the hosts wake less often, and last year's slot is
    made up for then or never.
    """
    every = timedelta(days=1) / scaled(timedelta(days=1) // every, 5)
    local = ZoneInfo(zone)
    start = datetime(2026, 1, 1, tzinfo=local).astimezone(UTC)
    end = datetime(2027, 1, 1, tzinfo=local).astimezone(UTC)
    off = [outages(torture_random, start) for _host in range(2)]
    done: Counter[Due] = Counter()
    failed = 0

    def work(due: Due, _slot: datetime) -> None:
        nonlocal failed
        if done[due]:
            raise SlotDoneError("there already")
        if now > start and torture_random.random() < 0.1:
            failed += 1
            raise DestinationError("it is down", permanent=False)
        done[due] += 1

    for now in wakes(start, end, [], every):
        for host, times in enumerate(off):
            if any(begin <= now < stop for begin, stop in times):
                continue
            state = workdir / f"host{host}"
            with time_machine.travel(now, tick=False):
                for due in scheduled.what_is_due(state, EXPRESSIONS, now, local):
                    scheduled.run_once(state, due, partial(work, due))

    days = Counter(due.slot.astimezone(local).date() for due in done if due.job == "daily")
    months = Counter(due.slot.astimezone(local).month for due in done if due.job == "monthly")
    assert set(done.values()) == {1} and failed > 10
    # The first of both is made up for: it was last year's.
    days.pop(datetime(2025, 12, 31).date())
    assert len(days) == 365 and set(days.values()) == {1}
    assert months == {month: 2 if month == 12 else 1 for month in range(1, 13)}


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_real_year(
    history: History,
    settings: Any,
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
) -> None:
    """Real backups, verifications and prunes: one daily a day, retention right every day.

    A slice ends in February, when the first dailies are gone.
    """
    days_lived = scaled(365, 45)
    local = ZoneInfo("America/New_York")
    settings.TIME_ZONE = local.key
    history.configure(SCHEDULE={"status": None})  # changes nothing, and is asked for every hour
    start = datetime(2026, 1, 1, tzinfo=local).astimezone(UTC)
    off = outages(torture_random, start)
    every = timedelta(hours=1)
    wrong: list[Any] = []
    for now in wakes(start, start + timedelta(days=days_lived), off, every):
        with time_machine.travel(now):
            if now.hour == 12:
                (history.media / "changing").write_text(now.isoformat())
            wrong += [(now, one) for one in api.run_due() if one.ending != "done"]
        if now.astimezone(local).hour == 6:
            wrong += _against_retention(now)

    made = Backup.objects.filter(status="complete")
    days = Counter(slot.astimezone(local).date() for slot in _slots(made, "daily"))
    months = Counter(slot.astimezone(local).month for slot in _slots(made, "monthly"))
    assert wrong == []
    assert set(days.values()) == {1}
    assert len(days) == days_lived + 1  # and the one of last year, made up for
    last = (start + timedelta(days=days_lived - 1)).month
    expected = Counter([12, *range(1, last + 1)])  # the first of them is last year's as well
    assert months == expected
    assert level_of([f for f in api.status().findings if f.id != "backup_old"]) != "critical"


def _slots(backups: Any, kind: str) -> list[datetime]:
    return [slot for slot in backups.filter(kind=kind).values_list("slot", flat=True) if slot]


def _against_retention(now: datetime) -> Iterator[tuple[Any, ...]]:
    """Yield each backup that is there too long, or gone too soon."""
    days = {"daily": 30, "monthly": 90}
    rows = [one.to_dict() for one in api.backups(destination="local")]
    there = {row["id"] for row in rows}
    for row in rows:
        age = now - datetime.fromisoformat(row["finished_at"])
        if age > timedelta(days=days[row["kind"]]) + timedelta(hours=26):
            yield now, "too long", row["name"], age
    for backup in Backup.objects.filter(status="complete"):
        kept_until = backup.started_at + timedelta(days=days[backup.kind])
        if now < kept_until and backup.backup_id not in there:
            yield now, "too soon", backup.name
