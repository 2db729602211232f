"""Each rule about the live databases fires where it should, and nowhere else."""

from __future__ import annotations

import pytest

from mipyme_backup.policy.alerting import Record, Told, decide
from mipyme_backup.policy.status import findings
from mipyme_backup.policy.status_facts import DatabaseFacts
from tests.unit.policy.shapes import DAY, NOW, POLICY, backup, facts, found

ROWS = {"shop_order": 3, "auth_user": 2}


def database(condition: str, alias: str = "default", *, held: bool = True) -> DatabaseFacts:
    return DatabaseFacts(alias=alias, condition=condition, held=held)


@pytest.mark.parametrize("condition", ["missing", "bare"])
def test_one_that_backups_hold_is_lost(condition: str) -> None:
    seen = facts(databases=[database(condition), database("used", "logs")])

    assert found(seen) == {"database_lost:default": "critical"}


@pytest.mark.parametrize("condition", ["used", "unknown", "emptied"])
def test_one_that_is_there_is_not(condition: str) -> None:
    assert found(facts(databases=[database(condition)])) == {}


def test_one_of_which_there_is_nothing_to_restore_is_new() -> None:
    assert found(facts(databases=[database("bare", "analytics", held=False)])) == {}
    new = facts(backups=[], databases=[database("bare", held=False)])
    assert found(new) == {"no_backup": "critical"}


def test_where_no_backup_is_in_sight_this_host_remembers_that_there_was_one() -> None:
    seen = facts(backups=[], highest_known=4, databases=[database("missing", held=False)])

    assert found(seen)["database_lost:default"] == "critical"


def test_catalog_that_went_with_it_is_no_finding_of_its_own() -> None:
    """Its hint is to run migrate, which is what hides the loss."""
    lost = facts(catalog=False, databases=[database("bare")])

    texts = [f"{one.message} {one.hint}" for one in findings(POLICY, lost, NOW)]

    assert found(lost) == {"database_lost:default": "critical"}
    assert "restore --latest" in texts[0] and "Do not run migrate" in texts[0]
    assert "no_catalog" in found(facts(catalog=False, databases=[database("used")]))


def test_problems_that_the_catalog_told_of_have_not_ended() -> None:
    told = Told(level="warning", since=NOW - DAY, text="a slot was missed")
    lost = facts(catalog=False, databases=[database("missing")])

    decision = decide(
        Record(findings={"slot_missed:daily": told}),
        findings(POLICY, lost, NOW),
        digest=None,
        now=NOW,
    )

    assert decision.cleared == []


def test_every_row_gone_is_told_before_the_next_backup() -> None:
    seen = facts(
        backup(rows=ROWS), databases=[database("emptied"), database("bare", "x", held=False)]
    )
    texts = [str(one.hint) for one in findings(POLICY, seen, NOW)]

    assert found(seen) == {"rows_gone": "critical"}
    assert "restore 00000000" in texts[0]


def test_rows_of_one_database_or_one_table_come_and_go() -> None:
    both = [database("emptied"), database("used", "logs")]

    assert found(facts(backup(rows=ROWS), databases=both)) == {}
    assert found(facts(backup(rows={"queue": 9}), databases=[database("emptied")])) == {}
