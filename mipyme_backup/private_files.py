"""Folders and files that are nobody else's from their first moment. Imports no Django."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mipyme_backup.process import CHUNK, Reader

UNFINISHED = ".new"
"""What is behind the name of a file that is to take the place of another one."""

Times = tuple[int, int]


def make_folder(folder: Path) -> None:
    """Make `folder` and what lacks above it, each 0700, and sync what names them.

    `Path.mkdir` leaves parents open.
    """
    if not folder.exists():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)


def write_file(
    file: Path | str,
    content: bytes | Reader,
    *,
    dir_fd: int | None = None,
    times: Times | None = None,
) -> None:
    """Make `file`, which must not exist, 0600, and sync it to the disk, not yet its name.

    With `dir_fd`, `file` is a name in that open folder. `times` are those of its last access and
    change, in nanoseconds.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o600, dir_fd=dir_fd)
    with os.fdopen(descriptor, "wb") as output:
        if isinstance(content, bytes):
            output.write(content)
        else:
            while piece := content.read(CHUNK):
                output.write(piece)
        output.flush()
        if times is not None:
            os.utime(output.fileno(), ns=times)
        os.fsync(output.fileno())


def replace_file(
    file: Path | str,
    content: bytes | Reader,
    *,
    dir_fd: int | None = None,
    times: Times | None = None,
) -> None:
    """Put a private file in the place of `file`, if there is one: the one way to change a note.

    After a crash at any moment `file` is the old one whole or the new one whole; once this
    returns it is the new one. The arguments are those of `write_file`. Raises OSError, and then
    the old one is there, and nothing unfinished. Two callers must not replace one file at once.
    """
    new = unfinished(file)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=dir_fd)  # a killed process left it
    try:
        write_file(new, content, dir_fd=dir_fd, times=times)
        os.rename(new, file, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=dir_fd)
        raise
    if dir_fd is None:
        sync_folder(Path(file).parent)
    else:
        os.fsync(dir_fd)


def unfinished(file: Path | str) -> str:
    """Return what the file is called that will take the place of `file`, until it is whole."""
    return f"{os.fspath(file)}{UNFINISHED}"


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
