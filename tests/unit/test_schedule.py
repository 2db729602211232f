"""Slots in the project's time zone, and what is due."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab
from hypothesis import given
from hypothesis import strategies as st

from mipyme_backup import schedule
from mipyme_backup.schedule import Attempts, Due

ZONES = (
    "America/Havana",  # the clocks change at midnight
    "America/New_York",  # at 02:00, the hour of the daily backup
    "Europe/Madrid",
    "Australia/Lord_Howe",  # by half an hour
    "UTC",
)
DAILY, MONTHLY = "0 2 * * *", "0 3 1 * *"
NOON = datetime(2026, 7, 15, 12, tzinfo=UTC)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


class TestSlots:
    @pytest.mark.parametrize("zone", ZONES)
    def test_one_a_day_and_one_a_month_all_year(self, zone: str) -> None:
        start, end = at("2026-01-01 00:00", zone), at("2026-12-31 23:59", zone)
        local = ZoneInfo(zone)

        days = Counter(
            slot.astimezone(local).date()
            for slot in schedule.slots_between(DAILY, start, end, local)
        )
        months = [
            slot.astimezone(local) for slot in schedule.slots_between(MONTHLY, start, end, local)
        ]

        assert len(days) == 365 and set(days.values()) == {1}
        assert [month.month for month in months] == [*range(1, 13)]
        assert {month.day for month in months} == {1}

    def test_hour_that_is_skipped(self) -> None:
        zone = ZoneInfo("America/New_York")
        night = at("2026-03-08 00:00", zone.key), at("2026-03-08 12:00", zone.key)

        assert [*schedule.slots_between("30 2 * * *", *night, zone)] == [
            at("2026-03-08 03:00", zone.key)
        ]

    def test_hour_that_comes_twice(self) -> None:
        zone = ZoneInfo("Europe/Madrid")
        night = at("2026-10-25 00:00", zone.key), at("2026-10-25 12:00", zone.key)

        assert [*schedule.slots_between("30 2 * * *", *night, zone)] == [
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
        ]

    @pytest.mark.parametrize(
        ("expression", "last", "following"),
        [
            (DAILY, "2026-07-15 02:00", "2026-07-16 02:00"),
            (MONTHLY, "2026-07-01 03:00", "2026-08-01 03:00"),
            ("0 4 * * SUN#1", "2026-07-05 04:00", "2026-08-02 04:00"),
            ("0 12 * * *", "2026-07-15 12:00", "2026-07-16 12:00"),
            ("0 0 29 2 *", "2024-02-29 00:00", "2028-02-29 00:00"),
        ],
    )
    def test_last_and_next(self, expression: str, last: str, following: str) -> None:
        assert schedule.last_slot(expression, NOON, UTC) == at(last)
        assert schedule.next_slot(expression, NOON, UTC) == at(following)


class TestDue:
    EXPRESSIONS = {"daily": DAILY, "monthly": None, "verify": "30 4 * * *", "status": "0 * * * *"}
    SLOT = at("2026-07-15 02:00")

    def due(self, attempts: dict[str, Attempts], now: datetime = NOON) -> list[Due]:
        return schedule.due(self.EXPRESSIONS, attempts, now, UTC)

    def test_new_installation_has_a_backup_at_once_and_nothing_else(self) -> None:
        seen = schedule.first_seen(self.EXPRESSIONS, {}, NOON, UTC)

        assert self.due({}) == [Due(job="daily", slot=self.SLOT)]
        assert seen.keys() == {"status", "verify"}
        assert self.due(seen) == [Due(job="daily", slot=self.SLOT)]
        assert [due.job for due in self.due(seen, NOON + timedelta(hours=1))] == ["status", "daily"]

    def test_done_is_done(self) -> None:
        attempts = {job: Attempts(slot=NOON, done=True) for job in self.EXPRESSIONS}

        assert self.due({**attempts, "daily": Attempts(slot=self.SLOT, done=True)}) == []

    def test_of_missed_slots_the_last_is_made_up_for(self) -> None:
        attempts = {job: Attempts(slot=NOON, done=True) for job in self.EXPRESSIONS}
        attempts["daily"] = Attempts(slot=self.SLOT - timedelta(days=9), done=True)

        assert self.due(attempts) == [Due(job="daily", slot=self.SLOT)]

    def test_failed_is_tried_again_less_and_less_often(self) -> None:
        pauses = []
        for failed in range(1, 9):
            tried = Attempts(slot=self.SLOT, done=False, failed=failed, at=self.SLOT)
            pauses.append((schedule.retry_at(tried) - self.SLOT) / timedelta(minutes=1))
            attempts = {job: Attempts(slot=NOON, done=True) for job in self.EXPRESSIONS}
            attempts["daily"] = tried
            pause = timedelta(minutes=pauses[-1])
            just_before = self.due(attempts, self.SLOT + pause - timedelta(seconds=1))
            then = self.due(attempts, self.SLOT + pause)
            assert (just_before, then) == ([], [Due(job="daily", slot=self.SLOT)])

        assert pauses == [14, 29, 59, 119, 239, 239, 239, 239]  # a minute early

    def test_failure_that_a_clock_ahead_noted_keeps_nobody_waiting(self) -> None:
        attempts = {job: Attempts(slot=NOON, done=True) for job in self.EXPRESSIONS}
        ahead = NOON + timedelta(days=400)
        attempts["daily"] = Attempts(slot=self.SLOT, done=False, failed=1, at=ahead)

        assert self.due(attempts) == [Due(job="daily", slot=self.SLOT)]

    @given(
        st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
        st.sampled_from(ZONES),
        st.sampled_from([DAILY, MONTHLY, "0 4 * * SUN#1", "0 * * * *"]),
    )
    def test_what_was_done_is_due_no_more_until_its_next_slot(
        self, naive: datetime, zone: str, expression: str
    ) -> None:
        now, local = naive.replace(tzinfo=UTC), ZoneInfo(zone)
        slot = schedule.last_slot(expression, now, local)
        following = schedule.next_slot(expression, now, local)
        assert slot is not None and following is not None
        done = {"daily": Attempts(slot=slot, done=True)}

        assert slot <= now < following
        assert (
            schedule.due({"daily": expression}, done, following - timedelta(seconds=1), local) == []
        )
        assert schedule.due({"daily": expression}, done, following, local) == [
            Due(job="daily", slot=following)
        ]


def test_beat_looks_every_quarter_of_an_hour_whatever_its_zone() -> None:
    (entry,) = schedule.beat_schedule().values()

    assert entry["task"] == "mipyme_backup.run_due"
    assert entry["schedule"] == crontab(minute="0,15,30,45")
    assert entry["options"] == {"expires": 900.0}
