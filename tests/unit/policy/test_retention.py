"""Retention over ten thousand random histories, and each of its rules alone."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mipyme_backup.messages import Message
from mipyme_backup.policy.retention import Copy, Policy, Run, State, held_back, plan

NOW = datetime(2025, 6, 1, 5, tzinfo=UTC)
DAYS = {"daily": 30, "monthly": 90, "manual": 30, "pre_deploy": 30, "safety": 7}
POLICY = Policy(days=DAYS, minimum_good=3)
HISTORIES = 10_000
STATES: tuple[State, ...] = ("good", "good", "good", "good", "damaged", "unreadable", "foreign")


def aged(days: float, **values: Any) -> Copy:
    """Return a good daily copy of this age; its sequence number fits, unless it is given."""
    made = {
        "name": f"daily_{days}",
        "state": "good",
        "kind": "daily",
        "sequence": round(10_000 - 10 * days),
        "sources": frozenset({"database:default", "media"}),
        **values,
    }
    return Copy(finished_at=NOW - timedelta(days=days), **made)


def kept(copies: list[Copy], policy: Policy = POLICY) -> set[str]:
    return {decision.copy.name for decision in plan(policy, copies, NOW) if decision.keep}


def reason(copies: list[Copy], name: str) -> str:
    (found,) = [d for d in plan(POLICY, copies, NOW) if d.copy.name == name]
    return str(found.reason)


class TestEmpty:
    """A backup of a database without tables: kept for its days, and for nothing else."""

    def test_it_protects_itself_and_displaces_nobody(self) -> None:
        part = [aged(days, whole=False) for days in (40, 50, 60)]
        empty = [aged(days, whole=False, empty=True) for days in (31, 32, 33)]

        assert kept([*part, *empty]) == {copy.name for copy in part}

    def test_young_or_pinned_it_stays(self) -> None:
        young = aged(1, whole=False, empty=True)
        pinned = aged(99, whole=False, empty=True, pinned=True)

        assert kept([young, pinned]) == {young.name, pinned.name}


YOUNG = [aged(days) for days in (1, 2, 3)]
"""As many as are always kept, so that they protect nobody else."""


class TestRandomHistories:
    def test_what_must_survive_survives_and_every_decision_has_its_reason(self) -> None:
        chance = random.Random(20250601)
        deleted = 0
        for _history in range(HISTORIES):
            copies, policy = _history_of(chance), _policy(chance)
            decisions = plan(policy, copies, NOW)
            gone = {d.copy.name for d in decisions if not d.keep}
            deleted += len(gone)

            assert [d.copy for d in decisions] == copies
            assert all(str(d.reason) for d in decisions)
            assert gone.isdisjoint(_last_good(copies, policy.minimum_good))
            for copy in copies:
                if copy.name in gone:
                    assert not (copy.pinned or copy.in_use)
                    assert copy.state in {"good", "damaged"}
                    assert copy.finished_at is not None
                    assert NOW - copy.finished_at > timedelta(days=policy.days[copy.kind])
            shuffled = chance.sample(copies, len(copies))
            assert {d.copy.name: d for d in plan(policy, shuffled, NOW)} == {
                d.copy.name: d for d in decisions
            }
            more = _more(policy, chance)
            assert {d.copy.name for d in plan(more, copies, NOW) if not d.keep} <= gone
        assert deleted > HISTORIES  # or nothing was tried

    def test_one_dated_ahead_makes_no_difference_to_the_others(self) -> None:
        chance = random.Random(20250602)
        for _history in range(HISTORIES // 4):
            copies, policy = _history_of(chance), _policy(chance)
            ahead = replace(
                aged(-chance.uniform(0.01, 4000)), name="ahead", sequence=chance.randrange(300)
            )

            with_it = plan(policy, [*copies, ahead], NOW)

            assert with_it[-1].keep
            assert with_it[:-1] == plan(policy, copies, NOW)

    def test_another_pin_changes_that_one_alone(self) -> None:
        chance = random.Random(20250603)
        for _history in range(HISTORIES // 4):
            copies, policy = [*_history_of(chance), aged(500)], _policy(chance)
            number = chance.randrange(len(copies))
            before = plan(policy, copies, NOW)
            copies[number] = replace(copies[number], pinned=True)

            after = plan(policy, copies, NOW)

            assert after[number].keep
            del before[number], after[number]
            assert after == before


class TestAge:
    @pytest.mark.parametrize("kind", sorted(DAYS))
    def test_each_kind_has_its_days_and_the_limit_itself_is_kept(self, kind: str) -> None:
        second = 1 / 86400
        limit = DAYS[kind]
        copies = [
            *YOUNG,
            aged(limit, name="at the limit", kind=kind),
            aged(limit + second, name="beyond", kind=kind),
        ]

        assert kept(copies) == {*(copy.name for copy in YOUNG), "at the limit"}
        assert reason(copies, "beyond") == f"Older than {limit} days."
        assert reason(copies, "at the limit") == f"Not older than {limit} days."

    def test_kind_that_nobody_knows_is_kept(self) -> None:
        copies = [*YOUNG, aged(4000, name="hourly_1", kind="hourly")]

        assert "hourly_1" in kept(copies)
        assert "hourly" in reason(copies, "hourly_1")

    def test_clock_that_was_set_back_makes_no_backup_old(self) -> None:
        copies = [*YOUNG, aged(20_000, name="of 1970", sequence=9_995)]

        assert "of 1970" in kept(copies)
        assert "an earlier one has a later date" in reason(copies, "of 1970")

    def test_date_in_the_future_says_nothing_of_those_before_it(self) -> None:
        copies = [*YOUNG, aged(40, name="old"), aged(-400, name="ahead", sequence=1)]

        assert kept(copies) == {*(copy.name for copy in YOUNG), "ahead"}
        assert reason(copies, "ahead") == "Its date lies in the future."


class TestNewestGoodOnes:
    def test_last_ones_stay_however_old(self) -> None:
        copies = [aged(days) for days in (400, 500, 600, 700, 800)]

        assert kept(copies) == {"daily_400", "daily_500", "daily_600"}
        assert reason(copies, "daily_600") == "One of the newest 3 good ones here."

    def test_damaged_safety_partial_and_future_ones_do_not_count(self) -> None:
        copies = [
            aged(1, name="damaged", state="damaged"),
            aged(2, name="safety", kind="safety"),
            aged(3, name="partial", whole=False),
            aged(-4, name="ahead"),
            *(aged(days) for days in (400, 500, 600, 700)),
        ]

        assert {"daily_400", "daily_500", "daily_600"} <= kept(copies)
        assert "daily_700" not in kept(copies)

    def test_newest_one_stays_though_it_is_damaged(self) -> None:
        copies = [
            aged(100, state="damaged"),
            aged(110, state="damaged"),
            *(aged(days) for days in (400, 500, 600)),
        ]

        assert "daily_100" in kept(copies) and "daily_110" not in kept(copies)
        assert reason(copies, "daily_100") == "The newest one here, though it is damaged."

    def test_damaged_ones_fill_up_their_number(self) -> None:
        copies = [
            aged(500),
            *(aged(days, state="damaged") for days in (400, 600, 700, 800)),
        ]

        assert kept(copies) == {"daily_400", "daily_500", "daily_600"}
        assert reason(copies, "daily_600").startswith("Fewer than 3 good whole ones")

    def test_where_nothing_is_whole_the_newest_of_each_source_stay(self) -> None:
        def part(days: int, source: str) -> Copy:
            return aged(days, name=f"{source}_{days}", sources=frozenset({source}), whole=False)

        copies = [part(days, "media") for days in (100, 110, 120, 130)]
        copies += [part(days, "database:default") for days in (400, 410, 420, 430)]

        assert kept(copies) == {copy.name for copy in copies} - {
            "media_130",
            "database:default_430",
        }

    def test_the_sequence_number_says_which_is_newest(self) -> None:
        copies = [
            aged(days, sequence=number) for days, number in ((400, 1), (410, 2), (420, 3), (430, 4))
        ]

        assert kept(copies) == {"daily_410", "daily_420", "daily_430"}


class TestWhatIsNeverDeleted:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"state": "unreadable"}, "cannot be read"),
            ({"state": "foreign"}, "another project"),
            ({"pinned": True}, "pinned"),
            ({"in_use": True}, "undone"),
        ],
    )
    def test_it_is_kept_with_its_reason(self, values: dict[str, Any], said: str) -> None:
        copies = [*YOUNG, aged(4000, name="old", **values)]

        assert "old" in kept(copies)
        assert said in reason(copies, "old")
        assert "old" not in kept([*YOUNG, aged(4000, name="old")])

    def test_unreadable_one_needs_no_date(self) -> None:
        assert kept([Copy(name="unknown", state="unreadable")]) == {"unknown"}


class TestHeldBack:
    @pytest.mark.parametrize("status", ["failed", "abandoned", "running"])
    def test_newest_run_that_made_no_backup_holds_everything_back(self, status: str) -> None:
        text = held_back(Run(name="manual_1", status=status))

        assert text is not None and "manual_1" in str(text)

    @pytest.mark.parametrize("status", ["complete", "partial"])
    def test_one_that_made_a_backup_does_not(self, status: str) -> None:
        assert held_back(Run(name="manual_1", status=status)) is None

    def test_neither_does_a_history_without_runs(self) -> None:
        assert held_back(None) is None

    def test_suspect_one_does_with_its_reason(self) -> None:
        suspect = Message("no rows in %(table)s", {"table": "shop_order"})

        text = held_back(Run(name="manual_1", status="complete", suspect=suspect))

        assert "no rows in shop_order" in str(text)


def _history_of(chance: random.Random) -> list[Copy]:
    return [_copy_of(chance, number) for number in range(chance.randrange(14))]


def _copy_of(chance: random.Random, number: int) -> Copy:
    age = chance.choice((-1, 1, 1, 1, 1, 1)) * chance.expovariate(1 / 90)
    return aged(
        age,
        name=f"backup_{number}",
        id=f"{number:016x}",
        kind=chance.choice((*DAYS, "daily", "daily", "daily")),
        state=chance.choice(STATES),
        whole=chance.random() < 0.8,
        sources=frozenset(chance.sample(("database:default", "fixtures", "media"), 2)),
        # The clock was not always right.
        sequence=round(300 - age) if chance.random() < 0.9 else chance.randrange(300),
        pinned=chance.random() < 0.1,
        in_use=chance.random() < 0.05,
    )


def _policy(chance: random.Random) -> Policy:
    days = {kind: chance.randrange(1, 90) for kind in DAYS}
    return Policy(days=days, minimum_good=chance.randrange(1, 5))


def _more(policy: Policy, chance: random.Random) -> Policy:
    """Return a policy that asks for more to be kept, or for as much."""
    return Policy(
        days={kind: days + chance.randrange(60) for kind, days in policy.days.items()},
        minimum_good=policy.minimum_good + chance.randrange(4),
    )


def _last_good(copies: list[Copy], count: int) -> set[str]:
    """Return the newest `count` good whole ones, told anew: by their numbers, safety apart."""
    good = [
        (copy.sequence, copy.finished_at, copy.name)
        for copy in copies
        if copy.state == "good"
        and copy.whole
        and copy.kind != "safety"
        and copy.finished_at is not None
        and copy.finished_at <= NOW
    ]
    return {name for _sequence, _moment, name in sorted(good)[-count:]}
