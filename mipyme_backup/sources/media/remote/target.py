"""Restores media to a remote storage: loaded beside the live files, checked, then swapped in."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mipyme_backup.errors import PreflightError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Facts, Target, require_own
from mipyme_backup.sources.media.index import (
    LARGEST,
    POOL,
    FileRecord,
    Record,
    index_in,
    read_records,
)
from mipyme_backup.sources.media.left_out import LeftOut, listed
from mipyme_backup.sources.media.names import SHOWN_NAMES, shown, to_text
from mipyme_backup.sources.media.owners import NotSet
from mipyme_backup.sources.media.remote.exchange import changes_of, is_same, swap_back, swap_in
from mipyme_backup.sources.media.remote.failures import failures
from mipyme_backup.sources.media.remote.families import objects_in
from mipyme_backup.sources.media.remote.listing import Listing
from mipyme_backup.sources.media.remote.objects import Objects
from mipyme_backup.sources.media.remote.side import Side
from mipyme_backup.sources.media.remote.upload import Upload
from mipyme_backup.sources.media.target import RESTORE_ID
from mipyme_backup.sources.media.wanted import Wanted, require_all

NEVER = -LARGEST
"""In place of a time that may hide a later change: no live file has it."""


class RemoteMediaTarget(Target):
    """The media of a storage in a restore: `prepare` a new one, or take one up `from_state`.

    `state`: ``type`` ("remote_media"), ``restore_id``, ``storage`` (an alias of ``STORAGES``),
    ``side`` and ``replaced`` (below which names the restored and the replaced files lie meanwhile).
    """

    def __init__(self, state: dict[str, Any], objects: Objects) -> None:
        self.state = state
        self._objects = objects
        self._side = Side(objects, state["restore_id"])
        self._not_set = LeftOut()

    @classmethod
    def prepare(cls, *, storage: str, restore_id: str) -> RemoteMediaTarget:
        """Return the target of a new restore."""
        if not RESTORE_ID.fullmatch(restore_id):
            raise RestoreError(_("%(id)s cannot be the id of a restore"), id=restore_id)
        objects = objects_in(storage)
        side = Side(objects, restore_id)
        state = {
            "type": "remote_media",
            "restore_id": restore_id,
            "storage": storage,
            "side": side.side,
            "replaced": str(
                Message(
                    _("%(folder)s in the storage %(storage)s"),
                    {"folder": side.before, "storage": storage},
                )
            ),
        }
        return cls(state, objects)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RemoteMediaTarget:
        """Return the target that `state` was taken from."""
        return cls(dict(state), objects_in(state["storage"]))

    @classmethod
    def check_state(cls, state: Mapping[str, Any], storage: str) -> None:
        """Raise StateError where `state` names another storage, or others' names in it."""
        own = cls.prepare(storage=storage, restore_id=state["restore_id"])
        require_own(state, own.state)

    def plan(self) -> list[Message]:
        # A folder that is gone with all the media is made anew.
        with (
            failures(self._objects, _("list"), PreflightError),
            contextlib.suppress(FileNotFoundError),
        ):
            self._objects.require_listable()
        with failures(self._objects, _("write to"), PreflightError):
            self._objects.require_writable()
        params = {"alias": self.state["storage"], "replaced": self._side.before}
        texts = (
            _(
                "Media is swapped into the storage %(alias)s; what changes there is kept below"
                " %(replaced)s."
            )
            if self.has_live()
            else _("Media is put into the storage %(alias)s, where there is none now."),
            _(
                "The storage %(alias)s cannot change all at once: the swap goes file by file, and a"
                " request in between may see the old file or the new one."
            ),
        )
        return [Message(text, params) for text in texts]

    def kept_at(self) -> str:
        return str(self.state["replaced"])

    def has_live(self) -> bool:
        with (
            failures(self._objects, _("list"), RestoreError),
            contextlib.suppress(FileNotFoundError),
        ):
            return next(iter(self._objects.media()), None) is not None
        return False

    def has_replaced(self) -> bool:
        with failures(self._objects, _("read"), RestoreError):
            if not self._side.begun:
                return False
            if "had_live" in self.state:
                return bool(self.state["had_live"])
            return any(change.before is not None for change in self._side.changes())

    def load(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        with failures(self._objects, _("write to"), RestoreError):
            if self._side.begun or self._side.loaded:
                return
            self._side.remove_restored()
            with (
                tempfile.TemporaryDirectory(prefix="mipyme_backup_") as folder,
                tempfile.TemporaryFile() as index,
                contextlib.closing(Wanted(Path(folder))) as wanted,
            ):
                wanted.add(_noted(read_records(artifacts[index_in(artifacts)]()), index))
                self._require_names(wanted)
                for link in wanted.links():
                    self._not_set.add(NotSet.LINK, link.path)
                self._keep_live(wanted)
                upload = Upload(self._side, wanted)
                for pack in wanted.packs():
                    if (opener := artifacts.get(f"{POOL}{pack}")) is not None:
                        upload.unpack(opener())
                require_all(wanted, upload.mismatched)
                self._side.finish(index)

    def check(self, facts: Facts) -> list[Message]:
        with failures(self._objects, _("list"), RestoreError):
            if self._side.begun:
                return []
            found = self._count()
        texts = {
            "files": _("%(found)d media files were restored, the backup has %(expected)d"),
            "bytes": _("%(found)d bytes of media were restored, the backup has %(expected)d"),
        }
        return [
            Message(texts[what], {"found": found[what], "expected": facts[what]})
            for what in texts
            if found[what] != facts[what]
        ]

    def remarks(self) -> list[Message]:
        return self._not_set.messages()

    def swap_has_begun(self) -> bool:
        with failures(self._objects, _("read"), RestoreError):
            return self._side.begun

    def swap(self) -> float:
        started = time.monotonic()
        with failures(self._objects, _("write to"), RestoreError):
            if self._side.begun:
                if self._side.swapped:
                    return 0.0
            else:
                self._begin()
            swap_in(self._side)
            self._side.mark_swapped()
        return time.monotonic() - started

    def undo(self) -> None:
        with failures(self._objects, _("write to"), RestoreError):
            if self._side.begun:
                self._roll_back()
            elif not self._side.loaded:
                raise RestoreError(
                    _("The media that was replaced is no longer below %(folder)s"),
                    hint=_("Restore the safety backup instead."),
                    folder=self.state["replaced"],
                )

    def discard(self) -> None:
        with failures(self._objects, _("write to"), RestoreError):
            if self._side.begun:  # whoever wants to keep it removes what was replaced
                self._roll_back()
            self._side.remove_restored()

    def remove_replaced(self) -> None:
        with failures(self._objects, _("write to"), RestoreError):
            self._side.remove_restored()
            self._side.remove_replaced()

    def _begin(self) -> None:
        """Write down what will change; nothing has, as long as that is not whole."""
        if not self._side.loaded:
            raise RestoreError(
                _("There is no restored media below %(folder)s to swap in"),
                hint=_("Start the restore again."),
                folder=self._side.side,
            )
        self._side.remove_replaced()
        with contextlib.closing(self._live()) as live:
            self._side.begin(changes_of(self._side, live))

    def _roll_back(self) -> None:
        self._side.unmark_swapped()
        swap_back(self._side)
        self._side.remove_replaced()

    def _live(self) -> Listing:
        try:
            return Listing(self._objects.media())
        except FileNotFoundError:
            return Listing(())  # the bucket's folder is gone with all that was in it

    def _require_names(self, wanted: Wanted) -> None:
        count = 0
        names: list[str] = []
        for file in wanted.files():
            if not self._objects.accepts(to_text(file.path)):
                count += 1
                if len(names) < SHOWN_NAMES:
                    names.append(shown(file.path))
        if count:
            raise RestoreError(
                _("The storage %(alias)s cannot hold %(count)d names of the backup: %(names)s"),
                hint=_("Restore the media to a folder: --only media --to-media DIR"),
                alias=self.state["storage"],
                count=count,
                names=listed(names, count),
            )

    def _keep_live(self, wanted: Wanted) -> None:
        """Leave out what the storage already holds."""
        with contextlib.closing(self._live()) as live:
            for file in wanted.files():
                if is_same(live.get(file.path), file):
                    wanted.written(file)

    def _count(self) -> dict[str, int]:
        """Return how many files and bytes of the index are in the side, or live already."""
        found = {"files": 0, "bytes": 0}
        with (
            contextlib.closing(self._live()) as live,
            contextlib.closing(self._side.restored_sizes()) as restored,
        ):
            for number, record in self._side.files():
                size = restored.size(number)
                if size is None and is_same(live.get(record.path), record):
                    size = record.size
                if size is not None:
                    found["files"] += 1
                    found["bytes"] += size
        return found


def _noted(records: Iterable[Record], index: IO[bytes]) -> Iterator[Record]:
    """Write the records down and pass them on."""
    for record in records:
        if isinstance(record, FileRecord) and record.recheck:
            record = record._replace(mtime_ns=NEVER)  # noqa: PLW2901
        index.write(record.line())
        yield record
