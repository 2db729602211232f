"""Texts for people, as message ids with named parameters; entry points translate them.

Imports no Django: the parts that speak (`errors`, `streams`, `policy` …) must run without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def _(text: str) -> str:
    """Mark `text` for translation and return it unchanged."""
    return text


@dataclass(frozen=True)
class Message:
    """A text with ``%(name)s`` placeholders and what fills them; ``str()`` gives English."""

    text: str
    params: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text % self.params if self.params else self.text
