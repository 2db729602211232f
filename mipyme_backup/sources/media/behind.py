"""Counting what lies behind links that are not followed: so that a person knows what is missing.

Nothing is opened but folders, and no link on the way is followed. A link may lead to a disk of any
size, so the counting ends after some entries, or some seconds.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from mipyme_backup.messages import Message, _

LIMIT = 100_000
"""Files and folders that are looked at in one run."""
SECONDS = 10.0


class Behind:
    """The files and bytes behind the links of one run; `more` where not all could be counted."""

    def __init__(self, limit: int | None = None, seconds: float = SECONDS) -> None:
        self.files = self.bytes = 0
        self.more = False
        self._left = LIMIT if limit is None else limit
        self._seconds = seconds
        self._seen: set[int] = set()

    def add(self, path: bytes) -> None:
        """Count what is at `path`, a folder or a file; each folder once."""
        if self.more:
            return
        started = time.monotonic()
        for size in self._sizes(path):
            if self._left <= 0 or time.monotonic() - started >= self._seconds:
                self.more = True
                break
            self._left -= 1
            if size is not None:
                self.files += 1
                self.bytes += size
        self._seconds -= time.monotonic() - started

    def messages(self) -> list[Message]:
        """Return what to say of it, if there is anything."""
        if not self.files and not self.more:
            return []
        text = _(
            "%(files)d files of %(bytes)d bytes lie behind links that lead out of the media"
            " folder, and are not in the backup"
        )
        if self.more:
            text = _(
                "More than %(files)d files of %(bytes)d bytes lie behind links that lead out of"
                " the media folder, and are not in the backup"
            )
        return [Message(text, {"files": self.files, "bytes": self.bytes})]

    def _sizes(self, path: bytes) -> Iterator[int | None]:
        """Yield the size of each file, and None for each folder and whatever else there is."""
        folders = [path]
        while folders:
            folder = folders.pop()
            try:
                status = os.lstat(folder)
                identity = status.st_dev << 64 | status.st_ino
                if identity in self._seen:
                    continue
                self._seen.add(identity)
                if not stat.S_ISDIR(status.st_mode):
                    yield status.st_size if stat.S_ISREG(status.st_mode) else None
                    continue
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                            yield None
                        elif entry.is_file(follow_symlinks=False):
                            yield entry.stat(follow_symlinks=False).st_size
                        else:
                            yield None
            except OSError:
                yield None
