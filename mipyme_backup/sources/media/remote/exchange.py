"""The swap in a storage, where nothing is atomic: file by file, and back the same way.

A live file that goes is first kept in the one folder, then the new one comes out of the other.
What lies in the two folders tells how far each file has come, so that the same call finishes
what a kill interrupted, and the opposite call takes it back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.index import FileRecord
from mipyme_backup.sources.media.names import shown
from mipyme_backup.sources.media.remote.listing import Listing, Numbered, RemoteEntry
from mipyme_backup.sources.media.remote.objects import ChangedError, Found, Objects
from mipyme_backup.sources.media.remote.parallel import each
from mipyme_backup.sources.media.remote.side import Change, Side
from mipyme_backup.sources.media.wanted import WantedFile


def changes_of(side: Side, live: Listing) -> Iterator[Change]:
    """Yield what has to change for the live files to be those of the index.

    Raises RestoreError where a file that was left as it is, because it was that of the index, is
    another one now.
    """
    number = 0
    with contextlib.closing(side.restored_sizes()) as restored:
        for number, record in side.files():
            entry = live.get(record.path)
            size = restored.size(number)
            if size == record.size:
                if entry is None:
                    yield Change(number, record.path, None, size)
                else:
                    yield Change(number, record.path, entry.size, size, entry.tag)
            elif not is_same(entry, record):
                raise changed_meanwhile(record.path)
    for entry in live.unseen():
        number += 1
        yield Change(number, entry.path, entry.size, None, entry.tag)


def is_same(entry: RemoteEntry | None, wanted: FileRecord | WantedFile) -> bool:
    """Say whether a live file is the one of the index, by size and time."""
    return entry is not None and (entry.size, entry.mtime_ns) == (wanted.size, wanted.mtime_ns)


def swap_in(side: Side) -> None:
    """Bring in what the list of changes names; RestoreError where a live file has gone since."""
    with _both(side) as (restored, replaced):
        _exchange(
            side,
            _Step(
                objects=side.objects,
                incoming=side.restored,
                outgoing=side.replaced,
                arriving=restored,
                kept=replaced,
                size_in=lambda change: change.after,
                size_out=lambda change: change.before,
                strict=True,
            ),
        )


def swap_back(side: Side) -> None:
    """Bring back what the list of changes names, as far as it was swapped in."""
    with _both(side) as (restored, replaced):
        _exchange(
            side,
            _Step(
                objects=side.objects,
                incoming=side.replaced,
                outgoing=side.restored,
                arriving=replaced,
                kept=restored,
                size_in=lambda change: change.before,
                size_out=lambda change: change.after,
                strict=False,
            ),
        )


@contextlib.contextmanager
def _both(side: Side) -> Iterator[tuple[Numbered, Numbered]]:
    with (
        contextlib.closing(side.restored_sizes()) as restored,
        contextlib.closing(side.replaced_sizes()) as replaced,
    ):
        yield restored, replaced


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One direction: from which folder files come, and in which one the live ones are kept.

    `arriving` and `kept` are what lay in them before the first call; `strict` makes it an error
    that a live file is not the one of the list.
    """

    objects: Objects
    incoming: Callable[[int], str]
    outgoing: Callable[[int], str]
    arriving: Numbered
    kept: Numbered
    size_in: Callable[[Change], int | None]
    size_out: Callable[[Change], int | None]
    strict: bool

    def is_due(self, change: Change) -> bool:
        """Say whether anything is left to be done."""
        size = self.size_in(change)
        return size is None or self.arriving.size(change.number) == size

    def must_keep(self, change: Change) -> bool:
        """Say whether the live file is not kept yet."""
        size = self.size_out(change)
        return size is not None and self.kept.size(change.number) != size

    def run(self, change: Change, *, keep: bool) -> None:
        if keep:
            self._keep(change)
        size = self.size_in(change)
        if size is None:
            self.objects.delete(change.name)
        else:
            self.objects.move(self.incoming(change.number), change.name, size=size)

    def _keep(self, change: Change) -> None:
        expected = None
        if self.strict:
            expected = Found(change.name, change.before or 0, tag=change.tag)
        try:
            self.objects.set_aside(change.name, self.outgoing(change.number), expected=expected)
        except (FileNotFoundError, ChangedError) as error:
            if self.strict:
                raise changed_meanwhile(change.path) from error


def _exchange(side: Side, step: _Step) -> None:
    """Files that go leave first: in a storage with folders, one may stand where a folder comes."""
    for leaving in (True, False):
        each(
            lambda due: step.run(due[0], keep=due[1]),
            (
                (change, step.must_keep(change))
                for change in side.changes()
                if (step.size_in(change) is None) is leaving and step.is_due(change)
            ),
            side.objects.workers,
        )


def changed_meanwhile(path: bytes) -> RestoreError:
    return RestoreError(
        _("%(path)s was changed in the storage while the restore was under way"),
        hint=_("Stop what writes to it, and restore again."),
        path=shown(path),
    )
