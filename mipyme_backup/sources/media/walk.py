"""The walk through a media folder: depth first, each folder's names in order of their bytes.

The order is that of the index, so that a run can be compared with the last one while both
stream by. Folders are held by descriptor; whatever is neither a regular file nor a folder is
never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from mipyme_backup.errors import SourceError
from mipyme_backup.sources.media.folders import FOLDER, Folder, held, open_folder
from mipyme_backup.sources.media.left_out import Reason
from mipyme_backup.sources.media.location import located, resolved
from mipyme_backup.sources.media.names import MAX_DEPTH, OWN_PREFIX, sort_key

MAX_LINKS = 5
"""Links to folders that are followed within one another; more would multiply without end."""

LOST_AND_FOUND = b"lost+found"


class Entry(NamedTuple):
    """What the walk met: a folder, a file, or (with a `reason`) what cannot be saved.

    A link that is not followed has its text as `link`, and where it leads as `leads_to`.

    `folder` is the descriptor of the folder in which a file is called `name`; it is good until
    the next entry is asked for.
    """

    path: bytes
    status: os.stat_result | None = None
    folder: int = -1
    name: bytes = b""
    reason: Reason | None = None
    link: bytes | None = None
    leads_to: bytes = b""

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
    def ctime_ns(self) -> int:
        return self._status.st_ctime_ns

    @property
    def inode(self) -> int:
        return self._status.st_ino

    @property
    def ids(self) -> tuple[int, int]:
        """The numbers of user and group."""
        return self._status.st_uid, self._status.st_gid

    @property
    def mode(self) -> int:
        return self._status.st_mode

    @property
    def _status(self) -> os.stat_result:
        assert self.status is not None
        return self.status


class Follow(Enum):
    """Which links a walk takes for what they lead to."""

    NOTHING = "nothing"
    INSIDE = "inside"
    EVERYTHING = "everything"


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


def walk(root: Path, follow: Follow = Follow.INSIDE) -> Iterator[Entry]:
    """Yield the entries of the media folder `root`; nothing where there is no such folder.

    Raises OSError when the folder itself cannot be read, and SourceError where a link on the
    way to it is not to be followed.
    """
    try:
        folder = located(root, SourceError)
    except FileNotFoundError:
        return
    yield from walk_in(folder, follow)


def walk_in(folder: Folder, follow: Follow = Follow.INSIDE) -> Iterator[Entry]:
    """Yield the entries of a folder that is held; it is closed after the last."""
    return _Walk(folder.descriptor, os.fsencode(folder.path), follow).entries()


class _Walk:
    def __init__(self, descriptor: int, root: bytes, follow: Follow) -> None:
        self.follow = follow
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
                yield from self._link(level, path, status)
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

    def _link(self, level: _Level, path: bytes, status: os.stat_result) -> Iterator[Entry]:
        """Yield what a link leads to, as if it were there itself; else the link."""

        def kept(reason: Reason, target: bytes = b"") -> Entry:
            return self._kept(level, path, status, reason, target)

        if self.follow is Follow.NOTHING:
            yield kept(Reason.LINK)
            return
        try:
            target = os.path.realpath(self.inside + path, strict=True)
        except (FileNotFoundError, NotADirectoryError):
            yield kept(Reason.NOWHERE, os.path.realpath(self.inside + path))
            return
        except OSError as error:
            yield kept(Reason.LOOP if error.errno == errno.ELOOP else Reason.LINK)
            return
        parts = target.removeprefix(self.inside).split(b"/")
        outside = not target.startswith(self.inside)
        ours = any(part.startswith(OWN_PREFIX) for part in parts)
        if self.inside.startswith(target.rstrip(b"/") + b"/"):
            yield kept(Reason.LOOP)
        elif ours or (outside and self.follow is Follow.INSIDE):
            yield kept(Reason.LINK, target)
        elif level.links >= MAX_LINKS:
            yield kept(Reason.LOOP)
        else:
            yield from self._followed(level, path, None if outside else parts, kept)

    def _followed(
        self,
        level: _Level,
        path: bytes,
        parts: list[bytes] | None,
        kept: Callable[[Reason], Entry],
    ) -> Iterator[Entry]:
        """Yield what is at `parts` below the root, or where a link to the outside leads to."""
        if parts is None:
            try:
                real = resolved(Path(os.fsdecode(self.inside + path)), SourceError)
            except SourceError:
                yield kept(Reason.UNTRUSTED)
                return
            name = os.fsencode(real.name)
            folder = held(real.parent).descriptor
        else:
            # Opened anew below the root: a link that is put in the way meanwhile is not followed.
            name = parts[-1]
            folder = open_folder(self.levels[0].descriptor, parts[:-1])
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            found = self._visit(path, folder, name, status, level.links + 1)
            as_link = found.reason in (Reason.LOOP, Reason.SPECIAL, Reason.TOO_DEEP)
            yield kept(found.reason) if found.reason and as_link else found
        finally:
            os.close(folder)

    def _kept(
        self, level: _Level, path: bytes, status: os.stat_result, reason: Reason, target: bytes
    ) -> Entry:
        """Return the entry of a link that is not followed; `target` is where it leads, if known."""
        link: bytes | None = os.readlink(path.rpartition(b"/")[2], dir_fd=level.descriptor)
        if level.links and link is not None and not link.startswith(b"/"):
            # Its folder comes back elsewhere too, and from there its text leads elsewhere.
            link = target or None
        return Entry(path, status, reason=reason, link=link, leads_to=target)


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
