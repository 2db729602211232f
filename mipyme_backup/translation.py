"""The texts of `messages` in the active language, for whoever speaks to people."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from django.conf import settings
from django.utils.translation import get_language, gettext, override, to_locale

from mipyme_backup.errors import BackupError
from mipyme_backup.messages import Message, bounded
from mipyme_backup.printable import printable
from mipyme_backup.sentences import TO_FILL, Texts, number, say, say_parameter, texts_in


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
    if not params or not _active_texts().whole:
        return text % params if params else text
    return TO_FILL.sub(lambda mark: _written(mark, params), text)


def said(stored: str) -> str:
    """Return a stored sentence in the active language; in its own where it is none of our texts."""
    return printable(say(stored, _active_texts()) or stored)


def warn(logger: logging.Logger, text: str, **params: object) -> None:
    """Log a warning that an operator reads on the terminal, in the active language."""
    logger.warning(translated(Message(text, params)))


def _active_texts() -> Texts:
    language = get_language() if settings.USE_I18N else None
    return texts_in(to_locale(language or "en"))


def _shown(name: str, value: object) -> object:
    if isinstance(value, Message):
        return translated(value)
    if isinstance(value, BackupError):
        return translated(value.message)
    value = bounded(value)
    if isinstance(value, str):
        return printable(say_parameter(name, value, _active_texts()))
    return value if isinstance(value, int | float) else printable(str(value))


def _written(mark: re.Match[str], params: Mapping[str, object]) -> str:
    """Return what stands in place of a placeholder."""
    name, kind = mark.groups()
    if name is None:
        return "%"
    value = params[name]
    if kind == "d" and isinstance(value, int | float):
        return number(int(value))
    return mark[0] % params
