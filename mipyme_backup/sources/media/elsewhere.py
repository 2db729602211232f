"""A restore into a folder of its own: it replaces nothing, and deletes nothing of others."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.folders import Folder, held, held_if_there
from mipyme_backup.sources.media.lists import has_list, read_list, unfinished, write_list
from mipyme_backup.sources.media.names import shown
from mipyme_backup.sources.media.swap import OWN, Swap, replaced


class Elsewhere(Swap):
    """Loads into a side inside `folder`, whose entries then move up into `folder`.

    A list of them, written before the first move, tells what is ours from what others put there
    until all of it is in its place.
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

    def undo(self) -> None:
        raise RestoreError(
            _("Media was restored to %(folder)s, beside the live folder: nothing is swapped"),
            folder=str(self.live),
        )

    def remove_replaced(self) -> None:
        """Remove nothing: nothing was replaced."""

    def _begun(self, beside: Folder) -> bool:
        return not beside.has(self.side.name) and has_list(beside, self._list)

    def _swap(self, beside: Folder) -> float:
        if beside.has(self.side.name):
            with self._loaded_side(beside) as side:
                names = [name for name in side.names() if name != self._mark_name]
                if not has_list(beside, self._list):
                    write_list(beside, self._list, names)
                for name in names:
                    self._move(side, beside, name)
            beside.remove(self.side.name)
        beside.sync()
        with held(self.live) as named:
            if not os.path.sameopenfile(named.descriptor, beside.descriptor):
                raise replaced(self.live)
        beside.unlink(self._list)
        return 0.0

    def _undo(self, beside: Folder) -> None:
        self.undo()

    def _discard(self, beside: Folder) -> None:
        if has_list(beside, self._list):
            self._remove_moved(beside)
        beside.remove(self.side.name)
        beside.unlink(unfinished(self._list))
        beside.unlink(self._list)

    def _remove_moved(self, beside: Folder) -> None:
        with beside.folder(self.side.name) or contextlib.nullcontext() as side:
            for name in read_list(beside, self._list):
                if side is not None and side.has(name):
                    continue
                if beside.has_folder(name):
                    beside.remove(name)
                else:
                    beside.unlink(name)

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
