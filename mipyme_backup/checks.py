"""System checks. Only malformed settings are errors: an error stops the whole project.

What concerns the machine is a warning under ``--deploy``, and preflight in our own commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register

from mipyme_backup import conf
from mipyme_backup.errors import BackupError, ConfigurationError

TAG = "mipyme_backup"


@register(TAG)
def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E001: a setting is unknown or malformed. E002: backups or state lie in public files."""
    problems = conf.problems()
    if problems:
        return [_error(problem) for problem in problems]
    from mipyme_backup import api  # the parts need the models, which are not there at import

    try:
        settings = conf.load()
        api.check_parts()
    except ConfigurationError as error:
        return [_error(error)]
    return list(_public_places(settings))


@register(Tags.security, deploy=True)
def check_deployment(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W001: backups are not encrypted. W002: a backup would fail on this machine."""
    try:
        settings = conf.load()
    except ConfigurationError:
        return []  # `check_settings` tells
    found: list[CheckMessage] = []
    if settings.encryption is None:
        found.append(
            checks.Warning(
                "Backups are not encrypted.",
                hint="Set ENCRYPTION in MIPYME_BACKUP to a passphrase file.",
                id="mipyme_backup.W001",
            )
        )
    from mipyme_backup import api  # as above

    try:
        api.preflight()
    except BackupError as error:
        found.append(
            checks.Warning(str(error), hint=str(error.hint) or None, id="mipyme_backup.W002")
        )
    return found


def _error(problem: ConfigurationError) -> CheckMessage:
    return Error(str(problem), hint=str(problem.hint) or None, id="mipyme_backup.E001")


def _public_places(settings: conf.Settings) -> Iterator[CheckMessage]:
    places: dict[str, Any] = {
        f"The destination {name}": part.options.get("location")
        for name, part in settings.destinations.items()
    }
    if not any(settings.state_dir.is_relative_to(str(place)) for place in places.values()):
        places["STATE_DIR"] = settings.state_dir
    for key in ("MEDIA_ROOT", "STATIC_ROOT"):
        public = getattr(django_settings, key, None)
        for what, location in places.items():
            if not public or not isinstance(location, str | Path):
                continue
            place, root = Path(location).resolve(), Path(public).resolve()
            if root == place or root in place.parents:
                yield Error(
                    f"{what} ({place}) lies inside {key}, which is public.",
                    hint="Set it to a folder outside.",
                    id="mipyme_backup.E002",
                )
