"""Cutting a stored stream into volumes, and putting volumes together again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
    for the next. An empty stream makes one empty volume.
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


def _write_one(
    reader: Reader, data: bytes, file: Path, volume_size: int
) -> tuple[int, str, bytes]:
    """Fill one volume beginning with `data`; return its size, its hash and what is left over."""
    digest = hashlib.sha256()
    size = 0
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        while data and size < volume_size:
            piece, data = data[: volume_size - size], data[volume_size - size :]
            output.write(piece)
            digest.update(piece)
            size += len(piece)
            data = data or reader.read(CHUNK)
        output.flush()
        os.fsync(output.fileno())
    return size, digest.hexdigest(), data


class Joined:
    """The volumes that `openers` open, one after the other, as one stream."""

    def __init__(self, openers: Iterable[Callable[[], Reader]]) -> None:
        self._openers = iter(openers)
        self._current: Reader | None = None

    def read(self, size: int, /) -> bytes:
        while True:
            if self._current is None:
                opener = next(self._openers, None)
                if opener is None:
                    return b""
                self._current = opener()
            if data := self._current.read(size):
                return data
            self._current.close()
            self._current = None

    def close(self) -> None:
        self._openers = iter(())
        if self._current is not None:
            self._current.close()
            self._current = None
