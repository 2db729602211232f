"""Restores media: loaded beside the live folder, checked, then swapped in."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mipyme_backup.errors import PreflightError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Facts, Target, require_own
from mipyme_backup.sources.media.elsewhere import Elsewhere
from mipyme_backup.sources.media.entry_swap import EntrySwap
from mipyme_backup.sources.media.extract import Extraction
from mipyme_backup.sources.media.folder_swap import FolderSwap, can_be_renamed
from mipyme_backup.sources.media.folders import Folder, held, held_if_there
from mipyme_backup.sources.media.index import (
    MALFORMED,
    POOL,
    index_in,
    mode_and_owner,
    read_records,
)
from mipyme_backup.sources.media.kernel import sync_file_system
from mipyme_backup.sources.media.left_out import LeftOut, Reason
from mipyme_backup.sources.media.location import resolved
from mipyme_backup.sources.media.owners import NotSet, Ownership
from mipyme_backup.sources.media.swap import Swap, replaced
from mipyme_backup.sources.media.walk import Follow, walk, walk_in
from mipyme_backup.sources.media.wanted import Wanted, require_all

RESTORE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class MediaTarget(Target):
    """The media folder of a restore: `prepare` a new one, or take one up `from_state`.

    `state`: ``type`` ("media"), ``restore_id``, maybe a ``tag``, ``location`` (the live folder,
    links resolved), ``inside`` (whether it cannot be renamed, so that all happens inside it),
    ``side`` and ``replaced`` (where the restored and the replaced files lie meanwhile),
    ``to_directory``
    (None, or the folder that is restored to instead).

    `links` says whether links that lead out of the folder are made.
    """

    links = True

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self._live = Path(state["location"])
        directory = state["to_directory"]
        self._ownership: Ownership | None = None
        self._not_kept = LeftOut()
        self._elsewhere: Elsewhere | None = None
        if directory is not None:
            self._elsewhere = Elsewhere(Path(directory), state["restore_id"])
        self._swap = self._elsewhere or _swap_of(
            self._live, _name_of(state), inside=state["inside"]
        )

    @classmethod
    def prepare(
        cls,
        *,
        location: Path,
        restore_id: str,
        to_directory: Path | None = None,
        inside: bool | None = None,
        tag: str = "",
    ) -> MediaTarget:
        """Return the target of a new restore; `inside` None finds out by itself.

        `tag` tells apart what several targets of one restore put beside their live folders.
        """
        if not RESTORE_ID.fullmatch(restore_id):
            raise RestoreError(_("%(id)s cannot be the id of a restore"), id=restore_id)
        live = resolved(location, RestoreError)
        if inside is None:
            inside = to_directory is None and not can_be_renamed(live)
        swap = _swap_of(live, _name_of({"restore_id": restore_id, "tag": tag}), inside=inside)
        directory = None if to_directory is None else str(resolved(to_directory, RestoreError))
        return cls(
            {
                "type": "media",
                "restore_id": restore_id,
                **({"tag": tag} if tag else {}),
                "location": os.fspath(live),
                "inside": inside,
                "side": directory or os.fspath(swap.side),
                "replaced": os.fspath(swap.before),
                "to_directory": directory,
            }
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MediaTarget:
        """Return the target that `state` was taken from."""
        return cls(dict(state))

    @classmethod
    def check_state(cls, state: Mapping[str, Any], location: Path | None, tag: str = "") -> None:
        """Raise StateError where `state` names others than the live folder `location` and ours.

        Without a `location` it is that of a folder elsewhere, which the operator named.
        """
        directory = Path(state["to_directory"]) if location is None else None
        own = cls.prepare(
            location=location or Path(state["to_directory"]),
            restore_id=state["restore_id"],
            tag=tag,
            to_directory=directory,
            inside=bool(state["inside"]),
        )
        require_own(state, {"tag": None, **own.state})

    def plan(self) -> list[Message]:
        if self._elsewhere is not None:
            with self._reading():
                self._elsewhere.require_free()
            text = _("Media is restored to %(folder)s; the live media folder stays as it is.")
            return [Message(text, {"folder": self.state["side"]})]
        self._require_writable()
        self._swap.require_movable()
        params = {"folder": str(self._live), "replaced": self.state["replaced"]}
        text = _("Media is put into %(folder)s, where there is none now.")
        if self.has_live():
            text = _("Media is swapped into %(folder)s; what is there now is kept at %(replaced)s.")
        messages = [Message(text, params)]
        if self.state["inside"]:
            text = _(
                "%(folder)s cannot be renamed (it is a mount point, or its parent is not ours):"
                " the swap goes entry by entry, and a request in between may miss a file."
            )
            messages.append(Message(text, params))
        return messages

    def claims(self) -> frozenset[str]:
        return frozenset(str(self.state[key]) for key in ("location", "side", "replaced"))

    def kept_at(self) -> str:
        return str(self.state["replaced"])

    def has_live(self) -> bool:
        return self._swap.has_live

    def has_replaced(self) -> bool:
        return self._elsewhere is None and self._swap.has_replaced

    def load(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        if not self._swap.begun and not self._swap.loaded:
            with self._writing():
                self._load_beside(artifacts)
        if self._elsewhere is not None:
            self._elsewhere.swap()

    def _load_beside(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        """Make the side, that only we may enter; fill it, and mark it as whole."""
        name = self._swap.side.name
        with self._swap.made() as beside:
            beside.remove(name)
            with beside.make(name) as side:
                self._load(artifacts, side.descriptor)
                sync_file_system(side.descriptor)
                if not side.is_at(beside, name):
                    raise replaced(self._swap.side)
                self._swap.mark_in(side)
            beside.sync()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise RestoreError(
                _("Media cannot be written to %(folder)s: %(reason)s"),
                hint=_("See that there is space, and that this user may write there."),
                folder=self.state["side"],
                reason=getattr(error, "strerror", None) or str(error),
            ) from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RestoreError(
                _("The folder %(folder)s cannot be read: %(reason)s"),
                hint=_("Check its permissions, and which users may write to its parent folder."),
                folder=self.state["side"],
                reason=error.strerror,
            ) from error

    def _load(self, artifacts: Mapping[str, Callable[[], Reader]], root: int) -> None:
        wanted = Wanted()
        try:
            wanted.add(read_records(artifacts[index_in(artifacts)]()))
            with (
                held_if_there(self._live) as live,
                Extraction(wanted, root, Ownership(_owner(live))) as extraction,
            ):
                self._ownership = extraction.ownership
                extraction.make_folders()
                if live is not None:
                    extraction.reuse(live.descriptor)
                for pack in wanted.packs():
                    if (opener := artifacts.get(f"{POOL}{pack}")) is not None:
                        extraction.unpack(opener())
                require_all(wanted, extraction.mismatched)
                if self.links:
                    extraction.make_links()
                extraction.finish()
        finally:
            wanted.close()

    def check(self, facts: Facts) -> list[Message]:
        if self._elsewhere is None and self._swap.begun:
            return []
        found = {"files": 0, "bytes": 0, "links": 0}
        with self._reading(), contextlib.suppress(FileNotFoundError):
            for entry in walk_in(held(Path(self.state["side"])), Follow.NOTHING):
                if entry.link is not None:
                    found["links"] += 1
                elif entry.reason is None and not entry.is_folder:
                    found["files"] += 1
                    found["bytes"] += entry.size
        texts = {
            "files": _("%(found)d media files were restored, the backup has %(expected)d"),
            "bytes": _("%(found)d bytes of media were restored, the backup has %(expected)d"),
        }
        if self.links:
            texts["links"] = _("%(found)d links were restored, the backup has %(expected)d")
        self._note_folder(facts)
        if "links" not in facts:
            self._note_live_links()
        expected = {"links": 0, **facts}  # a backup of an earlier version holds none
        return [
            Message(texts[what], {"found": found[what], "expected": expected[what]})
            for what in texts
            if found[what] != expected[what]
        ]

    def _note_live_links(self) -> None:
        """Note what a backup of a version that saved no links takes from the live folder."""
        if self._elsewhere is None:
            with self._reading():
                for entry in walk(self._live):
                    if entry.reason is Reason.LINK:
                        self._not_kept.add(NotSet.LIVE_LINK, entry.path)

    def _note_folder(self, facts: Facts) -> None:
        """Let a media folder that is not there be made as the backup's was."""
        folder: Any = facts.get("folder")
        if self._elsewhere is not None or self.has_live():
            return
        with contextlib.suppress(*MALFORMED):
            mode_and_owner(folder)
            self._swap.note_dress(folder)

    def remarks(self) -> list[Message]:
        remarks = self._ownership.remarks() if self._ownership is not None else []
        return remarks + self._not_kept.messages()

    def swap_has_begun(self) -> bool:
        return self._elsewhere is not None or self._swap.begun

    def swap(self) -> float:
        return self._swap.swap()

    def discard(self) -> None:
        self._swap.discard()

    def undo(self) -> None:
        self._swap.undo()

    def remove_replaced(self) -> None:
        self._swap.remove_replaced()

    def _require_writable(self) -> None:
        if os.path.lexists(self._live) and not self._live.is_dir():
            raise PreflightError(
                _("The media folder %(folder)s is no folder"), folder=str(self._live)
            )
        folder = self._swap.beside
        while not os.path.lexists(folder):
            folder = folder.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PreflightError(
                _("The folder %(folder)s cannot be written to"),
                hint=_("Run the restore as the user who owns the media."),
                folder=str(folder),
            )


def _swap_of(live: Path, name: str, *, inside: bool) -> Swap:
    return EntrySwap(live, name) if inside else FolderSwap(live, name)


def _name_of(state: Mapping[str, Any]) -> str:
    """Return what the names beside the live folder end in; earlier versions knew no tag."""
    tag = state.get("tag", "")
    return f"{state['restore_id']}_{tag}" if tag else str(state["restore_id"])


def _owner(live: Folder | None) -> tuple[int, int] | None:
    """Return whom files that name no owner are to belong to, None where that is not ours to say."""
    if os.geteuid() != 0 or live is None:
        return None
    status = os.fstat(live.descriptor)
    return status.st_uid, status.st_gid
