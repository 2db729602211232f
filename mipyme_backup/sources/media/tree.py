"""What a run needs of the place that holds the media: a folder, or a remote storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from mipyme_backup.sources.media.left_out import Reason


class Entry(Protocol):
    """A folder, a file, or (with a `reason`) what cannot be saved, as the listing knows it.

    `link` is the text of a link that is not followed, and `leads_to` where it leads, as far as
    that is known. `mtime_ns` is None where nobody knows when the file was last changed,
    `ctime_ns`, `inode` and the `ids` of user and group where there are no such.
    """

    @property
    def path(self) -> bytes: ...

    @property
    def key(self) -> bytes: ...

    @property
    def reason(self) -> Reason | None: ...

    @property
    def link(self) -> bytes | None: ...

    @property
    def leads_to(self) -> bytes: ...

    @property
    def is_folder(self) -> bool: ...

    @property
    def size(self) -> int: ...

    @property
    def mtime_ns(self) -> int | None: ...

    @property
    def ctime_ns(self) -> int | None: ...

    @property
    def inode(self) -> int | None: ...

    @property
    def ids(self) -> tuple[int, int] | None: ...

    @property
    def mode(self) -> int: ...


class OpenFile(Protocol):
    """A file that is open for reading, as it was when it was opened.

    Reading raises OSError where it fails. `recheck` says that it was written to so shortly
    before that its time may not show a later change.
    """

    @property
    def size(self) -> int: ...

    @property
    def mtime_ns(self) -> int: ...

    @property
    def ctime_ns(self) -> int | None: ...

    @property
    def inode(self) -> int | None: ...

    @property
    def mode(self) -> int: ...

    @property
    def recheck(self) -> bool: ...

    def read_whole(self) -> tuple[bytes, bool]:
        """Return the content, and whether it stood still meanwhile. Called once."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the first `size` bytes, or less where it became shorter."""

    def sha256(self) -> str | None:
        """Return the hash of the first `size` bytes, None where there are fewer."""


class Tree(Protocol):
    """All the media of a project.

    Files up to `small_bytes` are read once, into memory; larger ones twice, in chunks.
    """

    small_bytes: int

    def entries(self) -> Iterator[Any]:
        """Yield every `Entry` in the order of the index."""

    def top(self) -> tuple[int, tuple[int, int]] | None:
        """Return the mode of the folder that holds all, and its user and group; None for none."""

    def may_exist(self, path: bytes) -> bool:
        """Return whether something that `entries` did not yield is there, as far as can be told."""

    def opened(self, entry: Any) -> AbstractContextManager[OpenFile | None]:
        """Open a file of `entries`, the last one yielded; None where it is no file any more.

        Raises FileNotFoundError where it is gone, and OSError where it cannot be read.
        """
