"""What differs between families of storages, behind one interface."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mipyme_backup.destinations.base import skew_of
from mipyme_backup.destinations.listing import Entry, Layout
from mipyme_backup.destinations.throttle import Throttle
from mipyme_backup.errors import DeletionRefusedError, DestinationError
from mipyme_backup.messages import _
from mipyme_backup.process import Reader

PROBE = ".mipyme_backup_probe"
PROBES = 5
PROBE_CONTENT = b"mipyme_backup tries here whether it can write and delete.\n"


class Access(ABC):
    """How objects are kept in one storage. Names have been checked; errors are those of
    `Destination`, whose docstrings say what each verb does.
    """

    remote = True
    skew: timedelta | None = None

    def __init__(self, storage: Any, alias: str) -> None:
        self.storage = storage
        self.alias = alias

    def tidy(self) -> None:
        """Remove what dead processes left; nobody else may be writing."""
        return

    def probe(self) -> bool | None:
        """Write a small object and delete it; return whether deletion is allowed, and set `skew`.

        It has the same name each time, so that one remains where nothing may be deleted. Whoever
        probes at the same moment deletes that as well, so what is gone is written again.
        """
        self.prepare()
        with tempfile.NamedTemporaryFile(prefix="mipyme_backup_probe_") as file:
            file.write(PROBE_CONTENT)
            file.flush()
            began = datetime.now(UTC)
            try:
                if not any(self._holds(Path(file.name)) for _try in range(PROBES)):
                    raise DestinationError(
                        _("The storage %(alias)r does not hold what was just written to it."),
                        hint=_("Look at its options in STORAGES, and at the service."),
                        alias=self.alias,
                    )
                stored = self.modified_at(PROBE)
                self.skew = None if stored is None else skew_of(stored, began)
                self.delete(PROBE)
            except DeletionRefusedError:
                return False
        return True

    def _holds(self, probe: Path) -> bool:
        self.put(PROBE, probe, Throttle(None))
        return self.size(PROBE) == len(PROBE_CONTENT)

    def prepare(self) -> None:
        """Raise DestinationError where the storage's options rule out keeping backups there."""
        return

    @abstractmethod
    def put(self, name: str, file: Path, throttle: Throttle) -> None: ...

    def vouches_for(self, name: str, file: Path) -> bool:
        return False

    @abstractmethod
    def open(self, name: str) -> Reader: ...

    @abstractmethod
    def size(self, name: str) -> int | None: ...

    def modified_at(self, name: str) -> datetime | None:
        """Return when the object was stored, by the storage's clock; None where it does not say."""
        return None

    @abstractmethod
    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield what is stored below `prefix`, in any order; files that are no objects, too."""

    def listing(self, layout: Layout) -> Iterator[Entry]:
        """Yield what `layout` knows, and what else was met on the way to it."""
        return self.entries("")

    @abstractmethod
    def delete(self, name: str) -> None: ...

    def sweep(self, prefix: str) -> None:
        return

    def free_space(self) -> int | None:
        return None

    def total_space(self) -> int | None:
        return None

    @abstractmethod
    def describe(self) -> str: ...


def walk(
    listed: Callable[[str], tuple[list[str], Iterable[Entry]]], leads: Callable[[str], bool]
) -> Iterator[Entry]:
    """Yield the entries of the root, and of the folders below it that `leads` says to go into.

    `listed` takes a folder's name ("" is the root) and returns the names of the folders and the
    entries of the files in it, all of them from the root on. Any other folder is yielded with a
    slash at its end.
    """
    waiting = [""]
    while waiting:
        folders, files = listed(waiting.pop())
        yield from files
        for folder in folders:
            if leads(folder):
                waiting.append(folder)
            else:
                yield Entry(name=f"{folder}/", size=0)
