"""Texts for people, as message ids with named parameters; entry points translate them.

Imports no Django: the parts that speak (`errors`, `streams`, `policy` …) must run without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def _(text: str) -> str:
    """Mark `text` for translation and return it unchanged."""
    return text


LONGEST = 2000
"""Characters of what fills a placeholder: more is what another program printed, or an attack."""


def bounded(value: object) -> object:
    """Return what fills a placeholder; a text longer than `LONGEST` without its middle.

    The end stays because that is where a program says why it failed.
    """
    if isinstance(value, int | float | Message):
        return value
    text, half = str(value), LONGEST // 2
    return value if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


@dataclass(frozen=True)
class Message:
    """A text with ``%(name)s`` placeholders and what fills them; ``str()`` gives English."""

    text: str
    params: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.params:
            return self.text
        return self.text % {name: bounded(value) for name, value in self.params.items()}
