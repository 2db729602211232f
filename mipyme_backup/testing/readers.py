"""Readers for tests, and what holds a block to raising a proper error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mipyme_backup.errors import BackupError
from mipyme_backup.process import CHUNK, Reader


def read_whole(reader: Reader, size: int = CHUNK) -> bytes:
    """Return all that `reader` gives, asked for in pieces of `size`; closes it."""
    try:
        return b"".join(iter(lambda: reader.read(size), b""))
    finally:
        reader.close()


class BytesReader:
    """A reader of `data` in pieces of at most `piece` bytes; raises `error` in place of its end."""

    def __init__(self, data: bytes, *, piece: int = CHUNK, error: Exception | None = None) -> None:
        self.closed = False
        self._data = memoryview(data)
        self._piece = piece
        self._error = error

    def read(self, size: int, /) -> bytes:
        taken = bytes(self._data[: min(size, self._piece)])
        self._data = self._data[len(taken) :]
        if not taken and self._error is not None:
            raise self._error
        return taken

    def close(self) -> None:
        self.closed = True


class Raised:
    """What `raising` caught."""

    error: BaseException | None = None


@contextlib.contextmanager
def raising(kind: type[BackupError]) -> Iterator[Raised]:
    """Hold the block to raising `kind`, with a text for people whose placeholders are filled."""
    raised = Raised()
    try:
        yield raised
    except kind as error:
        raised.error = error
        text = f"{error} {error.hint}"
        if not str(error) or "%(" in text:
            raise AssertionError(f"this is no text for people: {text!r}") from error
    else:
        raise AssertionError(f"{kind.__name__} was not raised")
