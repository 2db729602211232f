"""The settings: one dict, ``MIPYME_BACKUP``, read on each access and given out typed.

A key that is given replaces its default whole, save that the entries of ``RETENTION``,
``SCHEDULE`` and ``ALERTS`` are merged one by one. An unknown key, at any depth, is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _
from mipyme_backup.places import default_state_dir, is_inside
from mipyme_backup.policy.alerting import DIGESTS
from mipyme_backup.setting_values import (
    NAME,
    absolute_path,
    at_least,
    bad_value,
    cron_expression,
    day,
    duration,
    filled_name,
    https_url,
    instance_of,
    line,
    list_of,
    mail_address,
    one_of,
    or_none,
    share,
)

LOCAL = "mipyme_backup.destinations.LocalDestination"
SMALLEST_VOLUME = 64 * 1024

DEFAULT_RETENTION = {
    "daily": 30,
    "monthly": 90,
    "manual": 30,
    "pre_deploy": 30,
    "safety": 7,
    "minimum_good": 3,
}
REMOTE_DAILY = 90
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


def default_sources() -> Mapping[str, Part]:
    """Return what is saved where the settings do not say."""
    parsed: Mapping[str, Part] = _parts(_SOURCE_KEYS)("SOURCES", DEFAULT_SOURCES)
    return parsed


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
    """The settings as the code uses them; sizes in bytes.

    `named_by_default` says that `project` is the name of the settings module's package.
    `contacts` and `checklist` are None where the settings leave them to the policy.
    `former_state_dir` is where earlier versions kept what is in `state_dir` now, unless the
    settings named a folder; None where it is the same.
    `remote_retention` is for destinations that are not on this machine; the `extra` of each one
    comes before it.
    """

    project: str
    named_by_default: bool
    sources: Mapping[str, Part]
    destinations: Mapping[str, Part]
    encryption: Part | None
    signing_key_file: Path | None
    state_dir: Path
    former_state_dir: Path | None
    volume_size: int
    jobs: int
    keep_replaced: timedelta
    retention: Mapping[str, int]
    remote_retention: Mapping[str, int]
    schedule: Mapping[str, str | None]
    alerts: Mapping[str, Any]
    rpo: timedelta
    rto: timedelta
    contacts: Sequence[Mapping[str, str]] | None
    checklist: Sequence[str] | None
    drill_assertions: Sequence[str]
    policy_review: date | None
    migrate_guard: bool
    monitoring_token_file: Path | None
    admin_restore: bool


def load() -> Settings:
    """Return the settings as they are now; raises ConfigurationError for the first bad key."""
    given = _given()
    for problem in problems():
        raise problem
    parsed = {key: parse(given[key]) if key in given else None for key, parse in _KEYS.items()}
    destinations = parsed["DESTINATIONS"] or {
        "local": Part(
            backend=LOCAL,
            options={"location": _base_dir("DESTINATIONS") / "backups"},
        )
    }
    project = parsed["PROJECT"] or _project()
    local_folders(destinations)  # raises where one has no place
    state_dir = parsed["STATE_DIR"] or _state_dir(destinations, project)
    return Settings(
        project=project,
        named_by_default=parsed["PROJECT"] is None,
        sources=parsed["SOURCES"] or default_sources(),
        destinations=destinations,
        encryption=parsed["ENCRYPTION"],
        signing_key_file=parsed["SIGNING_KEY_FILE"],
        state_dir=state_dir,
        former_state_dir=_former_state_dir(destinations, state_dir),
        volume_size=parsed["VOLUME_SIZE"] or 256 * 2**20,
        jobs=parsed["JOBS"] or os.cpu_count() or 1,
        keep_replaced=timedelta(hours=_default(parsed["KEEP_REPLACED_HOURS"], 24)),
        retention={**DEFAULT_RETENTION, **(parsed["RETENTION"] or {})},
        remote_retention={
            **DEFAULT_RETENTION,
            "daily": REMOTE_DAILY,
            **(parsed["RETENTION"] or {}),
        },
        schedule={**DEFAULT_SCHEDULE, **(parsed["SCHEDULE"] or {})},
        alerts={**DEFAULT_ALERTS, **(parsed["ALERTS"] or {})},
        rpo=parsed["RPO"] or timedelta(hours=24),
        rto=parsed["RTO"] or timedelta(hours=1),
        contacts=parsed["CONTACTS"],
        checklist=parsed["CHECKLIST"],
        drill_assertions=parsed["DRILL_ASSERTIONS"] or (),
        policy_review=parsed["POLICY_REVIEW"],
        migrate_guard=bool(parsed["MIGRATE_GUARD"]),
        monitoring_token_file=parsed["MONITORING_TOKEN_FILE"],
        admin_restore=bool(parsed["ADMIN_RESTORE"]),
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
    # `override_settings` and `settings.configure` leave the first one empty.
    module = getattr(django_settings, "SETTINGS_MODULE", "") or os.environ.get(ENVIRONMENT_VARIABLE)
    return str(module or "project").partition(".")[0]


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


def local_folders(destinations: Mapping[str, Part]) -> list[Path]:
    """Return the folders of the destinations that are folders of this machine.

    Raises ConfigurationError where one names none.
    """
    folders = []
    for name, part in destinations.items():
        if part.backend == LOCAL:
            location = part.options.get("location")
            if not isinstance(location, str | Path):
                raise bad_value(f"DESTINATIONS.{name}.OPTIONS.location", _("a path"))
            folders.append(Path(location))
    return folders


def _state_dir(destinations: Mapping[str, Part], project: str) -> Path:
    served = [getattr(django_settings, key, None) for key in ("MEDIA_ROOT", "STATIC_ROOT")]
    given = [*served, *getattr(django_settings, "STATICFILES_DIRS", ())]
    shared = [Path(folder) for folder in given if folder and isinstance(folder, str | Path)]
    return default_state_dir(
        _base_dir("STATE_DIR"), [*shared, *local_folders(destinations)], project
    )


def _former_state_dir(destinations: Mapping[str, Part], state_dir: Path) -> Path | None:
    """Return where versions before kept the state: in the first local destination."""
    for folder in local_folders(destinations)[:1]:
        if not is_inside(state_dir, folder / ".state"):
            return folder / ".state"
    return None


def _unknown(
    key: str, known: Mapping[str, object] | set[str], inside: str = ""
) -> ConfigurationError:
    return ConfigurationError(
        _("%(place)s is not a setting of mipyme_backup."),
        hint=_("Known keys here: %(known)s"),
        place=f"{NAME}{inside}[{key!r}]",
        known=", ".join(sorted(known)),
    )


def _entries(key: str, known: Mapping[str, Parse]) -> Callable[[Any], Mapping[str, Any]]:
    """Return the parser of a dict whose entries are parsed one by one."""

    def parse(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise bad_value(key, _("a dict"))
        for name in value:
            if name not in known:
                raise _unknown(name, known, f"[{key!r}]")
        return {name: known[name](f"{key}.{name}")(entry) for name, entry in value.items()}

    return parse


def _part(key: str, value: Any, extra_keys: Mapping[str, Parse]) -> Part:
    if not isinstance(value, Mapping) or not isinstance(value.get("BACKEND"), str):
        raise bad_value(key, _("a dict with BACKEND (a dotted path) and OPTIONS (a dict)"))
    known = {"BACKEND", "OPTIONS", *extra_keys}
    for name in value:
        if name not in known:
            raise _unknown(name, known, f"[{key!r}]")
    options = value.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise bad_value(f"{key}.OPTIONS", _("a dict"))
    extra = {
        name: parse(f"{key}.{name}")(value[name])
        for name, parse in extra_keys.items()
        if name in value
    }
    return Part(backend=value["BACKEND"], options=options, extra=extra)


def _parts(extra_keys: Mapping[str, Parse]) -> Callable[[str, Any], dict[str, Part]]:
    def parse(key: str, value: Any) -> dict[str, Part]:
        if not isinstance(value, Mapping) or not value:
            raise bad_value(key, _("a dict of back ends by name, with at least one"))
        for name in value:
            if not isinstance(name, str) or not name:
                raise bad_value(key, _("a dict of back ends by name; a name is a text"))
        return {name: _part(f"{key}.{name}", part, extra_keys) for name, part in value.items()}

    return parse


def _contact(key: str) -> Callable[[Any], Mapping[str, str]]:
    """Return the parser of one contact: who in the first place, the rest may be left out."""

    def parse(value: Any) -> Mapping[str, str]:
        contact = _entries(key, _CONTACT)(value)
        if "role" not in contact:
            raise bad_value(f"{key}.role", _("one line of text"))
        return {**dict.fromkeys(_CONTACT, ""), **contact}

    return parse


def _encryption(value: Any) -> Part | None:
    return None if value is None else _part("ENCRYPTION", value, {})


_RETENTION: dict[str, Parse] = {name: lambda key: at_least(key, 1) for name in DEFAULT_RETENTION}
_SCHEDULE: dict[str, Parse] = {
    name: lambda key: or_none(cron_expression(key)) for name in DEFAULT_SCHEDULE
}
_ALERTS: dict[str, Parse] = {
    "recipients": lambda key: or_none(list_of(key, mail_address)),
    "webhooks": lambda key: list_of(key, https_url),
    "heartbeat_url": lambda key: or_none(https_url(key)),
    "max_age": duration,
    "min_size": lambda key: at_least(key, 0),
    "min_free_disk": share,
    "max_shrink": share,
    "digest": lambda key: or_none(one_of(key, *DIGESTS)),
}
_CONTACT: dict[str, Parse] = {
    "role": line,
    "name": lambda key: line(key, empty=True),
    "contact": lambda key: line(key, empty=True),
    "availability": lambda key: line(key, empty=True),
}
_SOURCE_KEYS: dict[str, Parse] = {}
_DESTINATION_KEYS: dict[str, Parse] = {
    "RETENTION": lambda key: _entries(key, _RETENTION),
    "BANDWIDTH": lambda key: or_none(at_least(key, 1)),
    "RETRY_FOR": lambda key: at_least(key, 0),
}
_KEYS: dict[str, Callable[[Any], Any]] = {
    "PROJECT": filled_name("PROJECT"),
    "SOURCES": lambda value: _parts(_SOURCE_KEYS)("SOURCES", value),
    "DESTINATIONS": lambda value: _parts(_DESTINATION_KEYS)("DESTINATIONS", value),
    "RETENTION": _entries("RETENTION", _RETENTION),
    "ENCRYPTION": _encryption,
    "SIGNING_KEY_FILE": absolute_path("SIGNING_KEY_FILE"),
    "RPO": duration("RPO"),
    "RTO": duration("RTO"),
    "SCHEDULE": _entries("SCHEDULE", _SCHEDULE),
    "ALERTS": _entries("ALERTS", _ALERTS),
    "STATE_DIR": absolute_path("STATE_DIR"),
    "KEEP_REPLACED_HOURS": at_least("KEEP_REPLACED_HOURS", 0),
    "VOLUME_SIZE": at_least("VOLUME_SIZE", SMALLEST_VOLUME),
    "JOBS": at_least("JOBS", 1),
    "CONTACTS": list_of("CONTACTS", _contact),
    "CHECKLIST": list_of("CHECKLIST", line),
    "POLICY_REVIEW": or_none(day("POLICY_REVIEW")),
    "DRILL_ASSERTIONS": list_of("DRILL_ASSERTIONS", filled_name),
    "MIGRATE_GUARD": instance_of("MIGRATE_GUARD", bool, _("True or False")),
    "MONITORING_TOKEN_FILE": absolute_path("MONITORING_TOKEN_FILE"),
    "ADMIN_RESTORE": instance_of("ADMIN_RESTORE", bool, _("True or False")),
}
