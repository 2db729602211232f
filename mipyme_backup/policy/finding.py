"""A finding: what is wrong, how badly, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from mipyme_backup.messages import Message
from mipyme_backup.policy.status_facts import Facts, Policy

Level = Literal["ok", "warning", "critical"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "critical")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to mend, or at level ``ok`` something to know.

    `id` is stable: the rule's name and, where it is about one, a colon and the destination.
    """

    id: str
    level: Level
    message: Message
    hint: Message


Rule = Callable[[Policy, Facts, datetime], Iterator[Finding]]


def age_text(age: timedelta) -> str:
    """Return a length of time for people, in units that are written alike in most languages."""
    hours, seconds = divmod(round(age.total_seconds()), 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"
    if hours and seconds >= 60:
        return f"{hours} h {seconds // 60} min"
    return f"{hours} h" if hours else f"{seconds // 60} min"
