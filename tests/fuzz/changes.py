"""Changes of a real input: of its bytes, or of the structure of its JSON."""

from __future__ import annotations

import json
import random
from typing import Any

DEEP = b"[" * 200_000
DIGITS = b"9" * 5000
PIECES = (
    b"\0", b"\n", b" ", b'"', b"\\", b"\xff", b"\xed\xa0\x80", b"-1", b"null", b"true", b"[]",
    b"{}", b'""', b"1e999", b"NaN", b"9223372036854775808", b'"\\ud800"', b"0", b"\x80" * 8,
    DIGITS, DEEP,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**400, 1e999, "", "\0", "\ud800", "..", "a/../b", "é" * 300, [],
    {}, [None], [[]], {"a": None}, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
)  # fmt: skip


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return `data` with a few bytes changed, cut out, doubled, or replaced by odd pieces."""
    changed = bytearray(data)
    for _turn in range(chance.choice((1, 1, 2, 5))):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice((0, 1, 1, 4, 30)))
        way = chance.randrange(5)
        if way == 0:
            changed[start:end] = chance.randbytes(end - start)
        elif way == 1:
            changed[start:end] = chance.choice(PIECES)
        elif way == 2:
            changed[start:start] = changed[start:end] * chance.choice((1, 3))
        elif way == 3:
            del changed[start:]
        elif start < len(changed):
            changed[start] ^= 1 << chance.randrange(8)
    return bytes(changed)


def mutated_value(value: Any, chance: random.Random) -> Any:
    """Return `value` with one of its parts, at any depth, replaced, left out or doubled."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return chance.choice(VALUES)
    copy: Any = value.copy()
    at = chance.choice([*copy]) if isinstance(copy, dict) else chance.randrange(len(copy))
    way = chance.randrange(8)
    if way == 0:
        del copy[at]
    elif way == 1 and isinstance(copy, dict):
        copy[chance.choice(("", "\ud800", "format", "a" * 300))] = copy[at]
    elif way == 1:
        copy.append(copy[at])
    else:
        copy[at] = mutated_value(copy[at], chance)
    return copy


def mutated_json(text: bytes, chance: random.Random) -> bytes:
    """Return JSON changed in its structure, or in its bytes."""
    if chance.random() < 0.4:
        return mutated_bytes(text, chance)
    try:
        value = json.loads(text)
        return json.dumps(mutated_value(value, chance), indent=1).encode()
    except (ValueError, RecursionError):
        return mutated_bytes(text, chance)


def mutated_lines(text: bytes, chance: random.Random) -> bytes:
    """Return lines of JSON, one of them changed in its structure, or all in their bytes."""
    if chance.random() < 0.4:
        return mutated_bytes(text, chance)
    lines = text.splitlines()
    try:
        at = chance.randrange(len(lines))
        lines[at] = json.dumps(mutated_value(json.loads(lines[at]), chance)).encode()
    except (ValueError, RecursionError):
        return mutated_bytes(text, chance)
    return b"\n".join(lines) + b"\n"
