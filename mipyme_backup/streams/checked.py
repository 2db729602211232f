"""The checking stage: a stream passes unchanged, while what it holds is parsed beside it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from mipyme_backup.process import Reader

DEPTH = 8
"""Pieces of a stream that may wait for the check."""

Check = Callable[[Reader], None]
"""Reads a stream to its end, and raises for what is wrong with it."""


class Checked:
    """`upstream` unchanged; its end is given only once `check`, in a thread, found it good.

    For a stream that nobody here can read again once it is encrypted.
    """

    def __init__(self, upstream: Reader, check: Check) -> None:
        self._upstream = upstream
        self._copy = _Copy()
        self._failure: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=[check], daemon=True)
        self._thread.start()

    def read(self, size: int, /) -> bytes:
        data = self._upstream.read(size) if not self._ended else b""
        if data:
            self._copy.put(data)
            return data
        if size > 0:
            self._end()
        return b""

    def close(self) -> None:
        self._copy.abandon()
        self._thread.join()
        self._upstream.close()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._copy.put(b"")
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, check: Check) -> None:
        try:
            check(self._copy)
        except BaseException as error:  # noqa: BLE001 - raised at the end of the stream
            self._failure = error
        finally:
            self._copy.abandon()


class AbandonedError(Exception):
    """The stream is not read to its end."""


class _Copy:
    """The same bytes for the check, a few pieces at a time; takes no more once it is abandoned."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[bytes] = queue.Queue(DEPTH)
        self._abandoned = threading.Event()
        self._rest = b""
        self._ended = False

    def put(self, data: bytes) -> None:
        while not self._abandoned.is_set():
            try:
                self._pieces.put(data, timeout=0.1)
            except queue.Full:
                continue
            return

    def abandon(self) -> None:
        self._abandoned.set()

    def read(self, size: int, /) -> bytes:
        while not self._rest and not self._ended:
            try:
                self._rest = self._pieces.get(timeout=0.1)
                self._ended = not self._rest
            except queue.Empty:
                if self._abandoned.is_set():
                    raise AbandonedError from None
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        return
