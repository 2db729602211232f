"""System checks. Only malformed settings are errors: an error stops the whole project.

What concerns the machine is a warning under ``--deploy``, and preflight in our own commands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage, InvalidStorageError, storages
from django.utils.translation import gettext as _

from mipyme_backup import conf, queue
from mipyme_backup.errors import BackupError, ConfigurationError
from mipyme_backup.places import GOOD_PLACE, why_misplaced
from mipyme_backup.policy.origin import is_generic
from mipyme_backup.translation import translated

TAG = "mipyme_backup"
STORAGE_DESTINATION = "mipyme_backup.destinations.StorageDestination"
PLACE = (
    "account_name",
    "azure_container",
    "bucket_name",
    "endpoint_url",
    "host",
    "location",
    "root_path",
)
"""The options by which storages that are no folder tell where they keep things."""


@register(TAG)
def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E001: a setting is unknown or malformed. E002: backups or state lie in public files.

    E003: backups lie in the storage whose files they save.
    """
    problems = conf.problems()
    if problems:
        return [_error(problem) for problem in problems]
    from mipyme_backup import api  # the parts need the models, which are not there at import

    try:
        settings = conf.load()
        folders, aliases = api.saved_places()
    except ConfigurationError as error:
        return [_error(error)]
    return [
        *_public_places(settings),
        *_media_storages(settings, aliases),
        *_saved_folders(settings, folders),
    ]


