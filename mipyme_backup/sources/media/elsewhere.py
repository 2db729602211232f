"""A restore into a folder of its own: it replaces nothing, and deletes nothing of others."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.private_files import unfinished
from mipyme_backup.sources.media.folders import Folder, held, held_if_there
from mipyme_backup.sources.media.lists import has_list, read_list, write_list
from mipyme_backup.sources.media.names import shown
from mipyme_backup.sources.media.swap import OWN, Swap, replaced


class Elsewhere(Swap):
    """Loads into a side inside `folder`, whose entries then move up into `folder`.

    A list of them, written before the first move, tells what is ours from what others put there.
    It is kept until the restore ends, so that a failure of another source can take it back.
    """

    def __init__(self, folder: Path, restore_id: str) -> None:
        super().__init__(folder, folder, restore_id)
        self._list = f"{OWN}moving_{restore_id}"

    def require_free(self) -> None:
        """Raise RestoreError where there is more at the folder's path than an empty folder."""
        try:
            with held_if_there(self.live) as folder:
                taken = folder is not None and self._is_taken(folder)
        except NotADirectoryError:
            taken = True
        if taken:
            raise self._exists(str(self.live))

    def made(self) -> Folder:
        self.require_free()
        if not os.path.lexists(self.live):
            with (
                held(self.live.parent, create=True) as parent,
                contextlib.suppress(FileExistsError),
            ):
                os.mkdir(self.live.name, 0o700, dir_fd=parent.descriptor)
        return held(self.live)

    def remove_replaced(self) -> None:
        """Forget what was moved: nothing was replaced, and it stays from now on."""
        # All is in its place: where others keep us from the list, it does no harm.
        with contextlib.suppress(RestoreError):
            super().remove_replaced()

    def _begun(self, beside: Folder) -> bool:
        return has_list(beside, self._list)

    def _swap(self, beside: Folder) -> float:
        if beside.has(self.side.name):
            begun = self._begun(beside)
            side = beside.folder(self.side.name) if begun else self._loaded_side(beside)
            if side is None:
                raise replaced(self.side)
            with side:
                names = [name for name in side.names() if name != self._mark_name]
                if not begun:
                    write_list(beside, self._list, names)
                for name in names:
                    self._move(side, beside, name)
            beside.remove(self.side.name)
        beside.sync()
        with held(self.live) as named:
            if not os.path.sameopenfile(named.descriptor, beside.descriptor):
                raise replaced(self.live)
        return 0.0

    def _undo(self, beside: Folder) -> None:
        if self._begun(beside):
            self._take_back(beside)
        elif not self._marked(beside, self.side.name):
            raise RestoreError(
                _("Media was restored to %(folder)s, beside the live folder: nothing is swapped"),
                folder=str(self.live),
            )

    def _discard(self, beside: Folder) -> None:
        if self._begun(beside):
            self._take_back(beside)
        self._remove(beside, self.side.name)
        beside.unlink(unfinished(self._list))

    def _remove_replaced(self, beside: Folder) -> None:
        beside.unlink(self._list)
        beside.sync()

    def _take_back(self, beside: Folder) -> None:
        """Move what was moved up back to the side; what others put there stays."""
        self.require_movable()
        with beside.folder_or_made(self.side.name) as side:
            for name in read_list(beside, self._list):
                if beside.has(name) and not side.has(name):
                    beside.move(name, into=side)
            self.mark_in(side)
        beside.unlink(self._list)
        beside.sync()

    def _move(self, side: Folder, beside: Folder, name: str) -> None:
        try:
            side.move(name, into=beside)
        except FileExistsError as error:
            raise self._exists(shown(os.fsencode(self.live / name))) from error

    def _is_taken(self, folder: Folder) -> bool:
        ours = folder.has(self.side.name) or folder.has(self._list)
        return not ours and bool(folder.names())

    def _exists(self, path: str) -> RestoreError:
        return RestoreError(
            _("%(folder)s is there already, and is a target that exists"),
            hint=_("Name a folder that does not exist, or an empty one."),
            folder=path,
        )
