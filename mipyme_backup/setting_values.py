"""What the value of one setting must be: each function makes a parser that names its key.

Imports no Django: a parser is given the value and returns it, or raises ConfigurationError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError

from mipyme_backup import https_urls
from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import Message, _

NAME = "MIPYME_BACKUP"
ADDRESS = r"[^\s@<>(),;:\\\"\[\]]+@[^\s@<>(),;:\\\"\[\]]+"
RECIPIENT = re.compile(rf"{ADDRESS}|[^@<>(),;:\\\"\[\]]+ <{ADDRESS}>")


def bad_value(key: str, expected: str | Message) -> ConfigurationError:
    return ConfigurationError(
        _("%(setting)s['%(key)s'] must be %(expected)s."), setting=NAME, key=key, expected=expected
    )


def instance_of(key: str, types: type | tuple[type, ...], expected: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, types):
            raise bad_value(key, expected)
        return value

    return parse


def at_least(key: str, least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise bad_value(
                key, Message(_("a whole number of at least %(least)d"), {"least": least})
            )
        return value

    return parse


def filled_name(key: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise bad_value(key, _("a name"))
        return value

    return parse


def day(key: str) -> Callable[[Any], date]:
    def parse(value: Any) -> date:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise bad_value(key, _("a date"))
        return value

    return parse


def duration(key: str) -> Callable[[Any], timedelta]:
    def parse(value: Any) -> timedelta:
        if not isinstance(value, timedelta) or value <= timedelta(0):
            raise bad_value(key, _("a timedelta above zero"))
        return value

    return parse


def share(key: str) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise bad_value(key, _("a number from 0 to 1"))
        return value

    return parse


def line(key: str, *, empty: bool = False) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not (value.strip() or empty) or not value.isprintable():
            raise bad_value(key, _("one line of text"))
        return value

    return parse


def mail_address(key: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        good = isinstance(value, str) and value.isprintable() and RECIPIENT.fullmatch(value)
        if not good:
            raise bad_value(key, _("a mail address, like ana@example.org or Ana <ana@example.org>"))
        return str(value)

    return parse


def https_url(key: str) -> Callable[[Any], str]:
    """Return the parser of a URL to call; what it raises never shows that, nor a token in it."""

    def parse(value: Any) -> str:
        try:
            https_urls.parse(value)
        except (ValueError, AttributeError, TypeError):
            expected = _("a URL like https://example.org/path, without user or password in it")
            raise bad_value(key, expected) from None
        return str(value)

    return parse


def one_of(key: str, *known: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in known:
            raise bad_value(
                key, Message(_("one of %(known)s or None"), {"known": ", ".join(known)})
            )
        return str(value)

    return parse


def list_of(key: str, item: Callable[[str], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return the parser of a list; `item` makes that of an entry from its place, ``KEY.0`` on."""

    def parse(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise bad_value(key, _("a list"))
        return [item(f"{key}.{number}")(entry) for number, entry in enumerate(value)]

    return parse


def cron_expression(key: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        try:
            CronSim(value, datetime(2000, 1, 1))  # noqa: DTZ001 - only its grammar is looked at
        except (CronSimError, TypeError, AttributeError):
            raise bad_value(key, _("a cron expression or None")) from None
        return str(value)

    return parse


def or_none(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def absolute_path(key: str) -> Callable[[Any], Path | None]:
    def parse(value: Any) -> Path | None:
        if value is None:
            return None
        if not isinstance(value, str | Path) or not Path(value).is_absolute():
            raise bad_value(key, _("an absolute path"))
        return Path(value)

    return parse
