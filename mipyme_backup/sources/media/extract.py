"""Writing restored files below one open folder, and nowhere else."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from mipyme_backup.process import CHUNK, Reader
from mipyme_backup.sources.media.folders import open_folder
from mipyme_backup.sources.media.kernel import clone
from mipyme_backup.sources.media.owners import Ownership
from mipyme_backup.sources.media.unpack import PackedContent, read_pack
from mipyme_backup.sources.media.wanted import Wanted, WantedFile, contradiction

HOLE = bytes(4096)
NO_BYTES = bytes(CHUNK)
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
CONTRADICTIONS = (errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)
"""How the file system answers when a name is to be two things at once, or a link is in the way."""


class Extraction:
    """Writes the wanted files below the descriptor `root`; `ownership` gives them away."""

    def __init__(self, wanted: Wanted, root: int, ownership: Ownership) -> None:
        self.wanted = wanted
        self.mismatched: set[bytes] = set()
        self._root = root
        self.ownership = ownership
        self._parent: tuple[bytes, int] | None = None

    def __enter__(self) -> Extraction:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def make_folders(self) -> None:
        for folder in self.wanted.folders():
            self._folder(folder.path)

    def reuse(self, live: int) -> None:
        """Clone the files that the folder `live` already holds, where its file system can."""
        for file in self.wanted.files():
            source = _open_same(live, file)
            if source is None:
                continue
            try:
                if not self._reuse_one(source, file):
                    return
            finally:
                os.close(source)

    def _reuse_one(self, source: int, file: WantedFile) -> bool:
        """Write `file` as a clone if its content is right; False where cloning does not work."""
        with self._created(file) as target:
            if not clone(source, target):
                self._remove(file)
                return False
            # Only the clone is hashed, for no other process writes to it; the live file may have
            # grown since its size was seen.
            if os.fstat(target).st_size != file.size or _digest(target) != file.sha256:
                self._remove(file)
                return True
            self._settle(target, file)
            self.wanted.written(file)
        return True

    def unpack(self, reader: Reader) -> None:
        """Write the wanted files out of one pack."""
        for content in read_pack(reader):
            files = self.wanted.with_content(content.sha256)
            first = next(files, None)
            if first is not None:
                self.wanted.require_size(content.sha256, content.size)
                self._write(content, first, files)

    def _write(
        self, content: PackedContent, first: WantedFile, others: Iterator[WantedFile]
    ) -> None:
        """Write one content to every file that wants it."""
        digest: Any = hashlib.sha256()
        with self._created(first) as source:
            write_sparsely(source, _hashed(content.chunks(), digest))
            if digest.digest() != content.sha256:
                # It may have changed while it was packed; then a good one follows.
                self._remove(first)
                self.mismatched.add(content.sha256)
                return
            self._settle(source, first)
            self.wanted.written(first)
            for other in others:
                with self._created(other) as target:
                    if not clone(source, target):
                        write_sparsely(target, _chunks(source))
                    self._settle(target, other)
                    self.wanted.written(other)

    def make_links(self) -> None:
        """Make the links, once nothing is to be written below their folders any more."""
        for link in self.wanted.links():
            folder, _slash, name = link.path.rpartition(b"/")
            below = self._folder(folder)
            try:
                os.symlink(link.link, name, dir_fd=below)
            except OSError as error:
                if error.errno in CONTRADICTIONS:
                    raise contradiction(link.path) from error
                raise
            self.ownership.settle_link(below, name, link.path, link.owner)
            os.utime(name, ns=(link.mtime_ns, link.mtime_ns), dir_fd=below, follow_symlinks=False)

    def finish(self) -> None:
        """Give the folders their modes, once nothing is to be written into them any more."""
        for folder in self.wanted.folders(deepest_first=True):
            below = self._folder(folder.path)
            self.ownership.settle_folder(below, folder.path, folder.owner, folder.mode)

    @contextlib.contextmanager
    def _created(self, file: WantedFile) -> Iterator[int]:
        folder, _slash, name = file.path.rpartition(b"/")
        try:
            descriptor = os.open(name, NEW_FILE, 0o600, dir_fd=self._folder(folder))
        except OSError as error:
            if error.errno in CONTRADICTIONS:
                raise contradiction(file.path) from error
            raise
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove(self, file: WantedFile) -> None:
        folder, _slash, name = file.path.rpartition(b"/")
        os.unlink(name, dir_fd=self._folder(folder))

    def _settle(self, descriptor: int, file: WantedFile) -> None:
        self.ownership.settle_file(descriptor, file.path, file.owner, file.mode)
        os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))

    def _folder(self, path: bytes) -> int:
        """Return a descriptor of a folder, made where it is missing; good until the next call."""
        if self._parent is None or self._parent[0] != path:
            try:
                parts = path.split(b"/") if path else []
                below = open_folder(self._root, parts, mode=0o700, create=True)
            except OSError as error:
                if error.errno in CONTRADICTIONS:
                    raise contradiction(path) from error
                raise
            if self._parent is not None:
                os.close(self._parent[1])
            self._parent = path, below
        return self._parent[1]


def _open_same(live: int, file: WantedFile) -> int | None:
    """Return a descriptor of the live file if its size and time are those wanted, else None."""
    *parents, name = file.path.split(b"/")
    try:
        folder = open_folder(live, parents)
    except OSError:
        return None
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        same = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
        if not same or not file.size or not stat.S_ISREG(status.st_mode):
            return None
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)


def write_sparsely(descriptor: int, chunks: Iterable[bytes]) -> None:
    """Write the chunks to an empty file; blocks of zeros become holes."""
    offset = 0
    for chunk in chunks:
        if HOLE not in chunk:
            _write_all(descriptor, chunk, offset)
        elif chunk != NO_BYTES:
            for start in range(0, len(chunk), len(HOLE)):
                block = chunk[start : start + len(HOLE)]
                if block != HOLE:
                    _write_all(descriptor, block, offset + start)
        offset += len(chunk)
    os.ftruncate(descriptor, offset)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def _chunks(descriptor: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(descriptor, CHUNK, offset):
        offset += len(chunk)
        yield chunk


def _hashed(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _digest(descriptor: int) -> bytes:
    digest = hashlib.sha256()
    for chunk in _chunks(descriptor):
        digest.update(chunk)
    return digest.digest()
