"""FileSystemStorage: its folder, kept as a local destination is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mipyme_backup.destinations.access.base import Access
from mipyme_backup.destinations.listing import Entry, Layout
from mipyme_backup.destinations.local import LocalDestination
from mipyme_backup.destinations.throttle import Throttle
from mipyme_backup.process import Reader


class FilesAccess(Access):
    """Private files, each written whole or not at all, whatever modes the storage gives its own.

    Nothing is sent anywhere, so there is no limit to the speed of it.
    """

    remote = False

    def __init__(self, storage: Any, alias: str) -> None:
        super().__init__(storage, alias)
        self._local = LocalDestination(location=storage.location)

    def tidy(self) -> None:
        self._local.check()

    def probe(self) -> bool | None:
        self._local.probe()
        return True

    def put(self, name: str, file: Path, throttle: Throttle) -> None:
        self._local.put(name, file)

    def open(self, name: str) -> Reader:
        return self._local.open(name)

    def size(self, name: str) -> int | None:
        return self._local.size(name)

    def entries(self, prefix: str) -> Iterator[Entry]:
        return self._local.entries(prefix)

    def listing(self, layout: Layout) -> Iterator[Entry]:
        return self._local.met(layout)

    def delete(self, name: str) -> None:
        self._local.delete(name)

    def sweep(self, prefix: str) -> None:
        self._local.sweep(prefix)

    def free_space(self) -> int | None:
        return self._local.free_space()

    def total_space(self) -> int | None:
        return self._local.total_space()

    def describe(self) -> str:
        return self._local.describe()
