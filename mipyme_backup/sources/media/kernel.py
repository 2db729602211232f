"""What Python does not offer of the kernel; each says by its result where there is no such call."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from pathlib import Path

RENAME_NOREPLACE = 1  # linux/fs.h
RENAME_EXCHANGE = 2
FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
MOUNTS = Path("/proc/self/mountinfo")


def exchange(folder: int, one: str, other: str) -> bool:
    """Let two names in a folder change places in one atomic step; False where that cannot be."""
    return _rename(folder, one, folder, other, RENAME_EXCHANGE)


def rename_new(source: int, target: int, name: str) -> None:
    """Move `name` from one folder to another; FileExistsError where it is taken there."""
    if not _rename(source, name, target, name, RENAME_NOREPLACE):
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=target, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _rename(source: int, name: str, target: int, new: str, flags: int) -> bool:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(source, os.fsencode(name), target, os.fsencode(new), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), name, None, new)


def clone(source: int, target: int) -> bool:
    """Let the file `target` share the blocks of `source` until either is written to."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def sync_file_system(folder: int) -> None:
    """Make all that was written to the file system of `folder` last; raises what failed."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        os.sync()
    elif call(folder) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount_points() -> frozenset[bytes]:
    """Return the paths on which something is mounted, also parts of the same file system."""
    try:
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:
        return frozenset()
    return frozenset(_unescaped(line.split(b" ")[4]) for line in lines)


def mounts_below(folder: Path) -> list[bytes]:
    """Return the paths, at any depth below `folder` (no links), on which something is mounted."""
    top = os.fsencode(folder).rstrip(b"/") + b"/"
    return sorted(path for path in mount_points() if path.startswith(top))


def _unescaped(field: bytes) -> bytes:
    """Undo the octal escapes (blank, tab, newline, backslash) of a mountinfo field."""
    first, *others = field.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in others)
