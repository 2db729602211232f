"""Any alias of Django's STORAGES as a destination: S3, B2, SFTP, a folder, what else there is."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import storages

from mipyme_backup.destinations.access import access_to
from mipyme_backup.destinations.access.base import Access
from mipyme_backup.destinations.base import Destination
from mipyme_backup.destinations.listing import Entry, Layout, Listing
from mipyme_backup.destinations.names import check_name, is_name
from mipyme_backup.destinations.throttle import Throttle
from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _
from mipyme_backup.process import Reader


class StorageDestination(Destination):
    """Keeps backups in the storage that STORAGES calls `storage`, looked up on first use.

    Raises ConfigurationError then where there is no such alias, or it cannot be built.
    """

    def __init__(self, *, storage: str) -> None:
        self.storage = storage
        self._throttle = Throttle(None)

    @property
    def remote(self) -> bool:  # type: ignore[override]
        return self._access.remote

    def check(self) -> None:
        self._access.tidy()
        self.probe()

    def probe(self) -> None:
        self.may_delete = self._access.probe()
        self.skew = self._access.skew

    def put(self, name: str, file: Path) -> None:
        check_name(name)
        if self._throttle.rate != self.bandwidth:
            self._throttle = Throttle(self.bandwidth)
        self._access.put(name, file, self._throttle)

    def vouches_for(self, name: str, file: Path) -> bool:
        check_name(name)
        return self._access.vouches_for(name, file)

    def open(self, name: str) -> Reader:
        check_name(name)
        return self._access.open(name)

    def size(self, name: str) -> int | None:
        check_name(name)
        return self._access.size(name)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        found = [entry for entry in self._access.entries(prefix) if is_name(entry.name)]
        yield from sorted(found, key=lambda entry: entry.name)

    def listing(self, layout: Layout) -> Listing:
        return layout.sorted_out(self._access.listing(layout))

    def delete(self, name: str) -> None:
        check_name(name)
        self._access.delete(name)

    def sweep(self, prefix: str) -> None:
        self._access.sweep(prefix)

    def free_space(self) -> int | None:
        return self._access.free_space()

    def total_space(self) -> int | None:
        return self._access.total_space()

    def describe(self) -> str:
        return self._access.describe()

    @functools.cached_property
    def _access(self) -> Access:
        if self.storage not in settings.STORAGES:
            raise ConfigurationError(
                _(
                    "OPTIONS.storage of an entry of DESTINATIONS names %(alias)r, which is not in"
                    " STORAGES."
                ),
                hint=_("Known aliases: %(known)s"),
                alias=self.storage,
                known=", ".join(sorted(settings.STORAGES)),
            )
        try:
            return access_to(storages[self.storage], self.storage)
        except (ImportError, ImproperlyConfigured, TypeError, ValueError) as error:
            raise ConfigurationError(
                _("STORAGES[%(alias)r] cannot be used: %(reason)s"),
                hint=_(
                    'Look at its OPTIONS. S3 needs pip install "mipyme_backup[s3]", SFTP'
                    ' pip install "mipyme_backup[sftp]".'
                ),
                alias=self.storage,
                reason=error,
            ) from error
