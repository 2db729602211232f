"""Finished volumes on their way: a file stays until the last destination has taken it."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from mipyme_backup.destinations import Destination


@contextlib.contextmanager
def spool_folder(work: Path, destinations: Iterable[Destination]) -> Iterator[Path]:
    """Yield a private folder for finished volumes, which is gone afterwards.

    Where a destination is a folder on another disk than `work`, it lies there: so a volume is
    linked into its place and not copied. What it holds is hashed again before it counts.
    """
    device = work.stat().st_dev
    for destination in destinations:
        folder = destination.make_staging()
        if folder is None:
            continue
        try:
            if folder.stat().st_dev != device:
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
    yield work


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
