"""How each family of Django storages is spoken to; each is imported where it is met."""

from __future__ import annotations

from importlib import import_module

from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InvalidStorageError, Storage, storages

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.remote.objects import Objects

FAMILIES = {
    "storages.backends.s3.S3Storage": "s3.S3Objects",
    "storages.backends.sftpstorage.SFTPStorage": "sftp.SFTPObjects",
}
"""By the class that a storage derives from, wherever its author put his own."""


def storage_of(alias: str) -> Storage:
    """Return the storage that STORAGES calls `alias`; raises ConfigurationError."""
    if alias not in storages.backends:
        raise ConfigurationError(
            _("The media source names the storage %(alias)s, which STORAGES does not have"),
            hint=_("Set its OPTIONS to an alias of STORAGES."),
            alias=alias,
        )
    try:
        storage: Storage = storages[alias]
    except (InvalidStorageError, ImportError, ImproperlyConfigured, TypeError, ValueError) as error:
        raise ConfigurationError(
            _("The storage %(alias)s, which keeps the media, cannot be used: %(reason)s"),
            hint=_(
                'Look at its OPTIONS in STORAGES. S3 needs pip install "mipyme_backup[s3]", SFTP'
                ' pip install "mipyme_backup[sftp]".'
            ),
            alias=alias,
            reason=error,
        ) from error
    return storage


def objects_in(alias: str) -> Objects:
    """Return what is in the storage that STORAGES calls `alias`; raises ConfigurationError."""
    storage = storage_of(alias)
    family = "generic.GenericObjects"
    for kind in reversed(type(storage).__mro__):
        family = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}", family)
    module, name = family.split(".")
    built: Objects = getattr(import_module(f"{__package__}.{module}"), name)(storage, alias)
    return built
