"""The settings: one dict, ``MIPYME_BACKUP``, read on each access and given out typed.

A key that is given replaces its default whole, save that the entries of ``RETENTION``,
``SCHEDULE`` and ``ALERTS`` are merged one by one. An unknown key, at any depth, is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError
from django.conf import settings as django_settings

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _

NAME = "MIPYME_BACKUP"
SMALLEST_VOLUME = 64 * 1024

DEFAULT_RETENTION = {
    "daily": 30,
    "monthly": 90,
    "manual": 30,
    "pre_deploy": 30,
    "safety": 7,
    "minimum_good": 3,
}
DEFAULT_SCHEDULE: dict[str, str | None] = {
    "daily": "0 2 * * *",
    "monthly": "0 3 1 * *",
    "verify": "30 4 * * *",
    "prune": "0 5 * * *",
    "status": "0 * * * *",
    "drill": "0 4 * * SUN#1",
}
DEFAULT_ALERTS: dict[str, Any] = {
    "recipients": None,
    "webhooks": [],
    "heartbeat_url": None,
    "max_age": timedelta(hours=25),
    "min_size": 1024,
    "min_free_disk": 0.10,
    "max_shrink": 0.5,
    "digest": "weekly",
}
DEFAULT_SOURCES = {
    "database": {"BACKEND": "mipyme_backup.sources.DatabaseSource"},
    "fixtures": {"BACKEND": "mipyme_backup.sources.FixturesSource"},
    "media": {"BACKEND": "mipyme_backup.sources.MediaSource"},
}

Parse = Callable[[str], Callable[[Any], Any]]
"""From an entry's dotted place in the settings to its parser, which names that place."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A back end by dotted path, and the options it is made with."""

    backend: str
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings as the code uses them; sizes in bytes."""

    project: str
    sources: Mapping[str, Part]
    destinations: Mapping[str, Part]
    encryption: Part | None
    signing_key_file: Path | None
    state_dir: Path
    volume_size: int
    jobs: int
    keep_replaced: timedelta
    retention: Mapping[str, int]
    schedule: Mapping[str, str | None]
    alerts: Mapping[str, Any]
    rpo: timedelta
    rto: timedelta


def load() -> Settings:
    """Return the settings as they are now; raises ConfigurationError for the first bad key."""
    given = _given()
    for problem in problems():
        raise problem
    parsed = {key: parse(given[key]) if key in given else None for key, parse in _KEYS.items()}
    destinations = parsed["DESTINATIONS"] or {
        "local": Part(
            backend="mipyme_backup.destinations.LocalDestination",
            options={"location": _base_dir("DESTINATIONS") / "backups"},
        )
    }
    return Settings(
        project=parsed["PROJECT"] or _project(),
        sources=parsed["SOURCES"] or _parts(_SOURCE_KEYS)("SOURCES", DEFAULT_SOURCES),
        destinations=destinations,
        encryption=parsed["ENCRYPTION"],
        signing_key_file=parsed["SIGNING_KEY_FILE"],
        state_dir=parsed["STATE_DIR"] or _state_dir(destinations),
        volume_size=parsed["VOLUME_SIZE"] or 256 * 2**20,
        jobs=parsed["JOBS"] or os.cpu_count() or 1,
        keep_replaced=timedelta(hours=_default(parsed["KEEP_REPLACED_HOURS"], 24)),
        retention={**DEFAULT_RETENTION, **(parsed["RETENTION"] or {})},
        schedule={**DEFAULT_SCHEDULE, **(parsed["SCHEDULE"] or {})},
        alerts={**DEFAULT_ALERTS, **(parsed["ALERTS"] or {})},
        rpo=parsed["RPO"] or timedelta(hours=24),
        rto=parsed["RTO"] or timedelta(hours=1),
    )


def problems() -> list[ConfigurationError]:
    """Return everything that is wrong with the settings, each naming its key."""
    try:
        given = _given()
    except ConfigurationError as error:
        return [error]
    found = [_unknown(key, _KEYS) for key in given if key not in _KEYS]
    for key, parse in _KEYS.items():
        if key in given:
            try:
                parse(given[key])
            except ConfigurationError as error:
                found.append(error)
    return found


def _given() -> Mapping[str, Any]:
    given = getattr(django_settings, NAME, {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(_("%(key)s must be a dict."), key=NAME)
    return given


def _default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _project() -> str:
    module: str = getattr(django_settings, "SETTINGS_MODULE", "") or "project"
    return module.partition(".")[0]


def _base_dir(key: str) -> Path:
    base = getattr(django_settings, "BASE_DIR", None)
    if base is None:
        raise ConfigurationError(
            _("The settings have no BASE_DIR, so %(key)s has no default."),
            hint=_("Set %(setting)s['%(key)s']."),
            key=key,
            setting=NAME,
        )
    return Path(base)


def _state_dir(destinations: Mapping[str, Part]) -> Path:
    for name, part in destinations.items():
        if part.backend == "mipyme_backup.destinations.LocalDestination":
            location = part.options.get("location")
            if not isinstance(location, str | Path):
                raise _bad(f"DESTINATIONS.{name}.OPTIONS.location", "a path")
            return Path(location) / ".state"
    return _base_dir("STATE_DIR") / ".mipyme_backup"


def _unknown(
    key: str, known: Mapping[str, object] | set[str], inside: str = ""
) -> ConfigurationError:
    return ConfigurationError(
        _("%(place)s is not a setting of mipyme_backup."),
        hint=_("Known keys here: %(known)s"),
        place=f"{NAME}{inside}[{key!r}]",
        known=", ".join(sorted(known)),
    )


def _bad(key: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        _("%(setting)s['%(key)s'] must be %(expected)s."), setting=NAME, key=key, expected=expected
    )


def _of(key: str, types: type | tuple[type, ...], expected: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, types):
            raise _bad(key, expected)
        return value

    return parse


def _at_least(key: str, least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _bad(key, f"a whole number of at least {least}")
        return value

    return parse


def _name(key: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise _bad(key, "a name")
        return value

    return parse


def _duration(key: str) -> Callable[[Any], timedelta]:
    def parse(value: Any) -> timedelta:
        if not isinstance(value, timedelta) or value <= timedelta(0):
            raise _bad(key, "a timedelta above zero")
        return value

    return parse


def _share(key: str) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise _bad(key, "a number from 0 to 1")
        return value

    return parse


def _texts(key: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise _bad(key, "a list of texts")
        return value

    return parse


def _cron(key: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        try:
            CronSim(value, datetime(2000, 1, 1))  # noqa: DTZ001 - only its grammar is looked at
        except (CronSimError, TypeError, AttributeError):
            raise _bad(key, "a cron expression or None") from None
        return str(value)

    return parse


def _or_none(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def _path(key: str) -> Callable[[Any], Path | None]:
    def parse(value: Any) -> Path | None:
        if value is None:
            return None
        if not isinstance(value, str | Path) or not Path(value).is_absolute():
            raise _bad(key, "an absolute path")
        return Path(value)

    return parse


def _entries(key: str, known: Mapping[str, Parse]) -> Callable[[Any], Mapping[str, Any]]:
    """Return the parser of a dict whose entries are parsed one by one."""

    def parse(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise _bad(key, "a dict")
        for name in value:
            if name not in known:
                raise _unknown(name, known, f"[{key!r}]")
        return {name: known[name](f"{key}.{name}")(entry) for name, entry in value.items()}

    return parse


def _part(key: str, value: Any, extra_keys: Mapping[str, Parse]) -> Part:
    if not isinstance(value, Mapping) or not isinstance(value.get("BACKEND"), str):
        raise _bad(key, "a dict with BACKEND (a dotted path) and OPTIONS (a dict)")
    known = {"BACKEND", "OPTIONS", *extra_keys}
    for name in value:
        if name not in known:
            raise _unknown(name, known, f"[{key!r}]")
    options = value.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise _bad(f"{key}.OPTIONS", "a dict")
    extra = {
        name: parse(f"{key}.{name}")(value[name])
        for name, parse in extra_keys.items()
        if name in value
    }
    return Part(backend=value["BACKEND"], options=options, extra=extra)


def _parts(extra_keys: Mapping[str, Parse]) -> Callable[[str, Any], dict[str, Part]]:
    def parse(key: str, value: Any) -> dict[str, Part]:
        if not isinstance(value, Mapping) or not value:
            raise _bad(key, "a dict of back ends by name, with at least one")
        for name in value:
            if not isinstance(name, str) or not name:
                raise _bad(key, "a dict of back ends by name; a name is a text")
        return {name: _part(f"{key}.{name}", part, extra_keys) for name, part in value.items()}

    return parse


def _encryption(value: Any) -> Part | None:
    return None if value is None else _part("ENCRYPTION", value, {})


_RETENTION: dict[str, Parse] = {name: lambda key: _at_least(key, 1) for name in DEFAULT_RETENTION}
_SCHEDULE: dict[str, Parse] = {name: lambda key: _or_none(_cron(key)) for name in DEFAULT_SCHEDULE}
_ALERTS: dict[str, Parse] = {
    "recipients": lambda key: _or_none(_texts(key)),
    "webhooks": _texts,
    "heartbeat_url": lambda key: _or_none(_of(key, str, "a URL or None")),
    "max_age": _duration,
    "min_size": lambda key: _at_least(key, 0),
    "min_free_disk": _share,
    "max_shrink": _share,
    "digest": lambda key: _or_none(_name(key)),
}
_SOURCE_KEYS: dict[str, Parse] = {}
_DESTINATION_KEYS: dict[str, Parse] = {
    "RETENTION": lambda key: _entries(key, _RETENTION),
    "BANDWIDTH": lambda key: _or_none(_at_least(key, 1)),
    "RETRY_FOR": lambda key: _at_least(key, 0),
}
_KEYS: dict[str, Callable[[Any], Any]] = {
    "PROJECT": _name("PROJECT"),
    "SOURCES": lambda value: _parts(_SOURCE_KEYS)("SOURCES", value),
    "DESTINATIONS": lambda value: _parts(_DESTINATION_KEYS)("DESTINATIONS", value),
    "RETENTION": _entries("RETENTION", _RETENTION),
    "ENCRYPTION": _encryption,
    "SIGNING_KEY_FILE": _path("SIGNING_KEY_FILE"),
    "RPO": _duration("RPO"),
    "RTO": _duration("RTO"),
    "SCHEDULE": _entries("SCHEDULE", _SCHEDULE),
    "ALERTS": _entries("ALERTS", _ALERTS),
    "STATE_DIR": _path("STATE_DIR"),
    "KEEP_REPLACED_HOURS": _at_least("KEEP_REPLACED_HOURS", 0),
    "VOLUME_SIZE": _at_least("VOLUME_SIZE", SMALLEST_VOLUME),
    "JOBS": _at_least("JOBS", 1),
    "CONTACTS": _of("CONTACTS", (list, tuple), "a list"),
    "CHECKLIST": _of("CHECKLIST", (list, tuple), "a list"),
    "POLICY_REVIEW": _of("POLICY_REVIEW", date, "a date"),
    "DRILL_ASSERTIONS": _of("DRILL_ASSERTIONS", (list, tuple), "a list"),
    "ADMIN_RESTORE": _of("ADMIN_RESTORE", bool, "True or False"),
}
