"""The disaster checklist after what people did to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mipyme_backup.policy.checklist import Action, Checklist, Entry, checklist

START = datetime(2026, 7, 15, 12, tzinfo=UTC)
LINES = ("A backup is there", "The team is told")


def test_nothing_is_ticked_off_at_first() -> None:
    found = checklist(LINES, [])

    assert [line.text for line in found.lines] == [*LINES]
    assert (found.done, found.began) == (0, None)


def test_who_ticked_a_line_off_first_stays() -> None:
    found = checklist(LINES, _entries(("ticked", LINES[0], "ana"), ("ticked", LINES[0], "bea")))

    assert _by(found) == ["ana", None]
    assert found.done == 1


def test_what_was_taken_back_can_be_ticked_off_again() -> None:
    done = [("ticked", LINES[0], "ana"), ("cleared", LINES[0], "bea")]

    assert _by(checklist(LINES, _entries(*done))) == [None, None]
    assert _by(checklist(LINES, _entries(*done, ("ticked", LINES[0], "cora")))) == ["cora", None]


def test_fresh_checklist_forgets_the_ticks_before_it() -> None:
    found = checklist(
        LINES,
        _entries(("ticked", LINES[0], "ana"), ("began", "", "bea"), ("ticked", LINES[1], "ana")),
    )

    assert _by(found) == [None, "ana"]
    assert found.began is not None and found.began.by == "bea"


def test_tick_of_a_line_that_is_no_longer_asked_for_is_not_shown() -> None:
    found = checklist(LINES[1:], _entries(("ticked", LINES[0], "ana")))

    assert (_by(found), found.done) == ([None], 0)


def test_line_that_is_named_twice_is_one() -> None:
    assert len(checklist([*LINES, LINES[0]], []).lines) == 2


@pytest.mark.parametrize(
    ("action", "line", "needed"),
    [
        ("ticked", LINES[0], False),
        ("ticked", LINES[1], True),
        ("cleared", LINES[0], True),
        ("cleared", LINES[1], False),
        ("ticked", "no line of it", False),
        ("cleared", "no line of it", False),
        ("began", "", True),
    ],
)
def test_what_would_change_nothing_is_not_needed(action: Action, line: str, needed: bool) -> None:
    found = checklist(LINES, _entries(("ticked", LINES[0], "ana")))

    assert found.needs(action, line) is needed


def test_no_fresh_checklist_over_a_fresh_one() -> None:
    assert not checklist(LINES, []).needs("began", "")


def _entries(*done: tuple[str, str, str]) -> list[Entry]:
    return [
        Entry(action=action, line=line, at=START + timedelta(minutes=minute), by=by)  # type: ignore[arg-type]
        for minute, (action, line, by) in enumerate(done)
    ]


def _by(found: Checklist) -> list[str | None]:
    return [line.ticked.by if line.ticked else None for line in found.lines]
