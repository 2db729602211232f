"""The measuring stage: counts and hashes the bytes that pass, and changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from mipyme_backup.process import CHUNK, Reader


class Measured:
    """`upstream` unchanged; `size` and `sha256` speak of the bytes read so far.

    `on_bytes` is told the length of each piece, for progress. Hashing may be left out.
    """

    def __init__(
        self,
        upstream: Reader,
        *,
        hashing: bool = True,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._upstream = upstream
        self._hash = hashlib.sha256() if hashing else None
        self._on_bytes = on_bytes
        self.size = 0

    @property
    def sha256(self) -> str:
        assert self._hash is not None
        return self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        data = self._upstream.read(size)
        self.size += len(data)
        if self._hash is not None:
            self._hash.update(data)
        if self._on_bytes is not None and data:
            self._on_bytes(len(data))
        return data

    def close(self) -> None:
        self._upstream.close()


def drain(reader: Reader) -> None:
    """Read `reader` to its end and close it; what stages measure or check is the purpose."""
    try:
        while reader.read(CHUNK):
            pass
    finally:
        reader.close()
