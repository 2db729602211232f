"""Cutting a stored stream into volumes, and putting volumes together again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mipyme_backup.errors import PreflightError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader


@dataclass(frozen=True, kw_only=True)
class SpooledVolume:
    """A finished, synced volume in the spool: `size` in bytes, `sha256` of its content."""

    index: int
    file: Path
    size: int
    sha256: str


def volume_name(stem: str, index: int) -> str:
    """Return the stored name of volume `index` of the artifact `stem`."""
    return f"{stem}.{index:05d}"


def cut(reader: Reader, *, spool: Path, volume_size: int) -> Iterator[SpooledVolume]:
    """Write `reader` to files of at most `volume_size` bytes in the folder `spool`.

    Each file is private (0600), synced when it is yielded, and removed once the caller asks
    for the next. An empty stream makes one empty volume. Raises PreflightError when the spool
    cannot be written to.
    """
    index = 0
    data = reader.read(CHUNK)
    while data or index == 0:
        file = spool / volume_name("volume", index)
        try:
            size, sha256, data = _write_one(reader, data, file, volume_size)
            yield SpooledVolume(index=index, file=file, size=size, sha256=sha256)
        finally:
            file.unlink(missing_ok=True)
        index += 1


def _write_one(reader: Reader, data: bytes, file: Path, volume_size: int) -> tuple[int, str, bytes]:
    """Fill one volume beginning with `data`; return its size, its hash and what is left over."""
    digest = hashlib.sha256()
    size = 0
    with _writing(file):
        # What a killed run left there may be linked into a destination: never written over.
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while data and size < volume_size:
            piece, data = data[: volume_size - size], data[volume_size - size :]
            with _writing(file):
                _write_whole(descriptor, piece)
            digest.update(piece)
            size += len(piece)
            data = data or reader.read(CHUNK)
        with _writing(file):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size, digest.hexdigest(), data


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Tell a failure of the spool from one of the stream that is read in between."""
    try:
        yield
    except OSError as error:
        raise PreflightError(
            _("The spool %(file)s cannot be written: %(reason)s"),
            hint=_("Free some space there, or set STATE_DIR to a place that has it."),
            file=file,
            reason=error.strerror or error,
        ) from error


class Joined:
    """The volumes that `openers` open, one after the other, as one stream."""

    def __init__(self, openers: Iterable[Callable[[], Reader]]) -> None:
        self._openers = iter(openers)
        self._next: Callable[[], Reader] | None = None
        self._current: Reader | None = None

    def read(self, size: int, /) -> bytes:
        while True:
            if self._current is None:
                self._next = self._next or next(self._openers, None)
                if self._next is None:
                    return b""
                self._current = self._next()  # where this raises, it stays the next
                self._next = None
            if data := self._current.read(size):
                return data
            self._current.close()
            self._current = None

    def close(self) -> None:
        self._openers, self._next = iter(()), None
        if self._current is not None:
            self._current.close()
            self._current = None
