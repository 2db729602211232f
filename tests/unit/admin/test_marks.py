"""How values look on the pages."""

from __future__ import annotations

import pytest

from mipyme_backup.admin import marks


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (134.4, "2 min 14 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (200_000, "2 d 7 h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert marks.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(1234, "+1,234"), (-5, "-5"), (0, "0")])
def test_change_has_its_sign(value: int, text: str) -> None:
    assert marks.change(value) == text


def test_every_tone_has_a_sign_of_its_own() -> None:
    assert len({*marks.SIGNS.values()}) == len(marks.SIGNS)


def test_mark_is_a_word_and_a_sign_that_is_not_read_out() -> None:
    found = marks.mark(marks.BAD, "<failed>")

    assert "&lt;failed&gt;" in found
    assert '<span aria-hidden="true">✕</span>' in found


def test_unknown_status_is_neither_good_nor_bad() -> None:
    assert f"backup-{marks.NEUTRAL}" in marks.status("some day", "some day")
