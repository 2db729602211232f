"""Text from outside, made fit for a terminal, a log, a mail and a database. Imports no Django.

Names of files, folders and tables may hold what moves a cursor, turns the direction of writing, or
cannot be encoded. Such characters are shown by their number, as Python writes them.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping

ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""The categories of Unicode that are escaped: controls, formats, surrogates, separators."""

KEPT = frozenset("\n\t")


def printable(text: str) -> str:
    """Return `text` with what is no visible character escaped; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in KEPT or unicodedata.category(character) not in ESCAPED
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def printable_value(value: object) -> object:
    """Return a JSON value whose texts are printable, those that name its parts, too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {
            printable(name) if isinstance(name, str) else name: printable_value(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [printable_value(part) for part in value]
    return value


class PrintableRecords(logging.Filter):
    """Makes each record of a log printable; a line within one cannot pass for another record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = printable(record.getMessage()).replace("\n", "\n    ")
        record.args = None
        return True
