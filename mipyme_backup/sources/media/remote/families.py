"""How each family of Django storages is spoken to; each is imported where it is met."""

from __future__ import annotations

from importlib import import_module

from mipyme_backup.sources.media.remote.objects import Objects
from mipyme_backup.sources.media.storages import storage_called

FAMILIES = {
    "storages.backends.s3.S3Storage": "s3.S3Objects",
    "storages.backends.sftpstorage.SFTPStorage": "sftp.SFTPObjects",
}
"""By the class that a storage derives from, wherever its author put his own."""


def objects_in(alias: str) -> Objects:
    """Return what is in a storage, by the `alias` or the field that `storage_called` takes."""
    storage = storage_called(alias)
    family = "generic.GenericObjects"
    for kind in reversed(type(storage).__mro__):
        family = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}", family)
    module, name = family.split(".")
    built: Objects = getattr(import_module(f"{__package__}.{module}"), name)(storage, alias)
    return built
