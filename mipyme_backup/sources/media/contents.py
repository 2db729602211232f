"""Reading media files of a folder while others write to them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.walk import Entry, Follow, walk

NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
SMALL_BYTES = 8 * 1024 * 1024

RECENT_NS = 2_000_000_000
"""The coarsest clock of a file system in use (FAT): a time so close may hide a change."""


class FolderTree:
    """The media in the folder `root`, of which there is none where it is None."""

    small_bytes = SMALL_BYTES

    def __init__(self, root: Path | None, *, follow_links: bool = False) -> None:
        self._root = root
        self._follow = Follow.EVERYTHING if follow_links else Follow.INSIDE

    def entries(self) -> Iterator[Entry]:
        return walk(self._root, self._follow) if self._root is not None else iter(())

    def top(self) -> tuple[int, tuple[int, int]] | None:
        try:
            status = None if self._root is None else os.stat(self._root)
        except OSError:
            return None
        return None if status is None else (status.st_mode, (status.st_uid, status.st_gid))

    def may_exist(self, path: bytes) -> bool:
        if self._root is None or path.startswith((b"../", b"/")):
            return False
        try:
            os.stat(os.path.join(os.fsencode(self._root), path))
        except OSError as error:
            return error.errno not in NOT_THERE
        return True

    @contextlib.contextmanager
    def opened(self, entry: Entry) -> Iterator[OpenFile | None]:
        # O_NONBLOCK: opening what has become a pipe meanwhile must not wait for its writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
        descriptor = os.open(entry.name, flags, dir_fd=entry.folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                yield None
                return
            recheck = abs(time.time_ns() - status.st_mtime_ns) < RECENT_NS
            yield OpenFile(
                descriptor,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
                status.st_mode,
                recheck,
            )
        finally:
            os.close(descriptor)


class OpenFile(NamedTuple):
    """A regular file that is open for reading, as it was when it was opened."""

    descriptor: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int
    recheck: bool

    def read_whole(self) -> tuple[bytes, bool]:
        parts = []
        left = self.size
        while left and (data := os.read(self.descriptor, left)):
            parts.append(data)
            left -= len(data)
        after = os.fstat(self.descriptor)
        times = (after.st_mtime_ns, after.st_ctime_ns)
        still = not left and (after.st_size, *times) == (self.size, self.mtime_ns, self.ctime_ns)
        return b"".join(parts), still

    def chunks(self) -> Iterator[bytes]:
        offset = 0
        while data := os.pread(self.descriptor, min(CHUNK, self.size - offset), offset):
            offset += len(data)
            yield data

    def sha256(self) -> str | None:
        digest = hashlib.sha256()
        length = 0
        for chunk in self.chunks():
            digest.update(chunk)
            length += len(chunk)
        return digest.hexdigest() if length == self.size else None
