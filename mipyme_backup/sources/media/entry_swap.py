"""The swap where the media folder is a mount point, which cannot be renamed: entry by entry."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.folders import opened, remove_tree, sync_folder
from mipyme_backup.sources.media.kernel import mount_points
from mipyme_backup.sources.media.names import shown
from mipyme_backup.sources.media.swap import OWN, Swap, is_own
from mipyme_backup.sources.media.walk import is_lost_and_found


class EntrySwap(Swap):
    """Moves the entries of the live folder out, and those of the side in.

    A list of what is to go out, written before the first move, tells a later call what is old:
    while it is called ``leaving``, old entries go out; renamed to ``entering``, new ones come in.
    """

    def __init__(self, live: Path, restore_id: str) -> None:
        super().__init__(live, live, restore_id)
        self._restore_id = restore_id

    @property
    def begun(self) -> bool:
        return os.path.lexists(self.before) or self._under_way("swap") or self._under_way("undo")

    def swap(self) -> float:
        if self._under_way("undo"):
            self.undo()
        if not self._under_way("swap"):
            if not os.path.lexists(self.side) and os.path.lexists(self.before):
                return 0.0
            self._require_loaded()
        started = time.monotonic()
        self._exchange("swap", incoming=self.side, outgoing=self.before)
        return time.monotonic() - started

    def undo(self) -> None:
        if self._under_way("swap"):
            self.swap()
        if not self._under_way("undo") and not os.path.lexists(self.before):
            if self.loaded:
                return
            raise self._nothing_to_undo()
        self._exchange("undo", incoming=self.before, outgoing=self.side)

    def discard(self) -> None:
        if self._under_way("swap") or self._under_way("undo"):
            self.undo()
        remove_tree(self.side)
        self._remove_unfinished_lists()

    def remove_replaced(self) -> None:
        super().remove_replaced()
        self._remove_unfinished_lists()

    def _remove_unfinished_lists(self) -> None:
        for verb in ("swap", "undo"):
            _unfinished(self._journal(verb, "leaving")).unlink(missing_ok=True)

    def _journal(self, verb: str, stage: str) -> Path:
        return self.live / f"{OWN}{verb}_{stage}_{self._restore_id}"

    def _under_way(self, verb: str) -> bool:
        return any(os.path.lexists(self._journal(verb, stage)) for stage in ("leaving", "entering"))

    def _exchange(self, verb: str, *, incoming: Path, outgoing: Path) -> None:
        leaving, entering = self._journal(verb, "leaving"), self._journal(verb, "entering")
        try:
            if not os.path.lexists(entering):
                if not os.path.lexists(leaving):
                    self._check_movable()
                    _write_list(leaving, self._old_entries())
                outgoing.mkdir(0o700, exist_ok=True)
                self._move_out(leaving, outgoing)
                sync_folder(outgoing)
                os.rename(leaving, entering)
                sync_folder(self.live)
            self._move_in(incoming)
        except OSError as error:
            raise RestoreError(
                _("The entries of the media folder %(folder)s cannot be moved: %(reason)s"),
                hint=(
                    _(
                        "Some entries were moved and others not. Free some space there, or make it"
                        " writable, and run the same command again: it finishes what was begun."
                    )
                    if self._under_way(verb)
                    else _("Make it writable for this user, and run the same command again.")
                ),
                folder=str(self.live),
                reason=error.strerror,
            ) from error
        sync_folder(self.live)
        remove_tree(incoming)
        if outgoing == self.side:
            self.mark(self.side)
        os.unlink(entering)
        sync_folder(self.live)

    def _move_out(self, leaving: Path, outgoing: Path) -> None:
        names = _read_list(leaving)
        try:
            for name in names:
                if not os.path.lexists(outgoing / name) and os.path.lexists(self.live / name):
                    _move(self.live, outgoing, name)
        except OSError:
            self._move_in(outgoing)
            remove_tree(outgoing)
            os.unlink(leaving)
            raise

    def _move_in(self, incoming: Path) -> None:
        for name in _entries(incoming):
            if os.path.lexists(self.live / name):
                # Somebody made it since the old one left: neither is lost.
                self.late.mkdir(0o700, exist_ok=True)
                _move(self.live, self.late, name)
            _move(incoming, self.live, name)

    def _old_entries(self) -> list[str]:
        return [
            name
            for name in _entries(self.live)
            if not is_lost_and_found(os.fsencode(name), os.lstat(self.live / name))
        ]

    def _check_movable(self) -> None:
        mounted = mount_points()
        for name in self._old_entries():
            if os.fsencode(self.live / name) in mounted:
                raise RestoreError(
                    _("%(path)s inside the media folder is a mount point: it cannot be moved"),
                    hint=_("Unmount it for the restore, or restore to another folder."),
                    path=shown(os.fsencode(self.live / name)),
                )


def _move(source: Path, target: Path, name: str) -> None:
    """Move `name` from one folder to another, neither of which may be a link."""
    with opened(source, follow=False) as old, opened(target, follow=False) as new:
        os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)


def _entries(folder: Path) -> list[str]:
    """Return the names in a folder, but for our own; none where it does not exist."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not is_own(name))


def _write_list(path: Path, names: list[str]) -> None:
    """Write names to a file, each ended by NUL, so that it is there whole or not at all."""
    unfinished = _unfinished(path)
    descriptor = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(os.fsencode(name) + b"\0" for name in names)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)
    sync_folder(path.parent)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _read_list(path: Path) -> list[str]:
    """Return the names in a list; RestoreError where it is not a list that we wrote."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        names = [os.fsdecode(name) for name in file.read().split(b"\0")[:-1]] if ours else []
    if not ours or any(name in ("", ".", "..") or "/" in name or is_own(name) for name in names):
        raise RestoreError(
            _("%(file)s is not a list that this restore wrote"),
            hint=_("Check which users may write to its folder, and delete the file."),
            file=str(path),
        )
    return names
