"""The two directions of the stream: raw → stored, stored → raw.

Encryption comes as a function from reader to reader, so that this room needs to know none.
"""

from __future__ import annotations

from collections.abc import Callable

from mipyme_backup.process import Reader
from mipyme_backup.streams.compress import Compressed, Decompressed

Stage = Callable[[Reader], Reader]


def stored_form(raw: Reader, *, encrypt: Stage | None, workers: int) -> Reader:
    """Return the compressed and, where `encrypt` is given, encrypted form of `raw`."""
    compressed = Compressed(raw, workers=workers)
    return encrypt(compressed) if encrypt else compressed


def raw_form(stored: Reader, *, decrypt: Stage | None, limit: int | None) -> Reader:
    """Return what `stored_form` was made of, at most `limit` bytes (None: unbounded)."""
    return Decompressed(decrypt(stored) if decrypt else stored, limit=limit)
