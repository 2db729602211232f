"""What is no visible character is shown by its number, wherever it would be obeyed."""

from __future__ import annotations

import logging

import pytest

from mipyme_backup.printable import PrintableRecords, printable, printable_value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ñandú 日本 🎁\xa0x", "ñandú 日本 🎁\xa0x"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x07\r\x9b31m", "\\x1b[2J\\x07\\r\\x9b31m"),
        ("gpj\u202e.exe\u2066", "gpj\\u202e.exe\\u2066"),
        ("\udcff\x00\u2028", "\\udcff\\x00\\u2028"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode()


def test_value_of_json() -> None:
    assert printable_value({"a\x00": ["\x1b", 1, None, {"b": "\udcff"}]}) == {
        "a\\x00": ["\\x1b", 1, None, {"b": "\\udcff"}]
    }


def test_record_of_a_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.printable")
    logger.addFilter(PrintableRecords())

    logger.warning("Passed over %s", "x\x1b[2J\nERROR forged")

    assert caplog.messages == ["Passed over x\\x1b[2J\n    ERROR forged"]
