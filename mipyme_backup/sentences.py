"""Recognises a sentence in English as one of our texts, filled, and says it in another language.

What is stored (a manifest's warnings, the catalog's errors, a drill's problems) is such a sentence.
"""

from __future__ import annotations

import functools
import gettext
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from django.utils.formats import number_format

LOCALES = Path(__file__).parent / "locale"
PLACEHOLDER = re.compile(r"%\((\w+)\)[-#0 +\d.]*([a-z])")
TO_FILL = re.compile(rf"{PLACEHOLDER.pattern}|%%")
NUMBERS = {"d": r"-?\d+", "g": r"-?[\d.e+]+"}
WORDS = {"kind", "reason", "verb"}
"""Parameters that may be a single word of ours; any other one is a name."""

LONGEST = 5000
SHORTEST = 6
"""How many letters beside its placeholders a text must have to be known again."""


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """A text with placeholders: what it begins with, and what any sentence made of it matches."""

    start: str
    pattern: re.Pattern[str]
    translation: str
    counts: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Our texts with their translations; none in a language that we do not speak."""

    whole: Mapping[str, str]
    patterns: tuple[_Pattern, ...]


@functools.cache
def texts_in(locale: str) -> Texts:
    """Return all texts in the language of `locale`, those with the most words first."""
    found = gettext.translation("django", LOCALES, [locale], fallback=True)
    entries = {
        text: translation
        for text, translation in getattr(found, "_catalog", {}).items()
        if isinstance(text, str) and text
    }
    fillable = [text for text in entries if PLACEHOLDER.search(text) and _is_telling(text)]
    return Texts(
        whole=entries,
        patterns=tuple(
            _Pattern(
                start=PLACEHOLDER.split(text)[0].replace("%%", "%"),
                pattern=re.compile("".join(_pieces(text)), re.DOTALL),
                translation=entries[text],
                counts=frozenset(name for name, kind in PLACEHOLDER.findall(text) if kind == "d"),
            )
            for text in sorted(fillable, key=_weight, reverse=True)
        ),
    )


def say(sentence: str, texts: Texts) -> str | None:
    """Return the translation, None where it is none of ours.

    Of several sentences, or of one behind a name and a colon, it is that of each.
    """
    if " " not in sentence or len(sentence) > LONGEST:
        return None  # a name, or what a program printed
    if sentence in texts.whole:
        return texts.whole[sentence]
    parts = sentence.split("; ")
    spoken = [say(part, texts) for part in parts] if len(parts) > 1 else []
    if spoken and all(spoken):
        return "; ".join(filter(None, spoken))
    for text in texts.patterns:
        if sentence.startswith(text.start) and (match := text.pattern.fullmatch(sentence)):
            return _filled(text, match.groupdict(), texts)
    name, colon, rest = sentence.partition(": ")
    if colon and " " not in name and (translation := say(rest, texts)):
        return f"{name}: {translation}"
    return None


def say_parameter(name: str, value: str, texts: Texts) -> str:
    """Return what fills the placeholder `name`, translated where it is a text of ours."""
    if name in WORDS and value in texts.whole:
        return texts.whole[value]
    return say(value, texts) or value


def number(value: int) -> str:
    """Return a count as the active language writes it."""
    return number_format(value, force_grouping=True).replace("\xa0", " ")


def _weight(text: str) -> int:
    return sum(letter.isalpha() for letter in PLACEHOLDER.sub("", text))


def _is_telling(text: str) -> bool:
    """Say whether a sentence made of `text` cannot be mistaken for a name with what follows it."""
    label = re.fullmatch(r"\s*\w+:\s*", PLACEHOLDER.sub("", text))
    return label is None and _weight(text) >= SHORTEST


def _pieces(text: str) -> Iterator[str]:
    """Yield the regular expression of what `text` becomes once it is filled."""
    seen: set[str] = set()
    end = 0
    for match in PLACEHOLDER.finditer(text):
        yield re.escape(text[end : match.start()].replace("%%", "%"))
        name, kind = match.groups()
        yield f"(?P={name})" if name in seen else f"(?P<{name}>{NUMBERS.get(kind, '.*?')})"
        seen.add(name)
        end = match.end()
    yield re.escape(text[end:].replace("%%", "%"))


def _filled(text: _Pattern, found: Mapping[str, str], texts: Texts) -> str:
    """Fill the translation with what was cut out of a sentence, which is written out already."""
    values = {
        name: number(int(value)) if name in text.counts else say_parameter(name, value, texts)
        for name, value in found.items()
    }
    return TO_FILL.sub(lambda mark: values[mark[1]] if mark[1] else "%", text.translation)
