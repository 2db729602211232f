"""Where the files of a restore lie beside the live ones: two folders of ours in the storage.

In the *side* lies what is to be swapped in, each file called by its number in the index, and the
index itself. *Before* holds what was replaced, under the same numbers, and the list of what the
swap changes. Three small files are marks, for one that is there is there whole: ``loaded`` in the
side, when all of it is there; ``begun`` in before, from the first change of a live file until the
last one is undone; ``swapped``, when there is nothing left to change.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.index import FileRecord, read_records
from mipyme_backup.sources.media.names import from_text, to_text
from mipyme_backup.sources.media.remote.listing import Numbered
from mipyme_backup.sources.media.remote.objects import OWN, Content, Objects, content_of

IN_A_FOLDER = 1000
"""Files in one folder, where a storage has folders: a million in one are slow to list."""


class Change(NamedTuple):
    """A live file that the swap changes, with the sizes of what is there before and after.

    None means that there is none: the file goes, or is new. `tag` is that of what is there before.
    """

    number: int
    path: bytes
    before: int | None
    after: int | None
    tag: str = ""

    @property
    def name(self) -> str:
        return to_text(self.path)


class Side:
    """The two folders of one restore."""

    def __init__(self, objects: Objects, restore_id: str) -> None:
        self.objects = objects
        self.side = f"{OWN}restoring_{restore_id}/"
        self.before = f"{OWN}before_{restore_id}/"
        self._index = f"{self.side}index.jsonl"
        self._changes = f"{self.before}changes.jsonl"
        self._loaded = f"{self.side}loaded"
        self._begun = f"{self.before}begun"
        self._swapped = f"{self.before}swapped"

    def restored(self, number: int) -> str:
        """Return the name of a file of the index in the side."""
        return f"{self.side}files/{number // IN_A_FOLDER}/{number}"

    def replaced(self, number: int) -> str:
        """Return the name of a file that was live before."""
        return f"{self.before}files/{number // IN_A_FOLDER}/{number}"

    def restored_sizes(self) -> Numbered:
        return Numbered(self.objects.below(f"{self.side}files/"))

    def replaced_sizes(self) -> Numbered:
        return Numbered(self.objects.below(f"{self.before}files/"))

    # The side

    @property
    def loaded(self) -> bool:
        return self._is_marked(self._loaded)

    def finish(self, index: IO[bytes]) -> None:
        """Put the index to the files, and say that the side is whole."""
        self._put(self._index, index)
        self._mark(self._loaded)

    def files(self) -> Iterator[tuple[int, FileRecord]]:
        """Yield the files of the index with their numbers, from one on."""
        number = 0
        with self._fetched(self._index) as file:
            for record in read_records(file):
                if isinstance(record, FileRecord):
                    number += 1
                    yield number, record

    def remove_restored(self) -> None:
        self.objects.delete(self._loaded)
        self.objects.remove_below(self.side)

    # Before

    @property
    def begun(self) -> bool:
        return self._is_marked(self._begun)

    @property
    def swapped(self) -> bool:
        return self._is_marked(self._swapped)

    def begin(self, changes: Iterable[Change]) -> None:
        with tempfile.TemporaryFile() as file:
            file.writelines(_line(change) for change in changes)
            self._put(self._changes, file)
        self._mark(self._begun)

    def changes(self) -> Iterator[Change]:
        with self._fetched(self._changes) as file:
            yield from map(_parsed, file)

    def mark_swapped(self) -> None:
        self._mark(self._swapped)

    def unmark_swapped(self) -> None:
        self.objects.delete(self._swapped)

    def remove_replaced(self) -> None:
        """Remove what was replaced; first of all the mark, for a part of it brings nothing back."""
        self.objects.delete(self._begun)
        self.objects.remove_below(self.before)

    def _put(self, name: str, file: IO[bytes]) -> None:
        size = file.tell()
        file.seek(0)
        self.objects.put(name, Content(iter(lambda: file.read(CHUNK), b""), size))

    def _fetched(self, name: str) -> IO[bytes]:
        """Return a file without a name: what is read slowly, a service does not wait for."""
        file = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            file.writelines(self.objects.chunks(name))
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _mark(self, name: str) -> None:
        self.objects.put(name, content_of(b"yes\n"))

    def _is_marked(self, name: str) -> bool:
        return self.objects.stat(name) is not None


def _line(change: Change) -> bytes:
    fields = [change.number, to_text(change.path), change.before, change.after, change.tag]
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Change:
    number, path, before, after, tag = json.loads(line)
    return Change(number, from_text(path), before, after, tag)
