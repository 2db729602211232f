"""The shapes of the documents that the catalog keeps, and how one that differs is read. No Django.

Other versions wrote some of the rows, and other people with rights in the database may have. A page
must be answered all the same: each value is fitted to its shape where it is read, what does not fit
is left out, and readers need not ask.

A shape is a function that returns what fits of a value. It raises ValueError where nothing does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mipyme_backup.policy.finding import LEVELS

Shape = Callable[[Any], Any]

DEEPEST = 32
LARGEST = 2**63 - 1
LONGEST_SPAN = 10**9
"""Seconds: some thirty years. What draws a length of time takes any up to that."""


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError
    return value


def seconds(value: Any) -> float:
    if type(value) not in (int, float) or not -LONGEST_SPAN <= value <= LONGEST_SPAN:
        raise ValueError
    number: float = value
    return number


def moment(value: Any) -> str:
    """Take a date and time with its zone, which any zone of the world can show."""
    at = datetime.fromisoformat(text(value))
    if at.tzinfo is None or not 1970 <= at.year < 9000:
        raise ValueError
    return text(value)


def level(value: Any) -> str:
    if value not in LEVELS:
        raise ValueError
    return text(value)


def anything(value: Any) -> Any:
    """Take any value that is not nested so deep that a function which goes through it fails."""
    _check_depth(value, DEEPEST)
    return value


def optional(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def either(first: Shape, second: Shape) -> Shape:
    def fit(value: Any) -> Any:
        try:
            return first(value)
        except ValueError:
            return second(value)

    return fit


def listing(shape: Shape) -> Shape:
    """Take a list, without the parts that do not fit."""

    def fit(value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError
        found = []
        for part in value:
            try:
                found.append(shape(part))
            except ValueError:
                continue
        return found

    return fit


def every(shape: Shape) -> Shape:
    """Take a list all of whose parts fit: where one that is left out would be missed."""

    def fit(value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError
        return [shape(part) for part in value]

    return fit


def table(shape: Shape) -> Shape:
    """Take an object of any names, without the values that do not fit."""

    def fit(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError
        return _fitted(value, {}, shape)

    return fit


def record(
    known: Mapping[str, Shape] | None = None,
    *,
    needed: Mapping[str, Shape] | None = None,
    filled: Mapping[str, tuple[Shape, Any]] | None = None,
) -> Shape:
    """Take an object that has all of `needed`; parts of other names stay as they are.

    What does not fit of `known` is left out; `filled` have a value in place of it.
    """
    shapes = {
        **(known or {}),
        **(needed or {}),
        **{name: shape for name, (shape, _value) in (filled or {}).items()},
    }
    defaults = {name: value for name, (_shape, value) in (filled or {}).items()}

    def fit(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError
        found = _fitted(value, shapes, anything)
        if not found.keys() >= (needed or {}).keys():
            raise ValueError
        for name in defaults.keys() - found.keys():
            found[name] = copy.copy(defaults[name])  # each row's own: it is empty, or no container
        return found

    return fit


def _fitted(value: Mapping[str, Any], shapes: Mapping[str, Shape], other: Shape) -> dict[str, Any]:
    """Return the parts that fit the shapes of their names, or the `other`."""
    found = {}
    for name, part in value.items():
        try:
            found[name] = shapes.get(name, other)(part)
        except ValueError:
            continue
    return found


def _check_depth(value: Any, left: int) -> None:
    if not left:
        raise ValueError
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    for part in value:
        _check_depth(part, left - 1)


TEXTS = listing(text)
SCALAR = either(text, either(flag, either(count, seconds)))

_VOLUME = record(filled={"size": (count, 0), "sha256": (text, "")})
_ARTIFACT = record(
    needed={"name": text, "path": text},
    filled={
        "raw_size": (count, 0),
        "stored_size": (count, 0),
        "sha256": (text, ""),
        "volumes": (listing(_VOLUME), []),
    },
)
_FACT = record(
    {
        "tables": table(count),
        "models": table(count),
        "left_out": either(table(text), count),
        "left_out_rows": table(count),
        "schema": text,
        "absent": TEXTS,
        "unreadable": count,
        "missing": count,
        "gone": count,
        "unsaved": listing(record({"field": text, "rows": count})),
        "packs": TEXTS,
        "files": count,
        "bytes": count,
        "engine": SCALAR,
        "version": SCALAR,
    }
)
_SOURCE = record(
    needed={"name": text},
    filled={"artifacts": (listing(_ARTIFACT), []), "facts": (table(either(_FACT, anything)), {})},
)
SOURCES = listing(_SOURCE)
MANIFEST = record(
    {
        "project": text,
        "host": text,
        "versions": table(SCALAR),
        "snapshot_at": moment,
        "sources": SOURCES,
        "packs": listing(_ARTIFACT),
    }
)
"""A manifest as the catalog keeps it: of any version, so that nothing in it is sure to be there."""

STEPS = listing(
    record(
        needed={"name": text},
        filled={"ok": (flag, False), "seconds": (seconds, 0.0), "problems": (TEXTS, [])},
    )
)
"""The steps of a drill; one that does not say how it went has failed."""

OPTIONS = table(SCALAR)
RESULT = record(
    {"plan": TEXTS, "other_origin": TEXTS, "backup_id": text, "drill_id": text, "restore_id": text}
)
"""What was asked for with a task, and what it led to."""

_BACKUP = record(
    needed={"id": text, "name": text, "finished_at": moment},
    filled={"stored_size": (count, 0)},
)
_RUN = record(
    needed={"started_at": moment},
    filled={"status": (text, ""), "error": (optional(text), None)},
)
_DRILL = record(
    needed={"finished_at": moment},
    filled={"passed": (flag, False), "seconds": (seconds, 0.0)},
)
_PLACE = record(
    filled={
        "place": (text, ""),
        "remote": (flag, False),
        "reachable": (flag, False),
        "writable": (optional(flag), None),
        "clock_ahead_seconds": (optional(seconds), None),
        "error": (optional(text), None),
        "free_bytes": (optional(count), None),
        "total_bytes": (optional(count), None),
        "backups": (optional(count), None),
        "may_delete": (optional(flag), None),
        "unreadable": (TEXTS, []),
        "need_key": (TEXTS, []),
        "foreign": (count, 0),
        "highest_sequence": (optional(count), None),
        "newest_good": (optional(_BACKUP), None),
    }
)
_FACTS = record(
    needed={"at": moment},
    filled={
        "newest_good": (optional(_BACKUP), None),
        "last_run": (optional(_RUN), None),
        "last_drill": (optional(_DRILL), None),
        "predicted_restore_seconds": (optional(seconds), None),
        "missed_slots": (listing(anything), []),
        "destinations": (table(_PLACE), {}),
    },
)

_MESSAGE = record(needed={"text": text, "params": table(anything)})
_FINDING = record(needed={"id": text, "level": level, "message": _MESSAGE, "hint": _MESSAGE})
LOOK = record(needed={"version": count, "facts": _FACTS, "findings": every(_FINDING)})
"""What a look saw: whole, or none was taken. A critical finding must not be left out of it."""
