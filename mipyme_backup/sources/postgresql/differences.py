"""Compares a restored database with what the manifest says of it."""

from __future__ import annotations

from typing import Any

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.base import Facts
from mipyme_backup.sources.postgresql import content, counting


def differences(cursor: Any, facts: Facts) -> list[Message]:
    """Return every difference: rows, validity, sequences, counts of objects.

    What was not valid, or behind its column, in the source already is none.
    """
    return [*_rows_differ(cursor, facts), *_objects_differ(cursor, facts)]


def _rows_differ(cursor: Any, facts: Facts) -> list[Message]:
    expected = facts.get("tables") or {}
    here = [table for table in content.tables(cursor) if table.label in expected]
    counts = counting.row_counts(cursor, here)
    return [
        Message(
            _("%(table)s has %(found)s rows, the backup says %(expected)d"),
            {"table": table, "found": counts.get(table, "-"), "expected": rows},
        )
        for table, rows in expected.items()
        if counts.get(table) != rows
    ]


def _objects_differ(cursor: Any, facts: Facts) -> list[Message]:
    behind = set(counting.sequences_behind(cursor)) - set(facts.get("sequences_behind") or ())
    not_valid = set(content.names(cursor, content.UNVALIDATED)) - set(facts.get("not_valid") or ())
    found = [
        Message(text, {"name": name})
        for text, names in (
            (_("The index %(name)s is not valid"), content.names(cursor, content.INVALID_INDEXES)),
            (_("The constraint %(name)s is not valid"), sorted(not_valid)),
            (_("The sequence %(name)s is behind its column"), sorted(behind)),
        )
        for name in names
    ]
    for what, query, text in (
        (
            "sequences",
            content.SEQUENCES,
            _("There are %(found)d sequences, the backup says %(expected)d"),
        ),
        (
            "large_objects",
            content.LARGE_OBJECTS,
            _("There are %(found)d large objects, the backup says %(expected)d"),
        ),
    ):
        count = content.single(cursor, query)
        if what in facts and count != facts[what]:
            found.append(Message(text, {"found": count, "expected": facts[what]}))
    return found
