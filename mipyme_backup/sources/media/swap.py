"""Putting a restored media folder in the place of the live one, and back.

Nothing but the file system says how far a swap has come, so that after a kill at any point
the same call finishes it. Three folders take part: the live one, the *side* that was
restored, and *before*, what was replaced. A small file in it marks the restored one, wherever
it is.

Other users may exchange these names meanwhile. So each call holds the folder that has them all,
and the side from the moment its mark was seen, by descriptor; no name is followed as a link.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.private_files import write_file
from mipyme_backup.sources.media.folders import BY_NAME, Folder, held, held_if_there
from mipyme_backup.sources.media.index import MALFORMED, mode_and_owner
from mipyme_backup.sources.media.kernel import mounts_below
from mipyme_backup.sources.media.names import OWN_PREFIX, shown
from mipyme_backup.sources.media.owners import Owner
from mipyme_backup.sources.media.walk import is_lost_and_found

OWN = OWN_PREFIX.decode()
MAX_MARK = 4096


class Swap(ABC):
    """How the restored folder of the restore `restore_id` gets into the place of `live`.

    The other folders lie in `beside`, under their names.
    """

    def __init__(self, live: Path, beside: Path, restore_id: str) -> None:
        self.live = live
        self.beside = beside
        self.side = beside / f"{OWN}restoring_{restore_id}"
        self.before = beside / f"{OWN}before_{restore_id}"
        self.late = beside / f"{OWN}late_{restore_id}"
        self._mark_name = f"{OWN}loaded_{restore_id}"

    def made(self) -> Folder:
        """Return `beside`, held, and made where it is missing; raises OSError."""
        return held(self.beside, create=True)

    @property
    def loaded(self) -> bool:
        """Whether the side holds all that is to be restored.

        Raises RestoreError where that cannot be told: a swap must not take it for "no".
        """
        with self._held() as beside:
            return beside is not None and self._marked(beside, self.side.name)

    @property
    def begun(self) -> bool:
        """Whether the swap has begun, or is done, and has not been undone."""
        with self._held() as beside:
            return beside is not None and self._begun(beside)

    @property
    def has_live(self) -> bool:
        """Whether the live folder holds anything."""
        with self._opened(self.live) as live:
            return live is not None and _holds_anything(live)

    @property
    def has_replaced(self) -> bool:
        """Whether anything that was replaced lies in *before*."""
        with self._opened(self.before) as before:
            return before is not None and _holds_anything(before)

    def swap(self) -> float:
        """Put the side in the place of the live folder; return the seconds it took."""
        with self._held() as beside:
            if beside is None:
                raise self._not_loaded()
            return self._swap(beside)

    def undo(self) -> None:
        """Put what was replaced back; the restored folder becomes the side again."""
        with self._held() as beside:
            if beside is None:
                raise self._nothing_to_undo()
            self._undo(beside)

    def discard(self) -> None:
        """Remove the side; a swap that was cut short is rolled back first."""
        with self._held() as beside:
            if beside is not None:
                self._discard(beside)

    def remove_replaced(self) -> None:
        """Remove whatever of the three is not live; undo is impossible from then on."""
        with self._held() as beside:
            if beside is not None:
                self._remove_replaced(beside)

    @abstractmethod
    def _begun(self, beside: Folder) -> bool: ...

    @abstractmethod
    def _swap(self, beside: Folder) -> float: ...

    @abstractmethod
    def _undo(self, beside: Folder) -> None: ...

    @abstractmethod
    def _discard(self, beside: Folder) -> None: ...

    def _remove_replaced(self, beside: Folder) -> None:
        for folder in (self.before, self.late, self.side):
            self._remove(beside, folder.name)

    def _remove(self, beside: Folder, name: str) -> None:
        """Remove a folder of ours; RestoreError, and all stays, where something is mounted in it.

        The removal itself crosses no mount either, but would leave a tree of which a part is gone.
        """
        require_nothing_mounted(beside.path / name)
        beside.remove(name)

    def require_movable(self) -> None:
        """Raise RestoreError where something is mounted in what the swap would move."""
        require_nothing_mounted(self.live)

    def mark_in(self, folder: Folder) -> None:
        """Mark a folder; a link by the name of the mark is not followed."""
        with contextlib.suppress(FileExistsError):
            write_file(self._mark_name, b"", dir_fd=folder.descriptor)
        folder.sync()

    def note_dress(self, dress: Mapping[str, Any]) -> None:
        """Note in the mark how the folder was, where there is no live one to take that from."""
        with self._held() as beside:
            side = None if beside is None else beside.folder(self.side.name)
            if side is None:
                raise self._not_loaded()
            with side:
                flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW
                mark = os.open(self._mark_name, flags, dir_fd=side.descriptor)
                with os.fdopen(mark, "w") as file:
                    json.dump(dress, file)
                    file.flush()
                    os.fsync(file.fileno())

    def _noted_dress(self, side: Folder) -> tuple[int, Owner | None] | None:
        """Return the mode and the owner that the mark of an open side notes, if any."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(self._mark_name, flags, dir_fd=side.descriptor)) as file:
            try:
                return mode_and_owner(json.loads(file.read(MAX_MARK)))
            except MALFORMED:  # as a rule it is empty
                return None

    def _marked(self, parent: Folder, name: str) -> bool:
        """Say whether the mark lies in a folder, and not behind a link in its place."""
        folder = parent.folder(name, flags=BY_NAME | os.O_NOFOLLOW)
        if folder is None:
            return False
        with folder:
            status = folder.status(self._mark_name)
        return status is not None and stat.S_ISREG(status.st_mode)

    def _unmark(self, parent: Folder, name: str) -> None:
        folder = parent.folder(name, flags=BY_NAME | os.O_NOFOLLOW)
        if folder is not None:
            with folder:
                folder.unlink(self._mark_name)

    def _loaded_side(self, beside: Folder) -> Folder:
        """Return the side, held; RestoreError where it does not hold all that is to be restored."""
        side = beside.folder(self.side.name)
        if side is None:
            raise self._not_loaded()
        status = side.status(self._mark_name)
        if status is None or not stat.S_ISREG(status.st_mode):
            os.close(side.descriptor)
            raise self._not_loaded()
        return side

    def _held(self) -> contextlib.AbstractContextManager[Folder | None]:
        """Hold `beside`; see `_opened`."""
        return self._opened(self.beside)

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[Folder | None]:
        """Hold a folder, None where there is none; what fails meanwhile is a RestoreError."""
        try:
            with held_if_there(path) as folder:
                yield folder
        except OSError as error:
            raise RestoreError(
                _("The folders of the restore in %(folder)s cannot be changed: %(reason)s"),
                hint=_(
                    "Run the same command as the user that began the restore, or as root: it"
                    " finishes what was begun."
                )
                if isinstance(error, PermissionError)
                else _(
                    "Check which users may write to that folder, and run the same command again:"
                    " it finishes what was begun."
                ),
                folder=str(self.beside),
                reason=reason_of(error),
            ) from error

    def _not_loaded(self) -> RestoreError:
        return RestoreError(
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


def _holds_anything(folder: Folder) -> bool:
    """Say whether there is more in a media folder than what is ours and the file system's."""
    for name in folder.names():
        status = folder.status(name)
        if status is None or name.startswith(OWN):
            continue
        if not is_lost_and_found(os.fsencode(name), status):
            return True
    return False


def replaced(folder: Path) -> RestoreError:
    """Return the error where `folder` is not what we put there."""
    return RestoreError(
        _("Another process replaced the folder %(folder)s during the restore"),
        hint=_("Check which users may write to its parent folder, then restore again."),
        folder=str(folder),
    )


def require_nothing_mounted(folder: Path) -> None:
    """Raise RestoreError where there are mount points below `folder`, but for what is ours there.

    A folder that is renamed takes along what is mounted below it: the site would lose it, and it
    would lie in what is removed after KEEP_REPLACED_HOURS.
    """
    ours = os.fsencode(folder) + b"/" + OWN_PREFIX
    mounted = [path for path in mounts_below(folder) if not path.startswith(ours)]
    if mounted:
        raise RestoreError(
            _(
                "%(folder)s cannot be moved or removed while there is a mount point in it:"
                " %(paths)s"
            ),
            hint=_(
                "Unmount them (umount PATH), run the same command again, and mount them again; or"
                " restore the media to another folder: --only media --to-media DIR"
            ),
            folder=shown(os.fsencode(folder)),
            paths=", ".join(map(shown, mounted)),
        )


def reason_of(error: OSError) -> str:
    """Return what failed, with the path where the error knows it."""
    path = f" ({error.filename})" if isinstance(error.filename, str) else ""
    return f"{error.strerror or error}{path}"
