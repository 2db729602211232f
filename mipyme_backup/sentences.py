"""Recognises a sentence in English as one of our texts, filled, and says it in another language.

What is stored (a manifest's warnings, the catalog's errors, a drill's problems) is such a sentence.
"""

from __future__ import annotations

import functools
import gettext
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.utils.formats import number_format

LOCALES = Path(__file__).parent / "locale"
PLACEHOLDER = re.compile(r"%\((\w+)\)[-#0 +\d.]*([a-z])")
TO_FILL = re.compile(rf"{PLACEHOLDER.pattern}|%%")
NUMBERS = {"d": r"-?\d{1,30}", "g": r"-?[\d.e+]{1,30}"}
WORDS = {"kind", "reason", "verb"}
"""Parameters that may be a single word of ours; any other one is a name."""

LONGEST = 5000
DEEPEST = 5
"""How many sentences may stand within each other: what is stored may come from anywhere."""

SHORTEST = 6
"""How many letters beside its placeholders a text must have to be known again."""


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """A text with placeholders, to be found again in what was made of it.

    Between the `names`, which stand for anything, are the `separators`: fixed words and numbers,
    one more than there are names. Each is looked for once, from the left, so that any sentence
    takes time in proportion to its length; to try all ways would take minutes.
    """

    separators: tuple[re.Pattern[str], ...]
    names: tuple[str, ...]
    translation: str
    counts: frozenset[str]

    def cut(self, sentence: str) -> dict[str, str] | None:
        """Return what fills the placeholders; None where the sentence was not made of this text."""
        found = self.separators[0].match(sentence)
        if found is None:
            return None
        values, end = found.groupdict(), found.end()
        for name, separator in zip(self.names, self.separators[1:], strict=True):
            found = separator.search(sentence, end)
            if found is None:
                return None
            filled = sentence[end : found.start()]
            if values.setdefault(name, filled) != filled:
                return None
            values, end = {**values, **found.groupdict()}, found.end()
        return values if end == len(sentence) else None


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
            _pattern(text, entries[text]) for text in sorted(fillable, key=_weight, reverse=True)
        ),
    )


def say(sentence: str, texts: Texts, depth: int = 0) -> str | None:
    """Return the translation, None where it is none of ours.

    Of several sentences, or of one behind a name and a colon, it is that of each. `depth` counts
    the sentences that this one stands within.
    """
    if " " not in sentence or len(sentence) > LONGEST or depth > DEEPEST:
        return None  # a name, or what a program printed
    if sentence in texts.whole:
        return texts.whole[sentence]
    spoken = _each(sentence.split("; "), texts, depth)
    if spoken is not None:
        return spoken
    for text in texts.patterns:
        if (found := text.cut(sentence)) is not None:
            return _filled(text, found, texts, depth)
    name, colon, rest = sentence.partition(": ")
    if colon and " " not in name and (translation := say(rest, texts, depth + 1)):
        return f"{name}: {translation}"
    return None


def say_parameter(name: str, value: str, texts: Texts, depth: int = 0) -> str:
    """Return what fills the placeholder `name`, translated where it is a text of ours."""
    if name in WORDS and value in texts.whole:
        return texts.whole[value]
    return say(value, texts, depth) or value


def number(value: int) -> str:
    """Return a count as the active language writes it."""
    return number_format(value, force_grouping=True).replace("\xa0", " ")


def _weight(text: str) -> int:
    return sum(letter.isalpha() for letter in PLACEHOLDER.sub("", text))


def _is_telling(text: str) -> bool:
    """Say whether a sentence made of `text` cannot be mistaken for a name with what follows it."""
    label = re.fullmatch(r"\s*\w+:\s*", PLACEHOLDER.sub("", text))
    return label is None and _weight(text) >= SHORTEST


def _each(parts: Sequence[str], texts: Texts, depth: int) -> str | None:
    """Return the translation of several sentences; None where one is none of ours, or is alone."""
    if len(parts) < 2:
        return None
    spoken = []
    for part in parts:
        translation = say(part, texts, depth + 1)
        if translation is None:
            return None
        spoken.append(translation)
    return "; ".join(spoken)


def _pattern(text: str, translation: str) -> _Pattern:
    separators, names, numbers = [""], [], set[str]()
    end = 0
    for match in PLACEHOLDER.finditer(text):
        separators[-1] += re.escape(text[end : match.start()].replace("%%", "%"))
        name, kind = match.groups()
        if kind not in NUMBERS:
            names.append(name)
            separators.append("")
        elif name in numbers:
            separators[-1] += f"(?P={name})"
        else:
            separators[-1] += f"(?P<{name}>{NUMBERS[kind]})"
            numbers.add(name)
        end = match.end()
    separators[-1] += re.escape(text[end:].replace("%%", "%"))
    if names:
        separators[-1] += r"\Z"
    return _Pattern(
        separators=tuple(map(re.compile, separators)),
        names=tuple(names),
        translation=translation,
        counts=frozenset(name for name, kind in PLACEHOLDER.findall(text) if kind == "d"),
    )


def _filled(text: _Pattern, found: Mapping[str, str], texts: Texts, depth: int) -> str:
    """Fill the translation with what was cut out of a sentence, which is written out already."""
    values = {
        name: number(int(value))
        if name in text.counts
        else say_parameter(name, value, texts, depth + 1)
        for name, value in found.items()
    }
    return TO_FILL.sub(lambda mark: values[mark[1]] if mark[1] else "%", text.translation)
