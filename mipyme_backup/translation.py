"""The texts of `messages` in the active language, for whoever speaks to people.

What is stored (a manifest's warnings, the catalog's errors, a drill's problems) is a sentence in
English. It is recognised as one of our texts, and told in the language of who reads it.
"""

from __future__ import annotations

import functools
import gettext as catalogs
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils.translation import get_language, gettext, override, to_locale

from mipyme_backup.errors import BackupError
from mipyme_backup.messages import Message

LOCALES = Path(__file__).parent / "locale"
PLACEHOLDER = re.compile(r"%\((\w+)\)[-#0 +\d.]*([a-z])")
TO_FILL = re.compile(rf"{PLACEHOLDER.pattern}|%%")
NUMBERS = {"d": r"-?\d+", "g": r"-?[\d.e+]+"}
WORDS = {"kind", "reason", "verb"}
"""Parameters that may be a single word of ours; any other one is a name."""

LONGEST = 5000
SHORTEST = 6
"""How many letters beside its placeholders a text must have to be known again."""


def in_project_language() -> override:
    """Return what makes the project's LANGUAGE_CODE the active language of a block.

    Commands, tasks and alerts speak it: whoever reads them is not the one who asked.
    """
    return override(settings.LANGUAGE_CODE)


def project_language() -> str:
    """Return ``es`` or ``en``, in which a page of the project is written where nobody asks."""
    spanish = settings.USE_I18N and settings.LANGUAGE_CODE.partition("-")[0] == "es"
    return "es" if spanish else "en"


def translated(message: Message) -> str:
    """Return the text in the active language, with what is within it."""
    text = gettext(message.text) if message.text else ""
    params = {name: _shown(name, value) for name, value in message.params.items()}
    return text % params if params else text


def warn(logger: logging.Logger, text: str, **params: object) -> None:
    """Log a warning that an operator reads on the terminal, in the active language."""
    logger.warning(translated(Message(text, params)))


def said(stored: str) -> str:
    """Return a stored sentence in the active language; as it is where it is none of our texts."""
    return _said(stored, _active_texts()) or stored


def _shown(name: str, value: object) -> object:
    if isinstance(value, Message):
        return translated(value)
    if isinstance(value, BackupError):
        return translated(value.message)
    return _piece(name, value, _active_texts()) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class _Text:
    """A text with placeholders: what it begins with, and what any sentence made of it matches."""

    start: str
    pattern: re.Pattern[str]
    translation: str


@dataclass(frozen=True, kw_only=True)
class _Texts:
    whole: Mapping[str, str]
    with_placeholders: tuple[_Text, ...]


def _active_texts() -> _Texts:
    language = get_language() if settings.USE_I18N else None
    return _texts(to_locale(language or "en"))


@functools.cache
def _texts(locale: str) -> _Texts:
    """Return all texts with their translations, those with the most words first."""
    found = catalogs.translation("django", LOCALES, [locale], fallback=True)
    entries = {
        text: translation
        for text, translation in getattr(found, "_catalog", {}).items()
        if isinstance(text, str) and text
    }
    patterns = [text for text in entries if PLACEHOLDER.search(text) and _is_telling(text)]
    return _Texts(
        whole=entries,
        with_placeholders=tuple(
            _Text(
                start=PLACEHOLDER.split(text)[0].replace("%%", "%"),
                pattern=re.compile("".join(_pieces(text)), re.DOTALL),
                translation=entries[text],
            )
            for text in sorted(patterns, key=_weight, reverse=True)
        ),
    )


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


def _piece(name: str, piece: str, texts: _Texts) -> str:
    """Return what fills the placeholder `name`, translated where it is a text of ours."""
    if name in WORDS and piece in texts.whole:
        return texts.whole[piece]
    return _said(piece, texts) or piece


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Fill `text` with what was cut out of a sentence, which is written out already."""
    return TO_FILL.sub(lambda found: values[found[1]] if found[1] else "%", text)


def _said(sentence: str, texts: _Texts) -> str | None:
    """Return the translation; of several sentences, or behind a name and a colon, that of each."""
    if " " not in sentence or len(sentence) > LONGEST:
        return None  # a name, or what a program printed
    if sentence in texts.whole:
        return texts.whole[sentence]
    parts = sentence.split("; ")
    spoken = [_said(part, texts) for part in parts] if len(parts) > 1 else []
    if spoken and all(spoken):
        return "; ".join(filter(None, spoken))
    for text in texts.with_placeholders:
        if sentence.startswith(text.start) and (match := text.pattern.fullmatch(sentence)):
            pieces = match.groupdict().items()
            values = {name: _piece(name, piece, texts) for name, piece in pieces}
            return _filled(text.translation, values)
    name, colon, rest = sentence.partition(": ")
    if colon and " " not in name and (translation := _said(rest, texts)):
        return f"{name}: {translation}"
    return None
