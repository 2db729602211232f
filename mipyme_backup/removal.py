"""Removing folders that this product made, and nothing else. Imports no Django.

Every step goes by the descriptor of a folder: no link is followed, so nothing that other users
put in the way leads out of the folder. What is mounted below it stays, also a part of the same
file system (a bind mount). The depth of the tree costs no descriptors and no stack.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mipyme_backup.messages import _

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
BY_NAME = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
NO_FOLDER = (errno.ENOTDIR, errno.ELOOP)

AT_EMPTY_PATH = 0x1000  # fcntl.h
STATX_MNT_ID = 0x1000  # linux/stat.h
STATX_BYTES = 256
MASK_OFFSET, MNT_ID_OFFSET = 0, 0x90  # of `struct statx`


class Place(NamedTuple):
    """The device and the mount that a folder is on; `mount` is None where the kernel hides it."""

    device: int
    mount: int | None


def place_of(descriptor: int) -> Place:
    """Return where an open file or folder is; two folders of one tree differ across a mount."""
    return Place(os.fstat(descriptor).st_dev, _mount_of(descriptor))


def remove_tree(path: Path) -> None:
    """Remove the folder `path` with all that it holds; do nothing where there is none.

    Folders of ours that may not be entered are opened first. Raises OSError for the first thing
    that stays, after everything else was removed; NotADirectoryError where `path` is no folder.
    """
    try:
        parent = os.open(path.parent, BY_NAME)
    except FileNotFoundError:
        return
    try:
        remove_in(parent, path.name, path.parent)
    finally:
        os.close(parent)


def remove_in(parent: int, name: str, path: Path) -> None:
    """Do what `remove_tree` does with the folder called `name` in the open folder `parent`.

    `path` is what errors call the parent.
    """
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path / name))
    _Removal(parent, path).run([name])


@dataclass
class _Level:
    """A folder on the way down: which one it is, what is to go, and what is going now."""

    identity: tuple[int, int]
    names: list[str]
    name: str = ""


class _Removal:
    """Removes names in the open folder `top`; stands in one folder at a time."""

    def __init__(self, top: int, path: Path) -> None:
        self._top = self._current = top
        self._path = path
        self._place = place_of(top)
        self._levels: list[_Level] = []
        self._first_error: OSError | None = None

    def run(self, names: list[str]) -> None:
        self._levels.append(_Level(_identity(self._top), names))
        try:
            while self._levels:
                level = self._levels[-1]
                if level.names:
                    level.name = level.names.pop()
                    self._enter(level.name)
                else:
                    self._leave()
        finally:
            self._stand_in(self._top)
        if self._first_error is not None:
            raise self._first_error

    def _enter(self, name: str) -> None:
        """Step into the folder `name` and remove the files there; a file is removed instead."""
        try:
            below = self._opened(name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in NO_FOLDER:
                self._unlink(self._current, name)
            else:
                self._stays(error, name)
            return
        self._levels.append(_Level(_identity(below), []))
        self._stand_in(below)
        try:
            self._levels[-1].names = self._remove_files(below)
        except OSError as error:
            self._stays(error, name)

    def _leave(self) -> None:
        """Step back up, and remove the folder that is empty now."""
        self._levels.pop()
        if not self._levels:
            return
        level = self._levels[-1]
        if len(self._levels) == 1:
            above = self._top
        else:
            above = os.open("..", BY_NAME, dir_fd=self._current)
            if _identity(above) != level.identity:
                os.close(above)
                raise self._error(errno.ESTALE, _("it was moved while it was removed"), level.name)
        self._stand_in(above)
        try:
            os.rmdir(level.name, dir_fd=above)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._stays(error, level.name)

    def _remove_files(self, folder: int) -> list[str]:
        """Remove what is no folder; return the names of the folders."""
        while True:
            folders = []
            removed = False
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    else:
                        removed = self._unlink(folder, entry.name) or removed
            if not removed:  # some file systems pass over a name when another one goes
                return folders

    def _unlink(self, folder: int, name: str) -> bool:
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._stays(error, name)
            return False
        return True

    def _opened(self, name: str) -> int:
        """Return a descriptor of the folder `name`, in which names may be removed."""
        try:
            folder = os.open(name, FOLDER, dir_fd=self._current)
        except PermissionError:
            # One that its owner may not read: opened up as what was found, not by its name.
            found = os.open(name, BY_NAME | os.O_NOFOLLOW, dir_fd=self._current)
            try:
                self._require_here(found)
                os.chmod(f"/proc/self/fd/{found}", 0o700)
            finally:
                os.close(found)
            folder = os.open(name, FOLDER, dir_fd=self._current)
        try:
            self._require_here(folder)
            if os.fstat(folder).st_mode & 0o300 != 0o300:
                with contextlib.suppress(OSError):
                    os.fchmod(folder, 0o700)
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _require_here(self, descriptor: int) -> None:
        if place_of(descriptor) != self._place:
            raise OSError(errno.EBUSY, _("something is mounted here, and stays as it is"))

    def _stand_in(self, folder: int) -> None:
        if self._current not in (self._top, folder):
            os.close(self._current)
        self._current = folder

    def _stays(self, error: OSError, name: str) -> None:
        if self._first_error is None:
            self._first_error = self._error(error.errno or errno.EIO, error.strerror, name)

    def _error(self, number: int, text: str | None, name: str) -> OSError:
        above = [level.name for level in self._levels[:-1]]
        path = self._path.joinpath(*above, name)
        return OSError(number, text or os.strerror(number), os.fspath(path))


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _mount_of(descriptor: int) -> int | None:
    """Return the id of the mount that a descriptor was opened on, None where it is not known."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if call is not None:
        buffer = ctypes.create_string_buffer(STATX_BYTES)
        done = call(descriptor, b"", AT_EMPTY_PATH, STATX_MNT_ID, buffer) == 0
        if done and struct.unpack_from("=I", buffer, MASK_OFFSET)[0] & STATX_MNT_ID:
            return int(struct.unpack_from("=Q", buffer, MNT_ID_OFFSET)[0])
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{descriptor}") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return None
