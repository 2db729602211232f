"""A year of an unattended host: who is told what, against what was done to it.

What each channel should hear is worked out beforehand, in `troubles`: each problem once, and its
end once, through outages, restarts, runs that are killed, both changes of the clocks, and channels
that are away. One that was away while a problem came and passed hears of its end alone.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.troubled_host import troubled_host
from tests.e2e.troubles import DAY, HOUR, MINUTE, Damage, Plan, Span, foretold, within

ZONE = ZoneInfo("America/New_York")
OUTAGES = 20
CALM = 14 * DAY
"""How long nothing happens in the beginning: there must be something to be damaged."""


@pytest.mark.timeout(900)
@pytest.mark.rare
def test_three_weeks(workdir: Path, gpg: Path, torture_random: random.Random) -> None:
    """A disk away for days, a byte that flips, a scheduler that is down; and three wake-ups a day.

    The mail server is down when the disk, which is almost full, goes. The clocks go forward on
    8 March.
    """
    first = datetime(2026, 2, 27, tzinfo=ZONE)
    away = _span(first + 10 * DAY + torture_random.uniform(6, 13) * HOUR, 40 * HOUR)
    off = _span(first + torture_random.uniform(16, 17) * DAY, 55 * HOUR)
    grid = [*_grid(first, first + 21 * DAY, (2, 6, 14), torture_random)]
    wakes = [now for now in grid if not within([off], now)]
    plan = Plan(
        zone=ZONE,
        wakes=wakes,
        off=[off],
        away={"far": [away]},
        deaf={"mail": [_span(away[0], 12 * HOUR)]},
        low_disk=[(away[0] - DAY, away[1] + 20 * HOUR)],
        damages=[_damage(wakes, first + 14 * DAY, ["near"], mended=True)],
        review=(date(2026, 3, 6), first + 15 * DAY),
    )

    _live(plan, workdir, gpg, lambda _line: None)


@pytest.mark.torture
@pytest.mark.timeout(4 * 3600)
def test_year(
    workdir: Path,
    gpg: Path,
    torture_random: random.Random,
    tell: Callable[[str], None],
    scaled: Callable[[int, int], int],
) -> None:
    """A slice ends after four weeks, and the host seldom wakes in the first two, which are calm."""
    plan = _year(torture_random)
    days = scaled(365, 28)
    if days < 365:
        plan = _shortened(plan, plan.wakes[0] + days * DAY)

    _live(plan, workdir, gpg, tell)


def _shortened(plan: Plan, end: datetime) -> Plan:
    calm = plan.wakes[0] + CALM
    wakes = [
        now
        for now in plan.wakes
        if now < end and (now > calm or now.astimezone(ZONE).hour in (2, 14))
    ]
    return dataclasses.replace(plan, wakes=wakes, killed=plan.killed & {*wakes})


def _year(chance: random.Random) -> Plan:
    """Return a plan with both changes of the clocks, around which nothing else happens."""
    start, end = (datetime(year, 1, 1, tzinfo=ZONE).astimezone(UTC) for year in (2026, 2027))
    changes = (datetime(2026, 3, 8, tzinfo=ZONE), datetime(2026, 11, 1, tzinfo=ZONE))
    calm = [_span(start, CALM), *((change - 2 * DAY, change + 2 * DAY) for change in changes)]

    def some(count: int, shortest: timedelta, longest: timedelta) -> list[Span]:
        found: list[Span] = []
        while len(found) < count:
            begin = start + chance.random() * (end - start)
            span = _span(begin, shortest + chance.random() * (longest - shortest))
            if span[1] < end - DAY and not any(_meet(span, other) for other in [*calm, *found]):
                found.append(span)
        return found

    off = [*some(OUTAGES, 12 * MINUTE, 20 * HOUR), *some(3, 2 * DAY, 4 * DAY)]
    far = some(5, DAY, 4 * DAY)
    near = [*some(2, 4 * HOUR, 30 * HOUR), _span(far[0][0] + 5 * HOUR, 30 * HOUR)]
    hours = (start + number * HOUR for number in range(365 * 24))
    grid = [hour + timedelta(seconds=chance.randrange(50)) for hour in hours]
    wakes = [now for now in grid if not within(off, now)]
    days = [datetime(2026, 1, 16, tzinfo=ZONE) + number * DAY for number in range(340)]
    chosen = sorted(chance.sample(_good_days(days, [*calm, *off, *far, *near]), 14))
    killed = frozenset(_first(wakes, day.replace(hour=2)) for day in chosen[::2])
    places = [["near"], ["far"], ["near", "far"], ["far"], ["near"], ["near", "far"], ["far"]]
    return Plan(
        zone=ZONE,
        wakes=sorted([*wakes, *(now + 15 * MINUTE for now in killed)]),
        off=off,
        away={"near": near, "far": far},
        deaf={
            "mail": [*some(3, 5 * HOUR, 40 * HOUR), _span(far[1][0] - HOUR, 12 * HOUR)],
            "webhook": [*some(3, 5 * HOUR, 40 * HOUR), _span(off[-1][1] - HOUR, 4 * HOUR)],
        },
        low_disk=some(3, DAY, 5 * DAY),
        damages=[
            _damage(wakes, day, where, mended=len(where) == 1)
            for day, where in zip(chosen[1::2], places, strict=True)
        ],
        killed=killed,
        review=(date(2026, 7, 20), start + 205 * DAY + 11 * HOUR),
        key=(start + 300 * DAY - HOUR / 2, start + 284 * DAY),
    )


def _good_days(days: Sequence[datetime], troubled: Sequence[Span]) -> list[datetime]:
    """Return the days around which nothing else happens, nor a monthly backup."""
    return [
        day
        for day in days
        if day.day > 2 and not any(_meet((day - DAY, day + 2 * DAY), span) for span in troubled)
    ]


def _span(begin: datetime, length: timedelta) -> Span:
    return begin, begin + length


def _meet(one: Span, other: Span) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _grid(
    first: datetime, last: datetime, hours: Sequence[int], chance: random.Random
) -> Iterator[datetime]:
    """Yield when a scheduler wakes us, by the clock on the wall, and up to a minute later."""
    for number in range((last - first).days):
        day = first + number * DAY
        for hour in hours:
            at = day.replace(hour=hour).astimezone(UTC)
            yield at + timedelta(seconds=chance.randrange(50))


def _first(wakes: Sequence[datetime], at: datetime) -> datetime:
    return next(now for now in wakes if now >= at)


def _damage(
    wakes: Sequence[datetime], day: datetime, places: Sequence[str], *, mended: bool
) -> Damage:
    """Return a damage after the daily backup of that day, before it is verified."""
    morning = day.astimezone(ZONE).replace(hour=2, minute=1)
    return Damage(
        at=_first(wakes, morning + HOUR / 2),
        destinations=tuple(places),
        mended=_first(wakes, morning + 12 * HOUR) if mended else None,
    )


def _live(plan: Plan, workdir: Path, gpg: Path, tell: Callable[[str], None]) -> None:
    """Compare what comes in each wake-up with what was foretold, and tell the counts."""
    expected = foretold(plan)
    began = time.monotonic()
    with troubled_host(plan, workdir, gpg) as host:
        for before, now in zip([None, *plan.wakes], plan.wakes, strict=False):
            host.live(before, now)
            for channel, heard in host.heard.items():
                came = [message for message in heard if message.at == now]
                assert came == [one for one in expected.messages[channel] if one.at == now], channel
            assert host.failures.get(now) == expected.failures.get(now)

    assert host.heard == expected.messages
    for channel, messages in host.heard.items():
        begun = Counter(name for message in messages for name in message.begun)
        ended = Counter(name for message in messages for name in message.ended)
        reports = sum(not message.begun and not message.ended for message in messages)
        tell(
            f"{channel}: {len(messages)} messages, {begun.total()} beginnings and {ended.total()}"
            f" ends of {len(begun)} problems, {reports} reports"
        )
        tell(f"{channel}: " + ", ".join(f"{name} {count}" for name, count in sorted(begun.items())))
    tell(
        f"{len(plan.wakes)} wake-ups, {host.starts} starts, {len(plan.killed)} killed backups,"
        f" {time.monotonic() - began:.0f} seconds"
    )
