"""The disaster checklist: which of its lines are ticked off, by whom, and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Action = Literal["began", "ticked", "cleared"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What somebody did; `line` is empty where a fresh checklist was begun."""

    action: Action
    line: str
    at: datetime
    by: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line to tick off, and who did so; None where nobody has."""

    text: str
    ticked: Entry | None


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """The lines as they stand; `began` is None for the first checklist of all."""

    lines: Sequence[Line]
    began: Entry | None

    @property
    def done(self) -> int:
        return sum(line.ticked is not None for line in self.lines)

    def needs(self, action: Action, text: str) -> bool:
        """Say whether that would change anything; a fresh checklist is begun over any tick."""
        if action == "began":
            return bool(self.done)
        ticked = {line.text: line.ticked is not None for line in self.lines}.get(text)
        return ticked is (action == "cleared")

    @property
    def texts(self) -> frozenset[str]:
        return frozenset(line.text for line in self.lines)


def checklist(texts: Sequence[str], entries: Iterable[Entry]) -> Checklist:
    """Return the checklist of these lines after what was done, the oldest first.

    Who ticked a line off first stays, until it is taken back.
    """
    began: Entry | None = None
    ticked: dict[str, Entry] = {}
    for entry in entries:
        if entry.action == "began":
            began = entry
            ticked.clear()
        elif entry.action == "ticked":
            ticked.setdefault(entry.line, entry)
        else:
            ticked.pop(entry.line, None)
    lines = [Line(text=text, ticked=ticked.get(text)) for text in dict.fromkeys(texts)]
    return Checklist(lines=lines, began=began)
