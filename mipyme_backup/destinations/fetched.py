"""An object that had to be fetched whole before it can be read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import _


class Fetched:
    """A reader of a fetched file, whose name may be removed as soon as this is made.

    The bytes go from the disk when it is closed, or when the process ends, however it ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def of(cls, path: Path) -> Fetched | None:
        """Return a reader of `path`, None where there is no regular file; raises OSError."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return cls(descriptor)
        os.close(descriptor)
        return None

    def read(self, size: int, /) -> bytes:
        assert self._descriptor is not None
        try:
            return os.read(self._descriptor, size)
        except OSError as error:
            raise DestinationError(
                _("A fetched object cannot be read: %(reason)s"),
                hint=_("Look at the disk of this machine."),
                reason=error.strerror or error,
            ) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
