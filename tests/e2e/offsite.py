"""Projects that keep their backups off-site: on S3 and SFTP, as `tests.services` serves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.e2e.project import Project

S3 = "storages.backends.s3.S3Storage"
SFTP = "storages.backends.sftpstorage.SFTPStorage"
DJANGO = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}


def keep_on(
    project: Project,
    storages: Mapping[str, tuple[str, Mapping[str, Any]]],
    *,
    local: bool = False,
    **more: Any,
) -> None:
    """Have the project keep its backups in the `storages`: (back end, OPTIONS) by alias.

    With `local` in its own folder as well; `more` are keys of each off-site destination.
    """
    destinations: dict[str, Any] = {}
    if local:
        destinations["local"] = {
            "BACKEND": "mipyme_backup.destinations.LocalDestination",
            "OPTIONS": {"location": str(project.backups)},
        }
    for alias in storages:
        destinations[alias] = {
            "BACKEND": "mipyme_backup.destinations.StorageDestination",
            "OPTIONS": {"storage": alias},
            **more,
        }
    given = {
        alias: {"BACKEND": backend, "OPTIONS": dict(options)}
        for alias, (backend, options) in storages.items()
    }
    project.backup_settings = {**project.backup_settings, "DESTINATIONS": destinations}
    project.more_settings = f"STORAGES = { ({**DJANGO, **given})!r}\n"
    project.write()
