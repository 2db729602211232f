"""Each rule fires where it should, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipyme_backup.messages import Message
from mipyme_backup.policy.status import LEVELS, Finding, age_text, findings, level_of
from mipyme_backup.policy.status_facts import BackupFacts, DrillFacts, Facts, RunFacts, Silence
from tests.unit.policy.shapes import HOUR, NOW, POLICY, backup, destination, facts, found


def test_where_all_is_well_there_is_nothing_to_say() -> None:
    assert found(facts()) == {}
    assert level_of([]) == "ok"


class TestNoBackup:
    def test_none_at_all_is_critical(self) -> None:
        assert found(facts(backups=[])) == {"no_backup": "critical"}

    @pytest.mark.parametrize("changes", [{"whole": False}, {"kind": "safety"}])
    def test_one_that_does_not_count_is_none(self, changes: dict[str, Any]) -> None:
        assert found(facts(backup(**changes))) == {"no_backup": "critical"}

    def test_one_that_does_not_count_hides_nothing(self) -> None:
        old = backup(8, timedelta(hours=26))

        assert found(facts(backup(9, whole=False), old)) == {"backup_old": "critical"}
        assert found(facts(backup(9, kind="safety", copies={"local": "damaged"}))) == {
            "no_backup": "critical"
        }


class TestAge:
    def test_the_limit_itself_is_allowed(self) -> None:
        assert found(facts(backup(age=POLICY.max_age))) == {}

    def test_older_is_critical(self) -> None:
        seen = facts(backup(age=POLICY.max_age + timedelta(seconds=1)))

        assert found(seen) == {"backup_old": "critical"}

    @pytest.mark.parametrize(
        ("looked_at", "expected"),
        [
            ("2026-11-01T02:00:30-05:00", {}),  # 25 hours after the last one was due, and a look
            ("2026-11-01T03:00:09-05:00", {}),
            ("2026-11-01T03:00:11-05:00", {"backup_old": "critical"}),
        ],
    )
    def test_hour_that_the_clocks_are_set_back_by_does_not_count(
        self, looked_at: str, expected: dict[str, str]
    ) -> None:
        policy = replace(POLICY, zone=ZoneInfo("America/New_York"))
        made = backup(finished_at=datetime.fromisoformat("2026-10-31T02:00:10-04:00"))
        now = datetime.fromisoformat(looked_at)

        assert {one.id: one.level for one in findings(policy, facts(made), now)} == expected

    def test_hour_that_the_clocks_are_set_forward_by_makes_nothing_older(self) -> None:
        policy = replace(POLICY, zone=ZoneInfo("America/New_York"))
        made = backup(finished_at=datetime.fromisoformat("2026-03-07T02:00:10-05:00"))
        now = datetime.fromisoformat("2026-03-08T04:00:10-04:00")  # 25 hours later

        assert findings(policy, facts(made), now) == []

    def test_newest_is_who_has_the_highest_number_not_the_latest_date(self) -> None:
        seen = facts(backup(9, 26 * HOUR), backup(8, HOUR))

        assert found(seen) == {"backup_old": "critical"}

    def test_damaged_ones_make_nothing_younger(self) -> None:
        damaged = backup(9, HOUR, copies={"local": "damaged", "offsite": "missing"})

        assert found(facts(damaged, backup(8, 26 * HOUR))) == {
            "newest_damaged": "critical",
            "backup_old": "critical",
        }


class TestFuture:
    def test_two_clocks_may_differ_a_little(self) -> None:
        assert found(facts(backup(age=timedelta(minutes=-4)))) == {}

    def test_date_ahead_of_now_is_told(self) -> None:
        seen = facts(backup(9, -HOUR), backup(8))

        assert found(seen) == {"backup_from_future": "warning"}

    @pytest.mark.parametrize("ahead", [HOUR, 400 * HOUR, timedelta(days=365 * 900)])
    def test_where_it_is_the_only_one_nobody_knows_its_age(self, ahead: timedelta) -> None:
        partly = backup(8, whole=False)
        safety = backup(7, kind="safety")
        lost = backup(6, copies={"local": "damaged", "offsite": "missing"})
        seen = facts(backup(9, -ahead), partly, safety, lost)

        assert found(seen) == {"backup_from_future": "critical"}

    def test_a_destination_with_such_backups_alone_has_none_of_a_known_age(self) -> None:
        fresh = backup(8, copies={"local": "complete"})
        ahead = backup(9, -400 * HOUR, copies={"offsite": "complete"})

        assert found(facts(ahead, fresh)) == {
            "backup_from_future": "warning",
            "destination_old:offsite": "warning",
        }

    def test_a_slot_a_proof_or_a_drill_in_the_future_stands_for_nothing(self) -> None:
        policy = replace(POLICY, verify_within=8 * 24 * HOUR, drill_every=36 * 24 * HOUR)
        ahead = NOW + 400 * HOUR
        drill = DrillFacts(finished_at=ahead, passed=True, backup_name="x", seconds=1)
        old = backup(7, 40 * 24 * HOUR)
        proved = replace(
            old, copies={n: replace(c, verified_at=ahead) for n, c in old.copies.items()}
        )

        assert found(facts(backup(9), proved, last_drill=drill), policy) == {
            "verify_overdue:local": "warning",
            "verify_overdue:offsite": "warning",
            "drill_overdue": "warning",
        }

    def test_it_makes_nothing_younger(self) -> None:
        seen = facts(backup(9, -400 * HOUR), backup(8, 26 * HOUR))

        assert found(seen) == {"backup_old": "critical", "backup_from_future": "warning"}


class TestDamage:
    @pytest.mark.parametrize("status", ["damaged", "missing", "failed"])
    def test_newest_without_a_good_copy_is_critical(self, status: str) -> None:
        lost = backup(9, copies={"local": "damaged", "offsite": status})

        assert found(facts(lost, backup(8, 2 * HOUR))) == {"newest_damaged": "critical"}

    def test_one_good_copy_makes_it_a_warning(self) -> None:
        seen = facts(backup(copies={"local": "damaged", "offsite": "complete"}))

        assert found(seen) == {"copy_damaged:local": "warning"}

    def test_older_damage_is_no_concern_of_the_newest(self) -> None:
        older = backup(8, 2 * HOUR, copies={"local": "damaged", "offsite": "damaged"})

        assert found(facts(backup(9), older)) == {}


class TestCopies:
    @pytest.mark.parametrize("status", ["missing", "failed", "pending", "damaged"])
    def test_copy_that_is_not_good_is_a_warning_with_the_remedy(self, status: str) -> None:
        seen = facts(backup(copies={"local": "complete", "offsite": status}))

        (finding,) = findings(POLICY, seen, NOW)

        assert (finding.id, finding.level) == (f"copy_{status}:offsite", "warning")
        assert "mipyme_backup_9" in str(finding.message)
        assert "--complete 00000000 --destination offsite" in str(finding.hint)
        assert ("verify_backups 00000000" in str(finding.hint)) == (status == "damaged")

    def test_destination_that_is_away_is_told_once(self) -> None:
        seen = facts(
            backup(copies={"local": "complete", "offsite": "failed"}),
            destinations=[destination("local"), destination("offsite", reachable=False)],
        )

        assert found(seen) == {"destination_unreachable:offsite": "warning"}

    def test_backup_that_was_not_meant_for_a_destination_is_not_missed_there(self) -> None:
        seen = facts(backup(9, copies={"local": "complete"}), backup(8, 2 * HOUR))

        assert found(seen) == {}

    def test_destination_that_gets_no_more_backups_is_a_warning(self) -> None:
        seen = facts(backup(9, copies={"local": "complete"}), backup(8, 26 * HOUR))

        assert found(seen) == {"destination_old:offsite": "warning"}

    def test_destination_without_any_is_a_warning(self) -> None:
        seen = facts(backup(copies={"local": "complete"}))

        assert found(seen) == {"destination_empty:offsite": "warning"}

    def test_where_all_are_old_no_destination_is_blamed(self) -> None:
        seen = facts(backup(9, 26 * HOUR, copies={"local": "complete"}), backup(8, 50 * HOUR))

        assert found(seen) == {"backup_old": "critical"}


class TestReach:
    def test_one_of_two_is_a_warning_with_its_reason_and_hint(self) -> None:
        away = destination(
            "offsite",
            reachable=False,
            writable=None,
            error=Message("no route to %(host)s", {"host": "h"}),
            hint=Message("Look at the cable."),
        )

        (finding,) = findings(POLICY, facts(destinations=[destination("local"), away]), NOW)

        assert (finding.id, finding.level) == ("destination_unreachable:offsite", "warning")
        assert str(finding.message).endswith("no route to h")
        assert str(finding.hint) == "Look at the cable."

    def test_none_left_is_critical(self) -> None:
        away = [destination(name, reachable=False) for name in ("local", "offsite")]

        assert found(facts(destinations=away)) == {
            "destination_unreachable:local": "critical",
            "destination_unreachable:offsite": "critical",
        }

    def test_one_that_takes_nothing_is_as_good_as_away(self) -> None:
        full = destination("local", writable=False)

        assert found(facts(destinations=[full, destination("offsite")])) == {
            "destination_unwritable:local": "warning"
        }
        assert found(facts(destinations=[full])) == {"destination_unwritable:local": "critical"}


def test_manifests_that_cannot_be_read_are_told_with_a_few_names() -> None:
    strange = destination(
        "offsite", unreadable=["a", "b", "c", "d"], unreadable_reason=Message("no key")
    )

    (finding,) = findings(POLICY, facts(destinations=[destination("local"), strange]), NOW)

    assert (finding.id, finding.level) == ("unreadable:offsite", "warning")
    assert "4: a, b, c, …): no key" in str(finding.message)


class TestRuns:
    @pytest.mark.parametrize("status", ["failed", "abandoned"])
    def test_bad_end_of_the_last_run_is_a_warning(self, status: str) -> None:
        run = RunFacts(name="manual_1", status=status, started_at=NOW, error="no disk\nat all")

        (finding,) = findings(POLICY, facts(last_run=run), NOW)

        assert (finding.id, finding.level) == (f"last_run_{status}", "warning")
        assert "manual_1" in str(finding.message) and "at all" not in str(finding.message)
        assert ("no disk" in str(finding.message)) == (status == "failed")

    @pytest.mark.parametrize("status", ["complete", "partial"])
    def test_good_end_is_none(self, status: str) -> None:
        run = RunFacts(name="manual_1", status=status, started_at=NOW)

        assert found(facts(last_run=run)) == {}

    @pytest.mark.parametrize(("hours", "expected"), [(25, {}), (26, {"run_endless": "warning"})])
    def test_run_that_does_not_end(self, hours: int, expected: dict[str, str]) -> None:
        run = RunFacts(name="manual_1", status="running", started_at=NOW - hours * HOUR)

        assert found(facts(running=run)) == expected


class TestHost:
    def test_no_encryption_is_a_warning(self) -> None:
        assert found(facts(encryption=None, key_fingerprint=None)) == {"not_encrypted": "warning"}

    def test_backups_that_this_host_cannot_open_are_no_fault(self) -> None:
        seen = facts(opens=False)

        assert found(seen) == {"cannot_open": "ok"}
        assert level_of(findings(POLICY, seen, NOW)) == "ok"

    def test_catalog_that_cannot_be_read_is_a_warning(self) -> None:
        assert found(facts(catalog=False)) == {"no_catalog": "warning"}


class TestSize:
    @pytest.mark.parametrize(("free", "expected"), [(100, {}), (99, {"disk_low:local": "warning"})])
    def test_disk_of_a_local_destination(self, free: int, expected: dict[str, str]) -> None:
        local = destination("local", free=free, total=1000)

        assert found(facts(destinations=[local, destination("offsite")])) == expected

    @pytest.mark.parametrize("seconds", [None, 0, -300, 300, -301, 301])
    def test_clock_that_is_more_than_five_minutes_off(self, seconds: int | None) -> None:
        skew = None if seconds is None else timedelta(seconds=seconds)
        off = seconds is not None and abs(seconds) > 300
        seen = facts(destinations=[destination("local", skew=skew)])

        assert found(seen) == ({"clock_skewed:local": "warning"} if off else {})

    def test_space_of_others_is_not_known_or_not_ours(self) -> None:
        places = [
            destination("local", free=None, total=None),
            destination("offsite", free=0, total=1000),
        ]

        assert found(facts(destinations=places)) == {}

    @pytest.mark.parametrize(
        ("size", "expected"), [(1024, {}), (1023, {"backup_small": "warning"})]
    )
    def test_newest_backup(self, size: int, expected: dict[str, str]) -> None:
        assert found(facts(backup(stored_size=size), backup(8, stored_size=1))) == expected


def test_the_worst_comes_first() -> None:
    seen = facts(backups=[], opens=False, catalog=False)

    assert [finding.level for finding in findings(POLICY, seen, NOW)] == [
        "critical",
        "warning",
        "ok",
    ]


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(0), "0 min"),
        (timedelta(minutes=59, seconds=59), "59 min"),
        (timedelta(hours=1), "1 h"),
        (timedelta(hours=25, minutes=30), "25 h 30 min"),
        (timedelta(hours=48), "2 d"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
    ],
)
def test_ages_are_told_in_few_words(age: timedelta, text: str) -> None:
    assert age_text(age) == text


def test_the_rules_need_no_django() -> None:
    code = "import sys, mipyme_backup.policy.status; print('django' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


STATUSES = st.sampled_from(["pending", "complete", "failed", "missing", "damaged"])
NAMES = ("local", "offsite", "tape")
BACKUPS = st.builds(
    lambda sequence, hours, **changes: backup(sequence, hours * HOUR, **changes),
    st.integers(0, 99),
    st.integers(-50, 2000),
    whole=st.booleans(),
    kind=st.sampled_from(["daily", "monthly", "manual", "pre_deploy", "safety"]),
    stored_size=st.integers(0, 4096),
    copies=st.dictionaries(st.sampled_from(NAMES), STATUSES),
)
PLACES = st.fixed_dictionaries(
    {
        "reachable": st.booleans(),
        "writable": st.none() | st.booleans(),
        "free": st.none() | st.integers(0, 100),
        "total": st.none() | st.integers(0, 100),
        "unreadable": st.lists(st.text(max_size=5), max_size=5),
    }
)
RUNS = st.none() | st.builds(
    lambda status, hours: RunFacts(name="run", status=status, started_at=NOW - hours * HOUR),
    st.sampled_from(["running", "complete", "partial", "failed", "abandoned"]),
    st.integers(0, 99),
)
FACTS = st.builds(
    lambda places, backups, **others: facts(
        backups=backups,
        destinations=[
            destination(name, **place) for name, place in zip(NAMES, places, strict=False)
        ],
        **others,
    ),
    st.lists(PLACES, min_size=1, max_size=3),
    st.lists(BACKUPS, max_size=6, unique_by=lambda item: item.sequence),
    last_run=RUNS,
    running=RUNS,
    catalog=st.booleans(),
    encryption=st.none() | st.just("gpg"),
    opens=st.booleans(),
    highest_known=st.integers(0, 99),
    key_expires=st.none() | st.just(NOW),
    last_drill=st.none()
    | st.builds(
        lambda days, passed: DrillFacts(
            finished_at=NOW - timedelta(days=days), passed=passed, backup_name="b", seconds=1.0
        ),
        st.integers(0, 99),
        st.booleans(),
    ),
    predicted_restore=st.none() | st.timedeltas(timedelta(0), timedelta(days=1)),
)
STRICT = replace(
    POLICY,
    max_shrink=0.5,
    rto=HOUR,
    verify_within=timedelta(days=8),
    drill_every=timedelta(days=36),
    review=date(2025, 1, 1),
)


@pytest.mark.parametrize(("known", "expected"), [(9, {}), (10, {"newest_hidden": "warning"})])
def test_newest_one_that_is_hidden(known: int, expected: dict[str, str]) -> None:
    part = backup(10, whole=False)

    assert found(facts(backup(9), part, highest_known=known)) == expected


@given(FACTS)
def test_every_finding_can_be_told_and_acted_upon(seen: Facts) -> None:
    told = findings(STRICT, seen, NOW)

    assert len({finding.id for finding in told}) == len(told)
    assert all(
        str(finding.message).strip() and "%(" not in str(finding.message) for finding in told
    )
    assert all(str(f.hint).strip() and "%(" not in str(f.hint) for f in told)
    assert [LEVELS.index(f.level) for f in told] == sorted(
        (LEVELS.index(f.level) for f in told), reverse=True
    )


@given(FACTS)
def test_without_a_young_good_backup_it_is_never_fine(seen: Facts) -> None:
    young = [
        item
        for item in seen.backups
        if item.counts and item.good and abs(NOW - item.finished_at) <= POLICY.max_age
    ]
    if not young:
        assert level_of(findings(POLICY, seen, NOW)) != "ok"


@given(FACTS, BACKUPS)
def test_what_does_not_count_changes_nothing(seen: Facts, other: BackupFacts) -> None:
    partial = replace(other, whole=False)

    assert findings(POLICY, replace(seen, backups=[*seen.backups, partial]), NOW) == findings(
        POLICY, seen, NOW
    )


@given(FACTS, st.randoms())
def test_the_order_of_the_backups_does_not_matter(seen: Facts, random: Any) -> None:
    shuffled = random.sample(list(seen.backups), len(seen.backups))

    def told(facts_: Facts) -> list[Finding]:
        return findings(POLICY, facts_, NOW)

    assert told(replace(seen, backups=shuffled)) == told(seen)


class TestOldKeys:
    def test_backups_of_another_key_are_told_with_the_setting(self) -> None:
        other = destination("offsite", need_key=["a", "b", "c", "d"])

        (finding,) = findings(POLICY, facts(destinations=[destination("local"), other]), NOW)

        assert (finding.id, finding.level) == ("old_key_needed:offsite", "warning")
        assert "4 backups" in str(finding.message) and "a, b, c, …" in str(finding.message)
        assert "old_passphrase_files" in str(finding.hint)

    def test_number_that_cannot_be_read_was_not_removed(self) -> None:
        places = [destination("local", need_key=["a"]), destination("offsite", need_key=["a"])]
        seen = facts(destinations=places, highest_known=10)

        (hidden,) = [one for one in findings(POLICY, seen, NOW) if one.id == "newest_hidden"]

        assert "one of 1 that need another key" in str(hidden.message)
        assert "removed" not in f"{hidden.message} {hidden.hint}"


class TestPlaces:
    def test_copies_on_this_server_alone(self) -> None:
        here = [destination("local", here=True)]

        assert found(facts(destinations=here)) == {"copies_here": "warning"}
        assert found(facts(destinations=[*here, destination("offsite")])) == {}

    def test_where_nothing_was_looked_at_nothing_is_said(self) -> None:
        assert "copies_here" not in found(facts(destinations=[]))


class TestSilence:
    @pytest.mark.parametrize(
        ("since", "text"),
        [(None, "has never been called"), (NOW - 3 * HOUR, "for 3 h, although a job was due")],
    )
    def test_schedule_that_nothing_calls(self, since: datetime | None, text: str) -> None:
        (finding,) = findings(POLICY, facts(silence=Silence(since=since)), NOW)

        assert (finding.id, finding.level) == ("schedule_silent", "warning")
        assert text in str(finding.message)
        assert "install-cron" in str(finding.hint) and "None" in str(finding.hint)
