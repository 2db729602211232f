"""The walk through a media folder: depth first, each folder's names in order of their bytes.

The order is that of the index, so that a run can be compared with the last one while both
stream by. Folders are held by descriptor; whatever is neither a regular file nor a folder is
never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mipyme_backup.errors import SourceError
from mipyme_backup.sources.media.folders import FOLDER, Folder, open_folder
from mipyme_backup.sources.media.left_out import Reason
from mipyme_backup.sources.media.location import located
from mipyme_backup.sources.media.names import MAX_DEPTH, OWN_PREFIX, sort_key

MAX_LINKS = 5
"""Links to folders that are followed within one another; more would multiply without end."""

LOST_AND_FOUND = b"lost+found"


class Entry(NamedTuple):
    """What the walk met: a folder, a file, or (with a `reason`) what cannot be saved.

    `folder` is the descriptor of the folder in which a file is called `name`; it is good until
    the next entry is asked for.
    """

    path: bytes
    status: os.stat_result | None = None
    folder: int = -1
    name: bytes = b""
    reason: Reason | None = None

    @property
    def key(self) -> bytes:
        return sort_key(self.path)

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder, be it one that cannot be read."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    @property
    def size(self) -> int:
        return self._status.st_size

    @property
    def mtime_ns(self) -> int:
        return self._status.st_mtime_ns

    @property
    def mode(self) -> int:
        return self._status.st_mode

    @property
    def _status(self) -> os.stat_result:
        assert self.status is not None
        return self.status


@dataclass
class _Level:
    """A folder that the walk is in: what is left of its names, and what it is."""

    prefix: bytes
    descriptor: int
    names: Iterator[bytes]
    status: os.stat_result
    links: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.status.st_dev, self.status.st_ino


def is_lost_and_found(name: bytes, status: os.stat_result) -> bool:
    """Return whether this top entry of a volume belongs to its file system, not to the media."""
    return name == LOST_AND_FOUND and stat.S_ISDIR(status.st_mode) and status.st_uid == 0


def walk(root: Path) -> Iterator[Entry]:
    """Yield the entries of the media folder `root`; nothing where there is no such folder.

    Raises OSError when the folder itself cannot be read, and SourceError where a link on the
    way to it is not to be followed.
    """
    try:
        folder = located(root, SourceError)
    except FileNotFoundError:
        return
    yield from walk_in(folder)


def walk_in(folder: Folder) -> Iterator[Entry]:
    """Yield the entries of a folder that is held; it is closed after the last."""
    return _Walk(folder.descriptor, os.fsencode(folder.path)).entries()


class _Walk:
    def __init__(self, descriptor: int, root: bytes) -> None:
        self.inside = root.rstrip(b"/") + b"/"
        self.root = descriptor
        self.levels: list[_Level] = []

    def entries(self) -> Iterator[Entry]:
        try:
            self.levels.append(_level(self.root, prefix=b"", links=0))
            while self.levels:
                level = self.levels[-1]
                name = next(level.names, None)
                if name is None:
                    os.close(self.levels.pop().descriptor)
                elif not self._is_ours(level, name):
                    yield from self._entry(level, name)
        finally:
            for level in self.levels:
                os.close(level.descriptor)

    def _is_ours(self, level: _Level, name: bytes) -> bool:
        if name.startswith(OWN_PREFIX):
            return True
        if level.prefix or name != LOST_AND_FOUND:
            return False
        try:
            status = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
        except OSError:
            return False
        return is_lost_and_found(name, status)

    def _entry(self, level: _Level, name: bytes) -> Iterator[Entry]:
        path = level.prefix + name
        status = None
        try:
            status = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                yield from self._link(level, path)
            else:
                yield self._visit(path, level.descriptor, name, status, level.links)
        except FileNotFoundError:
            yield Entry(path, reason=Reason.VANISHED)
        except OSError:
            yield Entry(path, status, reason=Reason.UNREADABLE)

    def _visit(
        self, path: bytes, folder: int, name: bytes, status: os.stat_result, links: int
    ) -> Entry:
        """Return the entry of what is no link; a folder becomes the next level of the walk."""
        if stat.S_ISREG(status.st_mode):
            return Entry(path, status, folder, name)
        if not stat.S_ISDIR(status.st_mode):
            return Entry(path, reason=Reason.SPECIAL)
        if len(self.levels) >= MAX_DEPTH:
            return Entry(path, reason=Reason.TOO_DEEP)
        try:
            below = _level(os.open(name, FOLDER, dir_fd=folder), prefix=path + b"/", links=links)
        except FileNotFoundError:
            raise
        except OSError:
            return Entry(path, status, reason=Reason.UNREADABLE_FOLDER)
        if links and any(below.identity == level.identity for level in self.levels):
            os.close(below.descriptor)
            return Entry(path, reason=Reason.LOOP)
        self.levels.append(below)
        return Entry(path, below.status)

    def _link(self, level: _Level, path: bytes) -> Iterator[Entry]:
        """Yield what a link inside the media folder leads to, as if it were there itself."""
        try:
            target = os.path.realpath(self.inside + path, strict=True)
        except OSError as error:
            yield Entry(path, reason=Reason.LOOP if error.errno == errno.ELOOP else Reason.LINK)
            return
        parts = target.removeprefix(self.inside).split(b"/")
        if not target.startswith(self.inside) or any(p.startswith(OWN_PREFIX) for p in parts):
            above = self.inside.startswith(target.rstrip(b"/") + b"/")
            yield Entry(path, reason=Reason.LOOP if above else Reason.LINK)
            return
        if level.links >= MAX_LINKS:
            yield Entry(path, reason=Reason.LOOP)
            return
        # Opened anew below the root: a link that is put in the way meanwhile is not followed.
        folder = open_folder(self.levels[0].descriptor, parts[:-1])
        try:
            status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            yield self._visit(path, folder, parts[-1], status, level.links + 1)
        finally:
            os.close(folder)


def _level(descriptor: int, *, prefix: bytes, links: int) -> _Level:
    """Return the level of an open folder; closes the descriptor where it cannot be read."""
    try:
        # One block of bytes: a list of a million names would take three times the memory.
        names = b"/".join(sorted(map(os.fsencode, os.listdir(descriptor))))
        os.stat(".", dir_fd=descriptor)  # a folder that may be listed, and not entered
        return _Level(prefix, descriptor, _split(names), os.fstat(descriptor), links)
    except BaseException:
        os.close(descriptor)
        raise


def _split(names: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(names):
        end = names.find(b"/", start)
        end = len(names) if end < 0 else end
        yield names[start:end]
        start = end + 1
