"""Putting a restored media folder in the place of the live one, and back.

Nothing but the file system says how far a swap has come, so that after a kill at any point
the same call finishes it. Three folders take part: the live one, the *side* that was
restored, and *before*, what was replaced. A small file in it marks the restored one, wherever
it is.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from abc import ABC, abstractmethod
from pathlib import Path

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.folders import opened, remove_tree, sync_folder
from mipyme_backup.sources.media.kernel import exchange
from mipyme_backup.sources.media.names import OWN_PREFIX

OWN = OWN_PREFIX.decode()
NEW_FOLDER_MODE = 0o755


class Swap(ABC):
    """How the restored folder of the restore `restore_id` gets into the place of `live`."""

    def __init__(self, live: Path, beside: Path, restore_id: str) -> None:
        self.live = live
        self.beside = beside
        self.side = beside / f"{OWN}restoring_{restore_id}"
        self.before = beside / f"{OWN}before_{restore_id}"
        self.late = beside / f"{OWN}late_{restore_id}"
        self._mark_name = f"{OWN}loaded_{restore_id}"

    @property
    def loaded(self) -> bool:
        """Whether the side holds all that is to be restored."""
        return self.marked(self.side)

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether the swap has begun, or is done, and has not been undone."""

    @abstractmethod
    def swap(self) -> float:
        """Put the side in the place of the live folder; return the seconds it took."""

    @abstractmethod
    def undo(self) -> None:
        """Put what was replaced back; the restored folder becomes the side again."""

    @abstractmethod
    def discard(self) -> None:
        """Remove the side; a swap that was cut short is rolled back first."""

    def remove_replaced(self) -> None:
        """Remove whatever of the three is not live; undo is impossible from then on."""
        for folder in (self.before, self.late, self.side):
            remove_tree(folder)

    def mark(self, folder: Path) -> None:
        with opened(folder, follow=False) as descriptor:
            self.mark_in(descriptor)

    def mark_in(self, folder: int) -> None:
        """Mark the open `folder`; a link by the name of the mark is not followed."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._mark_name, flags, 0o600, dir_fd=folder))
        os.fsync(folder)

    def marked(self, folder: Path) -> bool:
        """Say whether the mark lies in the folder, and not behind a link in its place.

        Raises OSError where that cannot be told: a swap must not take it for "no".
        """
        try:
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return False  # the second for a link as well: see open(2)
        try:
            status = os.stat(self._mark_name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.close(descriptor)
        return stat.S_ISREG(status.st_mode)

    def _unmark(self, folder: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / self._mark_name)

    def _require_loaded(self) -> None:
        if not self.loaded:
            raise RestoreError(
                _("There is no restored media folder at %(folder)s to swap in"),
                hint=_("Start the restore again."),
                folder=str(self.side),
            )

    def _nothing_to_undo(self) -> RestoreError:
        return RestoreError(
            _("The media that was replaced is no longer at %(folder)s"),
            hint=_("Restore the safety backup instead."),
            folder=str(self.before),
        )


class FolderSwap(Swap):
    """Renames whole folders, which are siblings: atomic where the kernel can exchange names."""

    def __init__(self, live: Path, restore_id: str, *, atomic: bool = True) -> None:
        super().__init__(live, live.parent, restore_id)
        self._atomic = atomic

    @property
    def begun(self) -> bool:
        return os.path.lexists(self.before) or self.marked(self.live)

    def swap(self) -> float:
        self._settle()
        seconds = 0.0
        if os.path.lexists(self.side) or not self.begun:
            self._require_loaded()
            seconds = self._put_in_place()
        self._unmark(self.live)
        return seconds

    def _put_in_place(self) -> float:
        if not os.path.lexists(self.live) and not os.path.lexists(self.before):
            self.live.mkdir(NEW_FOLDER_MODE, parents=True)  # so that there is what to go back to
        self._unmark(self.live)
        self._dress()
        started = time.monotonic()
        try:
            if not os.path.lexists(self.live):
                os.rename(self.side, self.live)
            elif self._atomic and exchange(self.side, self.live):
                self._name(self.side, self.before)
            else:
                self._name(self.live, self.before)
                os.rename(self.side, self.live)
        except OSError as error:
            raise self._cannot_rename(error) from error
        seconds = time.monotonic() - started
        sync_folder(self.beside)
        return seconds

    def undo(self) -> None:
        self._settle()
        if os.path.lexists(self.before):
            self._put_back()
            sync_folder(self.beside)
        elif not self.loaded:
            raise self._nothing_to_undo()

    def _put_back(self) -> None:
        try:
            if not os.path.lexists(self.live):
                os.rename(self.before, self.live)
                return
            self.mark(self.live)
            if self._atomic and exchange(self.before, self.live):
                self._name(self.before, self.side)
            else:
                self._name(self.live, self.side)
                os.rename(self.before, self.live)
        except OSError as error:
            raise self._cannot_rename(error) from error

    def discard(self) -> None:
        self._settle()
        cut_short = os.path.lexists(self.side) or self.marked(self.live)
        if cut_short and os.path.lexists(self.before):
            self.swap()
            self.undo()
        remove_tree(self.side)

    def _settle(self) -> None:
        """Give the folders their names where a kill came right after an exchange."""
        if self.marked(self.before):
            self._name(self.before, self.side)
        elif self.marked(self.live) and os.path.lexists(self.side) and not self.loaded:
            self._name(self.side, self.before)

    def _name(self, folder: Path, name: Path) -> None:
        """Rename a folder; one that somebody made in between keeps clear of the others."""
        os.rename(folder, self.late if os.path.lexists(name) else name)

    def _dress(self) -> None:
        """Give the side the owner and the mode of the live folder."""
        for folder in (self.live, self.before):
            if os.path.lexists(folder):
                status = os.stat(folder)
                with opened(self.side, follow=False) as side:
                    if os.geteuid() == 0:
                        os.fchown(side, status.st_uid, status.st_gid)
                    os.fchmod(side, stat.S_IMODE(status.st_mode))
                return

    def _cannot_rename(self, error: OSError) -> RestoreError:
        return RestoreError(
            _("The media folder %(folder)s cannot be renamed: %(reason)s"),
            hint=_("It may be part of a container's image: keep media on a volume of its own."),
            folder=str(self.live),
            reason=error.strerror,
        )


def is_own(name: str) -> bool:
    """Return whether a name inside a media folder is one of ours."""
    return name.startswith(OWN)
