"""Where a folder lies: links on the way to it are followed, but not those of just any user.

A user who may write to a folder on the way can put a link there. Run as root, a backup would
read through it what that user may not, and a restore would replace it. So root follows a link
only if it belongs to root, to the owner of what it leads to, or to the owner of the project's
settings, whose code root runs already. Other users may go no further than their own rights lead
them, and follow every link.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from mipyme_backup.errors import BackupError
from mipyme_backup.messages import _
from mipyme_backup.removal import BY_NAME
from mipyme_backup.sources.media.folders import Folder, held

MAX_LINKS = 40  # as in the kernel: see path_resolution(7)
ITSELF = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW


@dataclass(frozen=True)
class _EndOfLink:
    """Stands in the way behind the target of a link that belongs to the user `owner`."""

    path: Path
    owner: int


def resolved(path: Path, failure: type[BackupError]) -> Path:
    """Return `path` without links; the end of it may not exist yet.

    Raises `failure` for a link that is not to be followed, and for what cannot be reached.
    """
    if not hasattr(os, "O_PATH"):
        return Path(os.path.realpath(path))
    try:
        return _Way(failure).resolved(Path(os.path.abspath(path)))
    except OSError as error:
        raise failure(
            _("The folder %(folder)s cannot be reached: %(reason)s"),
            hint=_("Check the folders and links on the way to it."),
            folder=str(path),
            reason=error.strerror,
        ) from error


def located(path: Path, failure: type[BackupError]) -> Folder:
    """Return the folder at `path`, held; raises what `resolved` does, and OSError."""
    return held(resolved(path, failure))


class _Way:
    """Goes along a path with one folder held; `real` is what it is called without links."""

    def __init__(self, failure: type[BackupError]) -> None:
        self._failure = failure
        self._links = 0

    def resolved(self, path: Path) -> Path:
        self._real = Path(path.anchor)
        self._folder = os.open(self._real, BY_NAME)
        try:
            self._left: list[str | _EndOfLink] = [*reversed(path.parts[1:])]
            while self._left:
                part = self._left.pop()
                if isinstance(part, _EndOfLink):
                    self._require_trusted(part, os.fstat(self._folder))
                else:
                    self._step(part)
        finally:
            os.close(self._folder)
        return self._real

    def _step(self, part: str) -> None:
        try:
            found = os.open(part, ITSELF, dir_fd=self._folder)
        except FileNotFoundError:
            self._end(part, os.fstat(self._folder))
            return
        status = os.fstat(found)
        if stat.S_ISDIR(status.st_mode):
            self._real = self._real.parent if part == ".." else self._real / part
            self._stand_in(found)
            return
        try:
            if stat.S_ISLNK(status.st_mode):
                self._turn(
                    os.readlink("", dir_fd=found), _EndOfLink(self._real / part, status.st_uid)
                )
            else:
                self._end(part, status)
        finally:
            os.close(found)

    def _turn(self, target: str, end: _EndOfLink) -> None:
        """Go on where a link leads."""
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(end.path))
        self._left.append(end)
        self._left += reversed([part for part in target.split("/") if part not in ("", ".")])
        if target.startswith("/"):
            self._real = Path("/")
            self._stand_in(os.open("/", BY_NAME))

    def _end(self, part: str, status: os.stat_result) -> None:
        """Take the rest as it is: there is no folder any more in which a link could be."""
        self._real /= part
        for other in reversed(self._left):
            if isinstance(other, _EndOfLink):
                self._require_trusted(other, status)
            else:
                self._real = self._real.parent if other == ".." else self._real / other
        self._left = []

    def _stand_in(self, folder: int) -> None:
        os.close(self._folder)
        self._folder = folder

    def _require_trusted(self, link: _EndOfLink, status: os.stat_result) -> None:
        if os.geteuid() != 0 or link.owner in (0, status.st_uid, _owner_of_settings()):
            return
        raise self._failure(
            _(
                "%(link)s is a link of the user with the id %(owner)d, and leads to"
                " %(folder)s, which belongs to another user: root does not follow it"
            ),
            hint=_(
                "If the link is right, give it to root: chown -h root %(link)s. Otherwise"
                " delete it, and check which users may write to its folder."
            ),
            link=str(link.path),
            owner=link.owner,
            folder=str(self._real),
        )


def _owner_of_settings() -> int | None:
    """Return the id of the user whose settings this process runs, None where there are none."""
    module = sys.modules.get(os.environ.get("DJANGO_SETTINGS_MODULE", ""))
    file = getattr(module, "__file__", None)
    try:
        return None if file is None else os.stat(file).st_uid
    except OSError:
        return None
