"""System checks. Only malformed settings are errors: an error stops the whole project.

What concerns the machine is a warning under ``--deploy``, and preflight in our own commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from mipyme_backup import conf
from mipyme_backup.errors import ConfigurationError

TAG = "mipyme_backup"


@register(TAG)
def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E001: a setting is unknown or malformed. E002: a destination lies inside public files."""
    problems = conf.problems()
    if problems:
        return [_error(problem) for problem in problems]
    try:
        settings = conf.load()
    except ConfigurationError as error:
        return [_error(error)]
    return list(_public_destinations(settings))


@register(Tags.security, deploy=True)
def check_deployment(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W001: backups are not encrypted."""
    if conf.problems():
        return []
    if conf.load().encryption is None:
        return [
            Warning(
                "Backups are not encrypted.",
                hint="Set ENCRYPTION in MIPYME_BACKUP to a passphrase file.",
                id="mipyme_backup.W001",
            )
        ]
    return []


def _error(problem: ConfigurationError) -> CheckMessage:
    return Error(str(problem), hint=str(problem.hint) or None, id="mipyme_backup.E001")


def _public_destinations(settings: conf.Settings) -> Iterator[CheckMessage]:
    for key in ("MEDIA_ROOT", "STATIC_ROOT"):
        public = getattr(django_settings, key, None)
        if not public:
            continue
        root = Path(public).resolve()
        for name, part in settings.destinations.items():
            location = part.options.get("location")
            if location is None:
                continue
            place = Path(location).resolve()
            if root == place or root in place.parents:
                yield Error(
                    f"The destination {name} ({place}) lies inside {key}, which is public.",
                    hint="Set its location to a folder outside.",
                    id="mipyme_backup.E002",
                )
