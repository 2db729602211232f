"""The swap of whole folders, which are siblings and can be renamed."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.folders import BY_NAME, Folder
from mipyme_backup.sources.media.kernel import mount_points
from mipyme_backup.sources.media.owners import Ownership
from mipyme_backup.sources.media.swap import Swap, reason_of, replaced

NEW_FOLDER_MODE = 0o755


class FolderSwap(Swap):
    """Renames whole folders, which are siblings: atomic where the kernel can exchange names."""

    def __init__(self, live: Path, restore_id: str, *, atomic: bool = True) -> None:
        super().__init__(live, live.parent, restore_id)
        self._atomic = atomic

    def _begun(self, beside: Folder) -> bool:
        return beside.has_folder(self.before.name) or self._marked(beside, self.live.name)

    def _swap(self, beside: Folder) -> float:
        self._settle(beside)
        seconds = 0.0
        if beside.has(self.side.name) or not self._begun(beside):
            with self._loaded_side(beside) as side:
                seconds = self._put_in_place(beside, side)
        self._unmark(beside, self.live.name)
        return seconds

    def _put_in_place(self, beside: Folder, side: Folder) -> float:
        live, before = self.live.name, self.before.name
        self.require_movable()
        if not beside.has(live) and not beside.has(before):
            # So that there is what to go back to.
            os.mkdir(live, NEW_FOLDER_MODE, dir_fd=beside.descriptor)
        self._unmark(beside, live)
        self._dress(beside, side)
        started = time.monotonic()
        try:
            self._rename(beside, self.side.name, out=before)
        except OSError as error:
            raise self._cannot_rename(error) from error
        seconds = time.monotonic() - started
        self._require_live(beside, side)
        return seconds

    def _rename(self, beside: Folder, incoming: str, *, out: str) -> None:
        """Let the folder `incoming` be the live one, and call `out` what was live."""
        live = self.live.name
        if not beside.has(live):
            beside.rename(incoming, live)
        elif self._atomic and beside.exchange(incoming, live):
            self._name(beside, incoming, out)
        else:
            self._name(beside, live, out)
            beside.rename(incoming, live)

    def _require_live(self, beside: Folder, folder: Folder) -> None:
        """Raise RestoreError where another folder, or a link, took the place of `folder`."""
        if not folder.is_at(beside, self.live.name):
            raise replaced(self.live)
        beside.sync()

    def _undo(self, beside: Folder) -> None:
        self._settle(beside)
        before = beside.folder(self.before.name, flags=BY_NAME | os.O_NOFOLLOW)
        if before is not None:
            with before:
                self._put_back(beside, before)
        elif not self._marked(beside, self.side.name):
            raise self._nothing_to_undo()

    def _put_back(self, beside: Folder, before: Folder) -> None:
        self.require_movable()
        try:
            if beside.has(self.live.name):
                live = beside.folder(self.live.name)
                if live is None:
                    raise replaced(self.live)
                with live:
                    self.mark_in(live)
            self._rename(beside, self.before.name, out=self.side.name)
        except OSError as error:
            raise self._cannot_rename(error) from error
        self._require_live(beside, before)

    def _discard(self, beside: Folder) -> None:
        self._settle(beside)
        cut_short = beside.has(self.side.name) or self._marked(beside, self.live.name)
        if cut_short and beside.has_folder(self.before.name):
            self._swap(beside)
            self._undo(beside)
        self._remove(beside, self.side.name)

    def _settle(self, beside: Folder) -> None:
        """Give the folders their names where a kill came right after an exchange."""
        live, side, before = self.live.name, self.side.name, self.before.name
        if self._marked(beside, before):
            self._name(beside, before, side)
        elif self._marked(beside, live) and beside.has(side) and not self._marked(beside, side):
            self._name(beside, side, before)

    def _name(self, beside: Folder, name: str, new: str) -> None:
        """Rename a folder; one that another process made in between keeps clear of the others."""
        beside.rename(name, self.late.name if beside.has(new) else new)

    def _dress(self, beside: Folder, side: Folder) -> None:
        """Give the side the owner and the mode of the live folder, or those that are noted."""
        if (noted := self._noted_dress(side)) is not None:
            mode, owner = noted
            Ownership(None).settle_folder(side.descriptor, b".", owner, mode)
            return
        for name in (self.live.name, self.before.name):
            folder = beside.folder(name, flags=BY_NAME | os.O_NOFOLLOW)
            if folder is not None:
                with folder:
                    status = os.fstat(folder.descriptor)
                if os.geteuid() == 0:
                    os.fchown(side.descriptor, status.st_uid, status.st_gid)
                os.fchmod(side.descriptor, stat.S_IMODE(status.st_mode))
                return

    def _cannot_rename(self, error: OSError) -> RestoreError:
        return RestoreError(
            _("The media folder %(folder)s cannot be renamed: %(reason)s"),
            hint=_("It may be part of a container's image: keep media on a volume of its own."),
            folder=str(self.live),
            reason=reason_of(error),
        )


def can_be_renamed(live: Path) -> bool:
    """Return whether a folder, or one yet to be made, can be renamed within its parent."""
    if os.path.ismount(live) or os.fsencode(live) in mount_points():
        return False
    if not os.path.lexists(live):
        return True
    parent = live.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        return False
    try:
        above, own = parent.stat(), live.stat()
    except OSError:
        return False
    sticky = bool(above.st_mode & 0o1000)
    return not sticky or os.geteuid() in (0, above.st_uid, own.st_uid)