@register(Tags.security, deploy=True)
def check_deployment(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W001: backups are not encrypted. W002: a backup would fail on this machine.

    W003: nobody is told of what is wrong. W004: the state lies where others can write to it, or
    where it will be forgotten. W005: the workers unpickle what anyone writes into the broker.
    W006: the project has a default name that many have.
    """
    try:
        settings = conf.load()
    except ConfigurationError:
        return []  # `check_settings` tells
    found: list[CheckMessage] = []
    if settings.encryption is None:
        found.append(
            checks.Warning(
                _("Backups are not encrypted."),
                hint=_("Set ENCRYPTION in MIPYME_BACKUP to a passphrase file."),
                id="mipyme_backup.W001",
            )
        )
    found += _state_place(settings)
    if settings.named_by_default and is_generic(settings.project):
        found.append(
            checks.Warning(
                _(
                    "This project has the name %(name)s from its settings module, as many others"
                    " do: backups of two of them in one place are taken for one another."
                )
                % {"name": settings.project},
                hint=_(
                    "Set PROJECT in MIPYME_BACKUP to a name of its own, before the first backup:"
                    " those made until then keep the name %(name)s, and a project of another name"
                    " neither restores nor prunes them."
                )
                % {"name": settings.project},
                id="mipyme_backup.W006",
            )
        )
    if queue.takes_pickle():
        found.append(
            checks.Warning(
                _(
                    "Celery's workers accept pickled messages, so anyone who can write to the"
                    " broker can run code as the user of the workers."
                ),
                hint=_("Remove pickle from accept_content of the Celery app."),
                id="mipyme_backup.W005",
            )
        )
    from mipyme_backup import api  # as above

    if not api.alert_channels():
        found.append(
            checks.Warning(
                _("No alerts are sent when something is wrong with the backups."),
                hint=_("Set ADMINS, or recipients or webhooks in ALERTS of MIPYME_BACKUP."),
                id="mipyme_backup.W003",
            )
        )
    try:
        api.preflight()
    except BackupError as error:
        found.append(
            checks.Warning(
                translated(error.message),
                hint=translated(error.hint) or None,
                id="mipyme_backup.W002",
            )
        )
    return found


def _error(problem: ConfigurationError) -> CheckMessage:
    return Error(
        translated(problem.message), hint=translated(problem.hint) or None, id="mipyme_backup.E001"
    )


def _public_places(settings: conf.Settings) -> Iterator[CheckMessage]:
    places: dict[str, Any] = {
        _("The destination %(name)s") % {"name": name}: _folder(part)
        for name, part in settings.destinations.items()
    }
    if not any(settings.state_dir.is_relative_to(str(place)) for place in places.values()):
        places["STATE_DIR"] = settings.state_dir
    for key in ("MEDIA_ROOT", "STATIC_ROOT"):
        public = getattr(django_settings, key, None)
        for what, place in places.items():
            if _is_inside(place, public):
                text = _("%(what)s (%(place)s) lies inside %(key)s, which is public.")
                yield Error(
                    text % {"what": what, "place": Path(place).resolve(), "key": key},
                    hint=_("Set it to a folder outside."),
                    id="mipyme_backup.E002",
                )


def _state_place(settings: conf.Settings) -> Iterator[CheckMessage]:
    """Yield what is wrong with the place of the records that a later run acts on."""
    place = settings.state_dir
    reason = why_misplaced(place, conf.local_folders(settings.destinations))
    if reason:
        yield checks.Warning(
            _("STATE_DIR (%(place)s): %(reason)s.") % {"place": place, "reason": _(reason)},
            hint=_(GOOD_PLACE),
            id="mipyme_backup.W004",
        )


def _media_storages(settings: conf.Settings, media: Collection[str]) -> Iterator[CheckMessage]:
    public = getattr(django_settings, "MEDIA_ROOT", None)
    for name, part in settings.destinations.items():
        folder = _folder(part)
        for alias in sorted(media):
            inside = _is_inside(folder, _folder_of_storage(alias))
            if (inside and not _is_inside(folder, public)) or (
                folder is None and _is_same_place(_alias(part), alias)
            ):
                text = _(
                    "The destination %(name)s keeps backups in the storage %(alias)r, whose"
                    " files they save: who may read the media may read them."
                )
                yield Error(
                    text % {"name": name, "alias": alias},
                    hint=_(
                        "Give backups an alias of their own in STORAGES, with another bucket,"
                        " location or folder."
                    ),
                    id="mipyme_backup.E003",
                )


def _saved_folders(settings: conf.Settings, folders: Mapping[str, Path]) -> Iterator[CheckMessage]:
    """Yield what would save the backups in each backup again."""
    for name, part in settings.destinations.items():
        for what, folder in folders.items():
            if _is_inside(_folder(part), folder):
                text = _("The destination %(name)s lies in %(folder)s, which %(what)s saves.")
                yield Error(
                    text % {"name": name, "folder": folder, "what": what},
                    hint=_("Move one of them: each backup would hold all earlier ones."),
                    id="mipyme_backup.E003",
                )


def _is_inside(place: object, root: object) -> bool:
    if not root or not isinstance(place, str | Path) or not isinstance(root, str | Path):
        return False
    return Path(place).resolve().is_relative_to(Path(root).resolve())


def _alias(part: conf.Part) -> str | None:
    alias = part.options.get("storage") if part.backend == STORAGE_DESTINATION else None
    return alias if isinstance(alias, str) else None


def _folder(part: conf.Part) -> Any:
    """Return the folder of a destination, None where it has none."""
    return part.options.get("location") or _folder_of_storage(_alias(part))


def _folder_of_storage(alias: str | None) -> Any:
    """Return where a storage keeps its files; clients of services are not imported for that."""
    if alias is None or _entry(alias).get("BACKEND", "storages.").startswith("storages."):
        return None
    try:
        storage = storages[alias]
    except (ImportError, ImproperlyConfigured, InvalidStorageError, TypeError, ValueError):
        return None  # the first use of it tells
    # Without MEDIA_ROOT, Django takes the working directory: that is not media.
    if not isinstance(storage, FileSystemStorage) or not storage.base_location:
        return None
    return storage.location


def _entry(alias: str) -> dict[str, Any]:
    return django_settings.STORAGES.get(alias, {})


def _is_same_place(alias: str | None, other: str) -> bool:
    """Say whether two aliases, none of which is a folder, mean one place."""
    if alias is None:
        return False
    entries = [_entry(name) for name in (alias, other)]
    places = [
        {name: str(entry.get("OPTIONS", {}).get(name) or "").strip("/") for name in PLACE}
        for entry in entries
    ]
    one_place = any(places[0].values()) and places[0] == places[1]
    same_backend = len({entry.get("BACKEND") for entry in entries}) == 1
    return alias == other or (same_backend and one_place)
