"""How each family of Django storages is spoken to; each is imported where it is met."""

from __future__ import annotations

from importlib import import_module

from django.core.files.storage import FileSystemStorage, Storage

from mipyme_backup.destinations.access.base import Access

FAMILIES = {
    "django.core.files.storage.filesystem.FileSystemStorage": "files.FilesAccess",
    "storages.backends.s3.S3Storage": "s3.S3Access",
    "storages.backends.sftpstorage.SFTPStorage": "sftp.SFTPAccess",
}
"""By the class that a storage derives from, wherever its author put his own."""


def access_to(storage: Storage, alias: str) -> Access:
    """Return what stores objects in `storage`, which is called `alias` in messages."""
    family = "generic.GenericAccess"
    if not _changes_files(storage):
        for kind in reversed(type(storage).__mro__):
            family = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}", family)
    module, name = family.split(".")
    built: Access = getattr(import_module(f"{__name__}.{module}"), name)(storage, alias)
    return built


def _changes_files(storage: Storage) -> bool:
    """Say whether a storage of files does more than keep them: then it has to do that itself."""
    return isinstance(storage, FileSystemStorage) and any(
        getattr(type(storage), verb) is not getattr(FileSystemStorage, verb)
        for verb in ("_save", "_open")
    )
