"""What a storage must be able to do for its media to be saved and restored."""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.left_out import Reason
from mipyme_backup.sources.media.names import OWN_PREFIX
from mipyme_backup.sources.media.remote.parallel import each

OWN = OWN_PREFIX.decode()
PROBE = f"{OWN}probe"
PROBE_CONTENT = b"mipyme_backup tries here whether it can write and delete.\n"


class Found(NamedTuple):
    """A file as a listing shows it; `reason` says why it cannot be saved.

    `mtime_ns` is None where the storage does not tell. Where `tag` is not empty, it changes with
    the content.
    """

    name: str
    size: int = 0
    mtime_ns: int | None = None
    tag: str = ""
    reason: Reason | None = None


class Opened(Protocol):
    """A file that is being read, as it was when it was opened."""

    size: int
    mtime_ns: int | None

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning; may be called again."""

    def stood_still(self) -> bool:
        """Return whether the file is still what was opened."""


class ChangedError(Exception):
    """A file is not the one that was listed."""


class Content:
    """What is to be written: `size` bytes out of `chunks`; `head` are the first of them."""

    def __init__(self, chunks: Iterable[bytes], size: int) -> None:
        self.size = size
        self._chunks = iter(chunks)
        self.head = next(self._chunks, b"")
        self._rest = self.head

    def read(self, size: int = -1, /) -> bytes:
        parts = []
        left = self.size if size < 0 else size
        while left:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            parts.append(self._rest[:left])
            self._rest = self._rest[len(parts[-1]) :]
            left -= len(parts[-1])
        return b"".join(parts)


def content_of(data: bytes) -> Content:
    return Content([data] if data else [], len(data))


class Objects(ABC):
    """The files of one storage, by their names.

    Errors are those of the storage's library, save that a file that is missing is always a
    FileNotFoundError. Names that begin with `OWN` are ours: no media.
    """

    workers = 1
    """How many calls may be under way at the same time."""

    def __init__(self, storage: Any, alias: str) -> None:
        self.storage = storage
        self.alias = alias

    @abstractmethod
    def media(self) -> Iterator[Found]:
        """Yield every file that is not ours, in any order.

        Raises FileNotFoundError where there is no bucket or folder.
        """

    @abstractmethod
    def below(self, prefix: str) -> Iterator[Found]:
        """Yield the files below a folder of ours, in any order; none where it is missing."""

    @abstractmethod
    def stat(self, name: str) -> Found | None:
        """Return what there is of this name now, None where there is nothing."""

    @abstractmethod
    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file, in chunks of some 256 KiB."""

    def open(self, found: Found) -> Opened:
        """Return a file that was found, to be read."""
        return _Unlocked(self, found)

    def accepts(self, name: str) -> bool:
        """Say whether there can be a file of this name."""
        try:
            name.encode()
        except UnicodeEncodeError:
            return False
        return True

    @abstractmethod
    def put(self, name: str, content: Content, *, like: str = "") -> None:
        """Write a file of ours, in place of one of the same name; whole, or it has another size.

        `like` is the name that it will be moved to.
        """

    @abstractmethod
    def copy(self, name: str, to: str, *, size: int, like: str = "") -> None:
        """Make a file of ours out of another one, in place of one of the same name."""

    @abstractmethod
    def set_aside(self, name: str, to: str, *, expected: Found | None) -> None:
        """Keep a live file as a file of ours. Afterwards the live one may be there or not.

        Raises ChangedError, having done nothing, where it is not the one that is expected.
        """

    def require(self, name: str, expected: Found | None) -> Found:
        """Return what there is of this name; ChangedError where it is not what is expected."""
        found = self.stat(name)
        if found is None:
            raise FileNotFoundError(name)
        if expected is not None and found.size != expected.size:
            raise ChangedError(name)
        return found

    @abstractmethod
    def move(self, name: str, to: str, *, size: int) -> None:
        """Put a file of ours in the place of a live one, or where there is none.

        Interrupted at any point, the file of ours is still there, or the live one is whole.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file; one that is missing is no error."""

    def remove_below(self, prefix: str) -> None:
        """Remove a folder of ours with all that is in it."""
        each(self.delete, (found.name for found in self.below(prefix)), self.workers)

    @abstractmethod
    def require_listable(self) -> None:
        """Raise what a listing would raise, without making a whole one."""

    def require_writable(self) -> None:
        """Write a small file, and delete it; raises where that cannot be done."""
        self.put(PROBE, content_of(PROBE_CONTENT))
        found = self.stat(PROBE)
        self.delete(PROBE)
        if found is None or found.size != len(PROBE_CONTENT):
            raise OSError(_("it does not hold what was just written to it"))


class _Unlocked:
    """A file that others may write to meanwhile."""

    def __init__(self, objects: Objects, found: Found) -> None:
        self.size = found.size
        self.mtime_ns = found.mtime_ns
        self._objects = objects
        self._name = found.name

    def chunks(self) -> Iterator[bytes]:
        return self._objects.chunks(self._name)

    def stood_still(self) -> bool:
        now = self._objects.stat(self._name)
        return now is not None and (now.size, now.mtime_ns) == (self.size, self.mtime_ns)


def spooled(content: Content) -> Any:
    """Return an open file with all of `content`, in memory or, where large, without a name."""
    file = tempfile.SpooledTemporaryFile(max_size=8 * 1024 * 1024)  # noqa: SIM115
    try:
        while data := content.read(CHUNK):
            file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def hashed(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    """Yield the chunks, and tell them to a hash of `hashlib`."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def sha256_of(chunks: Iterable[bytes]) -> tuple[str, int]:
    """Return the hash and the size of a content."""
    digest = hashlib.sha256()
    size = 0
    for chunk in hashed(chunks, digest):
        size += len(chunk)
    return digest.hexdigest(), size
