"""Reading media files while others write to them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.walk import Entry

SMALL_BYTES = 8 * 1024 * 1024
"""Files up to this size are read once, into memory; larger ones twice, in chunks."""

RECENT_NS = 2_000_000_000
"""The coarsest clock of a file system in use (FAT): a time so close may hide a change."""


class OpenFile(NamedTuple):
    """A regular file that is open for reading, as it was when it was opened."""

    descriptor: int
    size: int
    mtime_ns: int
    mode: int
    recheck: bool


@contextlib.contextmanager
def open_entry(entry: Entry) -> Iterator[OpenFile | None]:
    """Yield the open file of an entry; None where it is no regular file any more."""
    # O_NONBLOCK: opening what has become a pipe meanwhile must not wait for its writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
    descriptor = os.open(entry.name, flags, dir_fd=entry.folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            yield None
            return
        recheck = abs(time.time_ns() - status.st_mtime_ns) < RECENT_NS
        yield OpenFile(descriptor, status.st_size, status.st_mtime_ns, status.st_mode, recheck)
    finally:
        os.close(descriptor)


def read_whole(file: OpenFile) -> tuple[bytes, bool]:
    """Return the content of a small file, and whether it stood still meanwhile."""
    parts = []
    left = file.size
    while left and (data := os.read(file.descriptor, left)):
        parts.append(data)
        left -= len(data)
    after = os.fstat(file.descriptor)
    still = not left and (after.st_size, after.st_mtime_ns) == (file.size, file.mtime_ns)
    return b"".join(parts), still


def read_chunks(file: OpenFile) -> Iterator[bytes]:
    """Yield the first `file.size` bytes of a file, or less where it became shorter."""
    offset = 0
    while data := os.pread(file.descriptor, min(CHUNK, file.size - offset), offset):
        offset += len(data)
        yield data


def hash_of(file: OpenFile) -> str | None:
    """Return the SHA-256 of the first `file.size` bytes, None where there are fewer."""
    digest = hashlib.sha256()
    length = 0
    for chunk in read_chunks(file):
        digest.update(chunk)
        length += len(chunk)
    return digest.hexdigest() if length == file.size else None
