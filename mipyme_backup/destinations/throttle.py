"""A limit to the bytes that are sent in a second."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mipyme_backup.process import CHUNK

BURST_SECONDS = 1.0


class Throttle:
    """A token bucket of `rate` bytes a second; None lets everything pass. Any thread may call it.

    What was not used is saved up for a second at most.
    """

    def __init__(
        self,
        rate: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until = clock()

    def take(self, count: int) -> None:
        """Return once `count` bytes may be sent; a count below zero gives some back."""
        if self.rate is None:
            return
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - BURST_SECONDS) + count / self.rate
            seconds = self._paid_until - now
        if seconds > 0:
            self._sleep(seconds)

    def open(self, file: Path) -> io.BufferedReader:
        """Open `file` for reading as fast as its bytes may be sent."""
        size = CHUNK if self.rate is None else max(1, min(CHUNK, self.rate))
        return io.BufferedReader(_Throttled(file, self), size)


class _Throttled(io.RawIOBase):
    """A file whose every byte that is read is taken from the bucket first.

    It has no descriptor to show, so nobody can read around it.
    """

    def __init__(self, file: Path, throttle: Throttle) -> None:
        super().__init__()
        self._file = file.open("rb", buffering=0)
        self._throttle = throttle

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        limit = self._throttle.rate or len(buffer)
        count = self._file.readinto(memoryview(buffer)[:limit])
        self._throttle.take(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
