"""Reading ahead: while one small file is packed, the next ones are on their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mipyme_backup.sources.media.remote.listing import Listing, RemoteEntry
from mipyme_backup.sources.media.remote.objects import Found, Objects, Opened

AHEAD_BYTES = 1024 * 1024
"""Files up to this size are read ahead."""

STREAK = 4
"""After so many files in a row that were read, the next ones are expected to be."""


class ReadAhead:
    """Guesses what will be read: in a first backup every file, in a later one hardly any.

    Two files for each worker of `objects` are read ahead; with one worker, nothing is.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._pool = ThreadPoolExecutor(objects.workers)
        self._reading: dict[bytes, Future[Opened]] = {}
        self._in_a_row = 0
        self._was_read = False

    def over(self, listing: Listing) -> Generator[RemoteEntry, None, None]:
        """Yield the entries of a listing; each is read, or not, before the next is asked for."""
        window = 2 * self._objects.workers if self._objects.workers > 1 else 1
        waiting: deque[RemoteEntry] = deque()
        try:
            for entry in listing.entries():
                waiting.append(entry)
                if len(waiting) >= window:
                    yield from self._first(waiting)
            while waiting:
                yield from self._first(waiting)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def taken(self, path: bytes) -> Opened | None:
        """Return a file that was read ahead; raises what reading it raised."""
        self._was_read = True
        reading = self._reading.pop(path, None)
        return None if reading is None else reading.result()

    def _first(self, waiting: deque[RemoteEntry]) -> Iterator[RemoteEntry]:
        if self._in_a_row >= STREAK:
            for entry in waiting:
                small = entry.reason is None and entry.size <= AHEAD_BYTES
                if small and entry.path not in self._reading:
                    self._reading[entry.path] = self._pool.submit(self._read, entry.found)
        self._was_read = False
        entry = waiting.popleft()
        yield entry
        self._in_a_row = self._in_a_row + 1 if self._was_read else 0
        self._reading.pop(entry.path, None)

    def _read(self, found: Found) -> Opened:
        return _InMemory(self._objects.open(found))


class _InMemory:
    """A file whose content is here already; it can be read anew."""

    def __init__(self, opened: Opened) -> None:
        self.size = opened.size
        self.mtime_ns = opened.mtime_ns
        self._opened = opened
        self._content: bytes | None = b"".join(opened.chunks())

    def chunks(self) -> Iterator[bytes]:
        content, self._content = self._content, None
        return self._opened.chunks() if content is None else iter([content])

    def stood_still(self) -> bool:
        return self._opened.stood_still()
