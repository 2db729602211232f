"""Folders by descriptor: no step follows a link, so nothing can lead out of the first one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mipyme_backup.removal import FOLDER, remove_tree

__all__ = ["FOLDER", "open_folder", "opened", "remove_tree", "sync_folder"]


def open_folder(root: int, parts: Sequence[bytes], *, create: bool = False) -> int:
    """Return a new descriptor of the folder `parts` below the descriptor `root`.

    With `create`, folders that are missing are made, for the owner only. Raises OSError; a
    link anywhere on the way is ELOOP or ENOTDIR.
    """
    current = os.dup(root)
    try:
        for part in parts:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
            below = os.open(part, FOLDER, dir_fd=current)
            os.close(current)
            current = below
    except BaseException:
        os.close(current)
        raise
    return current


@contextlib.contextmanager
def opened(path: Path, *, follow: bool = True) -> Iterator[int]:
    """Yield a descriptor of the folder at `path`, which with `follow` may be a link itself."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY if follow else FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make what was created, renamed or removed in the folder last."""
    with opened(path) as descriptor:
        os.fsync(descriptor)
