"""What a destination is: a flat store of named objects, written whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mipyme_backup.destinations.listing import Entry, Layout, Listing
from mipyme_backup.process import Reader


class Destination(ABC):
    """A place where backups are kept.

    All errors are `DestinationError`; its `permanent` flag says whether trying again may help.
    A missing object is `ObjectMissingError`, a deletion that the service refuses (by a lock, or
    by credentials that may only add) is `DeletionRefusedError`. A listing that fails raises: it
    never looks empty.

    `remote` says that it is not on this machine, `fetches_whole` that `open` brings all of the
    object here before its first byte can be read; `bandwidth` limits what is sent, in bytes a
    second (None: not at all). Known once `check` or `probe` has passed, and None where it cannot
    be told: `may_delete`, and `skew`, how far its clock is ahead of ours. One thread uses a
    destination at a time.
    """

    remote = False
    fetches_whole = False
    bandwidth: int | None = None
    may_delete: bool | None = None
    skew: timedelta | None = None

    @abstractmethod
    def check(self) -> None:
        """Raise DestinationError when this destination cannot be written to now."""

    def probe(self) -> None:
        """As `check`, but while others may be writing here: nothing is tidied up."""
        self.check()

    def make_staging(self) -> Path | None:
        """Return a new private folder from which `put` adopts a file without copying it.

        None where there is none to be had. Who takes it removes it; `check` removes those of runs
        that died.
        """
        return None

    @abstractmethod
    def put(self, name: str, file: Path) -> None:
        """Store the content of `file` as `name`, replacing what was there, all or nothing.

        `file` is a finished, synced file that will not change; it may be linked, not copied.
        """

    def vouches_for(self, name: str, file: Path) -> bool:
        """Say whether the service itself attests that the object has the bytes of `file`.

        False, where it attests nothing, means that the object has to be read again to know.
        Raises DestinationError when it attests other bytes.
        """
        return False

    @abstractmethod
    def open(self, name: str) -> Reader:
        """Return a reader of the object's bytes."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the object's size in bytes, None when there is no such object."""

    @abstractmethod
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose name begins with `prefix`, in order of name."""

    def listing(self, layout: Layout) -> Listing:
        """Return the objects that `layout` knows, and how much else there is.

        A destination that can go into folders, or ask for prefixes, looks nowhere else: whoever
        can write here may leave a million other things.
        """
        return layout.sorted_out(self.entries())

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object; one that is missing already is no error."""

    def sweep(self, prefix: str) -> None:
        """Remove what killed runs left of objects whose name begins with `prefix`.

        Those are temporary files and unfinished uploads, never an object that is whole.
        """
        return

    def free_space(self) -> int | None:
        """Return the free bytes, None where that has no meaning."""
        return None

    def total_space(self) -> int | None:
        """Return the bytes of the whole disk, None where that has no meaning."""
        return None

    def describe(self) -> str:
        """Return one line that tells where the backups are to somebody who must find them.

        It is printed and kept in a drawer: it asks no service, and holds no secret.
        """
        return type(self).__qualname__


def skew_of(stored: datetime, began: datetime) -> timedelta:
    """Return how far a clock is ahead of ours that says `stored` of what we stored since `began`.

    Zero where it may be right: how long the way there takes is not known.
    """
    return min(stored - began, timedelta(0)) or max(stored - datetime.now(UTC), timedelta(0))
