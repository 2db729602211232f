"""What a destination is: a flat store of named objects, written whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mipyme_backup.process import Reader


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object of a destination: `name` is relative and ``/``-separated, `size` in bytes."""

    name: str
    size: int


class Destination(ABC):
    """A place where backups are kept.

    All errors are `DestinationError`; its `permanent` flag says whether trying again may help.
    A missing object is `ObjectMissingError`. A listing that fails raises: it never looks empty.
    """

    remote = False

    @abstractmethod
    def check(self) -> None:
        """Raise DestinationError when this destination cannot be written to now."""

    @abstractmethod
    def put(self, name: str, file: Path) -> None:
        """Store the content of `file` as `name`, replacing what was there, all or nothing.

        `file` is a finished, synced file that will not change; it may be linked, not copied.
        """

    @abstractmethod
    def open(self, name: str) -> Reader:
        """Return a reader of the object's bytes."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the object's size in bytes, None when there is no such object."""

    @abstractmethod
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose name begins with `prefix`, in order of name."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object; one that is missing already is no error."""

    def free_space(self) -> int | None:
        """Return the free bytes, None where that has no meaning."""
        return None
