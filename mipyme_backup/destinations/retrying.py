"""Trying again, within a budget of seconds, what failed for a reason that may pass."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from mipyme_backup.destinations.base import Destination
from mipyme_backup.destinations.listing import Entry, Layout, Listing
from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader

logger = logging.getLogger("mipyme_backup")
T = TypeVar("T")

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
LISTING_SECONDS = 30.0


class RetryingDestination(Destination):
    """`inner`, whose passing errors are tried again for `seconds`; permanent ones fail at once.

    Pauses grow from a second to half a minute, each between half and one and a half times that,
    so that many clients do not come back at the same moment. `check` and `probe` are not tried
    again: what is down when a run begins is left out, and completed later.

    Several threads may call it: one call at a time reaches `inner`.
    """

    def __init__(self, inner: Destination, *, name: str, seconds: float) -> None:
        self._inner = inner
        self._name = name
        self._seconds = seconds
        self._lock = threading.Lock()

    @property
    def remote(self) -> bool:  # type: ignore[override]
        return self._inner.remote

    @property
    def fetches_whole(self) -> bool:  # type: ignore[override]
        return self._inner.fetches_whole

    @property
    def bandwidth(self) -> int | None:
        return self._inner.bandwidth

    @bandwidth.setter
    def bandwidth(self, bandwidth: int | None) -> None:
        self._inner.bandwidth = bandwidth

    @property
    def may_delete(self) -> bool | None:  # type: ignore[override]
        return self._inner.may_delete

    @property
    def skew(self) -> timedelta | None:  # type: ignore[override]
        return self._inner.skew

    def check(self) -> None:
        with self._lock:
            self._inner.check()

    def probe(self) -> None:
        with self._lock:
            self._inner.probe()

    def make_staging(self) -> Path | None:
        return self._inner.make_staging()

    def put(self, name: str, file: Path) -> None:
        self._stubbornly(lambda: self._inner.put(name, file))

    def vouches_for(self, name: str, file: Path) -> bool:
        return self._stubbornly(lambda: self._inner.vouches_for(name, file))

    def open(self, name: str) -> Reader:
        return _Resumed(lambda: self._inner.open(name), self._stubbornly)

    def size(self, name: str) -> int | None:
        return self._stubbornly(lambda: self._inner.size(name))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        # Who lists has others to ask, and is often somebody who waits.
        seconds = min(self._seconds, LISTING_SECONDS)
        yield from self._stubbornly(lambda: [*self._inner.entries(prefix)], seconds)

    def listing(self, layout: Layout) -> Listing:
        seconds = min(self._seconds, LISTING_SECONDS)
        return self._stubbornly(lambda: self._inner.listing(layout), seconds)

    def delete(self, name: str) -> None:
        self._stubbornly(lambda: self._inner.delete(name))

    def sweep(self, prefix: str) -> None:
        self._stubbornly(lambda: self._inner.sweep(prefix))

    def free_space(self) -> int | None:
        return self._stubbornly(self._inner.free_space)

    def total_space(self) -> int | None:
        return self._stubbornly(self._inner.total_space)

    def describe(self) -> str:
        return self._inner.describe()

    def _stubbornly(self, call: Callable[[], T], budget: float | None = None) -> T:
        deadline = time.monotonic() + (self._seconds if budget is None else budget)
        pause = FIRST_PAUSE
        while True:
            try:
                with self._lock:
                    return call()
            except DestinationError as error:
                seconds = pause * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                if error.permanent or time.monotonic() + seconds > deadline:
                    raise
                logger.info("%s: %s; trying again in %.1f s", self._name, error, seconds)
            time.sleep(seconds)
            pause = min(2 * pause, LONGEST_PAUSE)


class _Resumed:
    """A reader that is opened anew where it breaks off, and goes on where it was."""

    def __init__(
        self, opened: Callable[[], Reader], stubbornly: Callable[[Callable[[], bytes]], bytes]
    ) -> None:
        self._opened = opened
        self._stubbornly = stubbornly
        self._reader: Reader | None = None
        self._offset = 0
        self._stubbornly(self._begin)

    def read(self, size: int, /) -> bytes:
        data = self._stubbornly(lambda: self._read(size))
        self._offset += len(data)
        return data

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _begin(self) -> bytes:
        self._reader = self._opened()
        return b""

    def _read(self, size: int) -> bytes:
        try:
            if self._reader is None:
                self._begin()
                self._skip(self._offset)
            assert self._reader is not None
            return self._reader.read(size)
        except DestinationError:
            self.close()  # it may be anywhere by now
            self._reader = None
            raise

    def _skip(self, count: int) -> None:
        assert self._reader is not None
        while count:
            skipped = self._reader.read(min(count, CHUNK))
            if not skipped:
                raise DestinationError(
                    _("An object became shorter while it was read."),
                    hint=_("Look at what else writes to this destination, and verify the backup."),
                )
            count -= len(skipped)
