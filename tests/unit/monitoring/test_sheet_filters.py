"""Values as Markdown and as a shell read them."""

from __future__ import annotations

import pytest

from mipyme_backup.monitoring.sheet_filters import argument, cell, code


@pytest.mark.parametrize(
    ("value", "text"), [("a | b", r"a \| b"), ("two\nlines", "two lines"), (7, "7")]
)
def test_cell_stays_one_cell(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(("value", "text"), [("/srv", "`/srv`"), ("a`b", "`` a`b ``")])
def test_code_stays_code(value: object, text: str) -> None:
    assert code(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [("/srv/shop", "/srv/shop"), ("/my shop/$x", "'/my shop/$x'")]
)
def test_argument_stays_one_argument(value: object, text: str) -> None:
    assert argument(value) == text
