"""Finished volumes on their way: a file stays until the last destination has taken it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from mipyme_backup.destinations import Destination
from mipyme_backup.errors import DestinationError
from mipyme_backup.removal import remove_tree

VOLUMES = 4
"""As many as may wait for one destination, and the one that is being made."""


@contextlib.contextmanager
def spool_folder(
    work: Path, destinations: Sequence[Destination], volume_size: int
) -> Iterator[Path]:
    """Yield a private folder for finished volumes, which is gone afterwards.

    Where the only destination is a folder on another disk than `work`, with room for some volumes,
    it lies there: so a volume is linked into its place and not copied. With several, a disk that
    fills must not stop the others. What the folder holds is hashed again before it counts.
    """
    folder = _staging(work, destinations[0], volume_size) if len(destinations) == 1 else None
    if folder is None:
        yield work
        return
    try:
        yield folder
    finally:
        _remove(folder)


def _staging(work: Path, destination: Destination, volume_size: int) -> Path | None:
    with contextlib.suppress(DestinationError, OSError):
        free = destination.free_space()
        if free is not None and free > VOLUMES * volume_size:
            folder = destination.make_staging()
            if folder is not None and folder.stat().st_dev != work.stat().st_dev:
                return folder
            if folder is not None:
                _remove(folder)
    return None


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        remove_tree(folder)
        folder.parent.rmdir()


class SharedFile:
    """A file that is removed when as many users as there are have released it."""

    def __init__(self, path: Path, users: int) -> None:
        self.path = path
        self._users = users
        self._lock = threading.Lock()

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self.path.unlink(missing_ok=True)


class Spool:
    """Takes files over into the folder `folder`, under names of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def take(self, file: Path, *, users: int) -> SharedFile:
        """Take `file`, of the same folder, away from its maker, for so many `users`."""
        path = self._folder / f"queued.{next(self._numbers)}"
        file.rename(path)
        return SharedFile(path, users)
