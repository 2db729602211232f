"""The swap where the media folder is a mount point, which cannot be renamed: entry by entry."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.private_files import unfinished
from mipyme_backup.sources.media.folders import Folder
from mipyme_backup.sources.media.lists import (
    has_list,
    is_own,
    not_ours,
    read_list,
    write_list,
)
from mipyme_backup.sources.media.swap import OWN, Swap
from mipyme_backup.sources.media.walk import is_lost_and_found


class EntrySwap(Swap):
    """Moves the entries of the live folder out, and those of the side in.

    A list of what is to go out, written before the first move, tells a later call what is old:
    while it is called ``leaving``, old entries go out; renamed to ``entering``, new ones come in.
    All folders lie inside the live one, which is what is held.
    """

    def __init__(self, live: Path, restore_id: str) -> None:
        super().__init__(live, live, restore_id)
        self._restore_id = restore_id

    def _begun(self, beside: Folder) -> bool:
        under_way = self._under_way(beside, "swap") or self._under_way(beside, "undo")
        return beside.has_folder(self.before.name) or under_way

    def _swap(self, beside: Folder) -> float:
        self._require_lists(beside)
        self._finish(beside, "undo")
        if self._under_way(beside, "swap"):
            side = beside.folder(self.side.name)
        elif beside.has(self.side.name) or not beside.has_folder(self.before.name):
            side = self._loaded_side(beside)
        else:
            return 0.0
        started = time.monotonic()
        self._exchange(beside, "swap", side)
        return time.monotonic() - started

    def _undo(self, beside: Folder) -> None:
        self._require_lists(beside)
        self._finish(beside, "swap")
        before = beside.folder(self.before.name)
        if before is None and not self._under_way(beside, "undo"):
            if self._marked(beside, self.side.name):
                return
            raise self._nothing_to_undo()
        self._exchange(beside, "undo", before)

    def _finish(self, beside: Folder, verb: str) -> None:
        """Finish what a killed call began; RestoreError where there are lists of both ways."""
        if self._under_way(beside, verb):
            if self._under_way(beside, "undo" if verb == "swap" else "swap"):
                raise not_ours(self.live / self._list(verb, "leaving"))
            incoming = self.side if verb == "swap" else self.before
            self._exchange(beside, verb, beside.folder(incoming.name))

    def _discard(self, beside: Folder) -> None:
        self._require_lists(beside)
        if self._under_way(beside, "swap") or self._under_way(beside, "undo"):
            self._undo(beside)
        self._remove(beside, self.side.name)
        self._remove_unfinished_lists(beside)

    def _remove_replaced(self, beside: Folder) -> None:
        super()._remove_replaced(beside)
        self._remove_unfinished_lists(beside)

    def _remove_unfinished_lists(self, beside: Folder) -> None:
        for verb in ("swap", "undo"):
            beside.unlink(unfinished(self._list(verb, "leaving")))

    def _list(self, verb: str, stage: str) -> str:
        return f"{OWN}{verb}_{stage}_{self._restore_id}"

    def _under_way(self, beside: Folder, verb: str) -> bool:
        stages = ("leaving", "entering")
        return any(has_list(beside, self._list(verb, stage)) for stage in stages)

    def _require_lists(self, beside: Folder) -> None:
        """Raise RestoreError where entries were being moved, and no list tells which."""
        under_way = self._under_way(beside, "swap") or self._under_way(beside, "undo")
        halves = (self.side.name, self.before.name)
        if not under_way and all(map(beside.has_folder, halves)):
            raise RestoreError(
                _(
                    "The list of a swap in %(folder)s is missing: old entries and restored ones"
                    " cannot be told apart"
                ),
                hint=_(
                    "Put the list back if it was moved away. Otherwise move what you want to keep"
                    " of %(before)s (old) and %(side)s (restored) to the media folder, delete both"
                    " folders, and run the same command again."
                ),
                folder=str(self.live),
                before=str(self.before),
                side=str(self.side),
            )

    def _exchange(self, live: Folder, verb: str, incoming: Folder | None) -> None:
        """Move the old entries out, then those of `incoming` in.

        Closes `incoming`, which is None where a killed call has removed it already.
        """
        leaving, entering = self._list(verb, "leaving"), self._list(verb, "entering")
        out = self.before.name if verb == "swap" else self.side.name
        with contextlib.ExitStack() as stack:
            if incoming is not None:
                stack.enter_context(incoming)
            try:
                if not has_list(live, entering):
                    self._let_out(live, leaving, out)
                    live.rename(leaving, entering)
                    live.sync()
                if incoming is not None:
                    self._move_in(live, incoming)
            except OSError as error:
                raise self._cannot_move(error, begun=self._under_way(live, verb)) from error
        live.sync()
        if incoming is not None:
            live.remove(incoming.path.name)
        if out == self.side.name:
            with live.folder_or_made(out) as side:
                self.mark_in(side)
        live.unlink(entering)
        live.sync()

    def _let_out(self, live: Folder, leaving: str, out: str) -> None:
        if not has_list(live, leaving):
            self.require_movable()
            write_list(live, leaving, self._old_entries(live))
        with live.folder_or_made(out) as outgoing:
            self._move_out(live, leaving, outgoing)
            outgoing.sync()

    def _move_out(self, live: Folder, leaving: str, outgoing: Folder) -> None:
        names = read_list(live, leaving)
        try:
            for name in names:
                if not outgoing.has(name) and live.has(name):
                    live.move(name, into=outgoing)
        except OSError:
            self._move_in(live, outgoing)
            live.remove(outgoing.path.name)
            live.unlink(leaving)
            raise

    def _move_in(self, live: Folder, incoming: Folder) -> None:
        for name in _entries(incoming):
            try:
                incoming.move(name, into=live)
            except FileExistsError:
                # Another process made it since the old one left: neither is lost.
                with live.folder_or_made(self.late.name) as late:
                    live.rename(name, name, into=late)
                incoming.move(name, into=live)

    def _old_entries(self, live: Folder) -> list[str]:
        return [
            name
            for name in _entries(live)
            if (status := live.status(name)) is not None
            and not is_lost_and_found(os.fsencode(name), status)
        ]

    def _cannot_move(self, error: OSError, *, begun: bool) -> RestoreError:
        return RestoreError(
            _("The entries of the media folder %(folder)s cannot be moved: %(reason)s"),
            hint=(
                _(
                    "Some entries were moved and others not. Free some space there, or make it"
                    " writable, and run the same command again: it finishes what was begun."
                )
                if begun
                else _("Make it writable for this user, and run the same command again.")
            ),
            folder=str(self.live),
            reason=error.strerror,
        )


def _entries(folder: Folder) -> list[str]:
    """Return the names in a folder, but for our own."""
    return [name for name in folder.names() if not is_own(name)]
