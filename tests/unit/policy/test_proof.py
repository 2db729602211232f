"""What shows that backups can be restored: verifications, drills, the time it would take."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta, timezone

import pytest

from mipyme_backup.policy.prediction import predict
from mipyme_backup.policy.status import findings
from mipyme_backup.policy.status_facts import (
    BackupFacts,
    CopyFacts,
    DrillFacts,
    MissedSlot,
    RestoreFacts,
)
from mipyme_backup.policy.status_proof import DRILL_EVERY, VERIFY_WITHIN
from tests.unit.policy.shapes import DAY, HOUR, NOW, POLICY, backup, facts, found

VERIFYING = replace(POLICY, verify_within=VERIFY_WITHIN)
DRILLING = replace(POLICY, drill_every=DRILL_EVERY)
HASTY = replace(POLICY, rto=HOUR)


def verified(sequence: int, age: timedelta, days: float | None) -> BackupFacts:
    """A backup whose copies were verified so many days ago, or never."""
    at = None if days is None else NOW - days * DAY
    copies = {name: CopyFacts(status="complete", verified_at=at) for name in ("local", "offsite")}
    return replace(backup(sequence, age), copies=copies)


class TestVerification:
    def test_new_backups_need_none_yet(self) -> None:
        assert found(facts(verified(9, HOUR, None), verified(8, 7 * DAY, None)), VERIFYING) == {}

    @pytest.mark.parametrize("days", [None, 9])
    def test_older_ones_do(self, days: float | None) -> None:
        seen = facts(verified(9, HOUR, None), verified(8, 9 * DAY, days))

        assert found(seen, VERIFYING) == {
            "verify_overdue:local": "warning",
            "verify_overdue:offsite": "warning",
        }

    def test_within_the_time_is_enough(self) -> None:
        assert found(facts(verified(9, HOUR, None), verified(8, 90 * DAY, 7)), VERIFYING) == {}

    def test_one_destination_is_told_once_with_its_command(self) -> None:
        old = [verified(number, (20 - number) * DAY, None) for number in range(1, 8)]
        copy = CopyFacts(status="complete", verified_at=NOW)
        old = [replace(item, copies={**item.copies, "local": copy}) for item in old]

        (finding,) = findings(VERIFYING, facts(verified(9, HOUR, None), *old), NOW)

        assert finding.id == "verify_overdue:offsite"
        assert "3 were not verified" in str(finding.message)
        assert str(finding.hint).endswith("--destination offsite")

    def test_nobody_knows_without_the_catalog(self) -> None:
        seen = facts(verified(9, HOUR, None), verified(8, 9 * DAY, None), catalog=False)

        assert found(seen, VERIFYING) == {"no_catalog": "warning"}

    def test_who_asks_for_none_is_told_nothing(self) -> None:
        assert found(facts(verified(9, HOUR, None), verified(8, 9 * DAY, None))) == {}


def drill(age: timedelta, *, passed: bool = True) -> DrillFacts:
    return DrillFacts(
        finished_at=NOW - age, passed=passed, backup_name="mipyme_backup_9", seconds=60.0
    )


class TestDrills:
    def test_failed_one_is_a_warning_until_one_passes(self) -> None:
        failed = facts(last_drill=drill(HOUR, passed=False))

        assert found(failed, DRILLING) == {"drill_failed": "warning"}
        assert found(facts(last_drill=drill(HOUR)), DRILLING) == {}

    @pytest.mark.parametrize(("days", "late"), [(36, False), (37, True)])
    def test_one_that_is_too_long_ago(self, days: int, late: bool) -> None:
        seen = facts(last_drill=drill(days * DAY))

        assert found(seen, DRILLING) == ({"drill_overdue": "warning"} if late else {})
        assert found(seen) == {}

    @pytest.mark.parametrize(("days", "late"), [(36, False), (37, True)])
    def test_none_ever_is_late_when_the_backups_are_old_enough(self, days: int, late: bool) -> None:
        seen = facts(backup(9), backup(1, days * DAY))

        assert found(seen, DRILLING) == ({"drill_overdue": "warning"} if late else {})

    def test_host_that_cannot_open_its_backups_need_not(self) -> None:
        seen = facts(backup(9), backup(1, 99 * DAY), opens=False)

        assert found(seen, DRILLING) == {"cannot_open": "ok"}

    def test_without_a_good_backup_there_is_nothing_to_rehearse(self) -> None:
        assert found(facts(backups=[]), DRILLING) == {"no_backup": "critical"}


def restore(age: timedelta, seconds: float, name: str = "mipyme_backup_9") -> RestoreFacts:
    return RestoreFacts(finished_at=NOW - age, backup_name=name, seconds=seconds)


class TestPrediction:
    NEWEST = backup(9, data_size=2 * 10**9, media_size=5 * 10**9)
    SMALL = backup(8, data_size=10**9)

    def test_without_a_measurement_it_goes_by_the_rates(self) -> None:
        assert predict(self.NEWEST, [self.NEWEST], []) == timedelta(seconds=100 + 100)

    def test_measured_one_is_scaled(self) -> None:
        half = backup(7, data_size=35 * 10**8)

        expected = predict(self.NEWEST, [self.NEWEST, half], [restore(DAY, 600, half.name)])

        assert expected == timedelta(seconds=1200)

    def test_last_one_counts(self) -> None:
        done = [restore(2 * DAY, 600), restore(DAY, 700), restore(3 * DAY, 800)]

        assert predict(self.NEWEST, [self.NEWEST], done) == timedelta(seconds=700)

    @pytest.mark.parametrize(
        "useless",
        [
            restore(DAY, 60, "mipyme_backup_8"),  # it measured how programs start
            restore(DAY, 60, "forgotten"),
            restore(DAY, 0.5),  # its start was noted after the swap
            restore(DAY, 0),
        ],
    )
    def test_measurement_that_says_nothing_is_passed_over(self, useless: RestoreFacts) -> None:
        assert predict(self.NEWEST, [self.NEWEST, self.SMALL], [useless]) == timedelta(seconds=200)

    @pytest.mark.parametrize(("minutes", "late"), [(60, False), (61, True)])
    def test_above_the_rto_is_a_warning(self, minutes: int, late: bool) -> None:
        seen = facts(predicted_restore=timedelta(minutes=minutes))

        assert found(seen, HASTY) == ({"rto_at_risk": "warning"} if late else {})
        assert found(seen) == {}


def test_missed_slots_are_told_once_a_kind() -> None:
    lima = timezone(timedelta(hours=-5), "PET")
    slots = [("daily", NOW - DAY), ("daily", NOW - 2 * DAY), ("monthly", NOW - 9 * DAY)]
    seen = facts(missed=[MissedSlot(kind=kind, slot=at.astimezone(lima)) for kind, at in slots])

    told = {finding.id: finding for finding in findings(POLICY, seen, NOW)}

    assert told.keys() == {"slot_missed:daily", "slot_missed:monthly"}
    assert "(daily, 2 times)" in str(told["slot_missed:daily"].message)
    assert "2025-01-08 22:00 PET" in str(told["slot_missed:daily"].message)
    assert told["slot_missed:monthly"].level == "warning"


class TestHost:
    @pytest.mark.parametrize(
        ("days", "expected"),
        [
            (31, {}),
            (30, {"key_expiring": "warning"}),
            (0, {"key_expired": "critical"}),
            (-1, {"key_expired": "critical"}),
        ],
    )
    def test_key_that_expires(self, days: int, expected: dict[str, str]) -> None:
        assert found(facts(key_expires=NOW + days * DAY)) == expected

    @pytest.mark.parametrize(("day", "late"), [(10, False), (9, True)])
    def test_review_of_the_policy(self, day: int, late: bool) -> None:
        asked = replace(POLICY, review=date(2025, 1, day))

        assert found(facts(), asked) == ({"policy_review_overdue": "warning"} if late else {})
