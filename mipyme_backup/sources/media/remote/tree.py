"""The media of a storage as a run over it reads them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from mipyme_backup.errors import SourceError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.names import to_text
from mipyme_backup.sources.media.remote.ahead import ReadAhead
from mipyme_backup.sources.media.remote.failures import failures, is_refusal
from mipyme_backup.sources.media.remote.listing import FILE_MODE, Listing, RemoteEntry
from mipyme_backup.sources.media.remote.objects import Found, Objects, Opened, sha256_of

T = TypeVar("T")

SMALL_BYTES = 32 * 1024 * 1024
RECENT_NS = 15 * 60 * 10**9
"""Clocks of storages tell whole seconds, and S3 takes requests from clocks as far off as this."""

TRIES = 3
PAUSE_SECONDS = 1.0


class RemoteTree:
    """The media in `objects`. Raises SourceError where it cannot be listed, or goes away."""

    small_bytes = SMALL_BYTES

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._opened = b""
        self._ahead = ReadAhead(objects)

    def entries(self) -> Iterator[RemoteEntry]:
        with failures(self._objects, _("list"), SourceError):
            listing = Listing(self._objects.media())
        with contextlib.closing(listing), contextlib.closing(self._ahead.over(listing)) as entries:
            yield from entries

    def top(self) -> None:
        return None

    def may_exist(self, path: bytes) -> bool:
        return False  # it would have been listed

    @contextlib.contextmanager
    def opened(self, entry: RemoteEntry) -> Iterator[RemoteFile | None]:
        found: Found | None = entry.found
        read_ahead: Opened | None = None
        if self._opened == entry.path:  # it is tried once more: what was listed is no longer so
            found = self.stubbornly(lambda: self._objects.stat(to_text(entry.path)))
        else:
            with contextlib.suppress(Exception):  # it is tried again, and may fail for good then
                read_ahead = self._ahead.taken(entry.path)
        self._opened = entry.path
        if found is None:
            raise FileNotFoundError(entry.path)
        if found.reason is not None:
            yield None
            return
        file = found
        yield RemoteFile(self, read_ahead or self.stubbornly(lambda: self._objects.open(file)))

    def stubbornly(self, call: Callable[[], T]) -> T:
        """Return what a call about one file returns, after some tries.

        Raises FileNotFoundError where the file is gone, OSError where it cannot be read, and
        SourceError where the whole storage cannot.
        """
        for attempt in range(TRIES):
            try:
                return call()
            except FileNotFoundError:
                raise
            except Exception as error:  # every library has errors of its own
                if is_refusal(error) or attempt == TRIES - 1:
                    with failures(self._objects, _("list"), SourceError):
                        self._objects.require_listable()
                    raise OSError(str(error)) from error
                time.sleep(PAUSE_SECONDS)
        raise AssertionError("unreachable")


class RemoteFile:
    """A file that is being read."""

    mode = FILE_MODE
    ctime_ns = None
    inode = None

    def __init__(self, tree: RemoteTree, opened: Opened) -> None:
        self.size = opened.size
        self.mtime_ns = opened.mtime_ns or 0
        recent = abs(time.time_ns() - self.mtime_ns) < RECENT_NS
        self.recheck = opened.mtime_ns is None or recent
        self._tree = tree
        self._opened = opened

    def read_whole(self) -> tuple[bytes, bool]:
        content = self._tree.stubbornly(lambda: b"".join(self._opened.chunks()))
        still = self._tree.stubbornly(self._opened.stood_still)
        return content, still and len(content) == self.size

    def chunks(self) -> Iterator[bytes]:
        left = self.size
        try:
            for chunk in self._opened.chunks():
                if len(chunk) > left:
                    yield chunk[:left]
                    return
                left -= len(chunk)
                yield chunk
        except Exception as error:  # every library has errors of its own
            raise OSError(str(error)) from error

    def sha256(self) -> str | None:
        digest, size = self._tree.stubbornly(lambda: sha256_of(self._opened.chunks()))
        still = self._tree.stubbornly(self._opened.stood_still)
        return digest if still and size == self.size else None
