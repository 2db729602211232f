"""A source of several folders of files, each with an index of its own; they share their packs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Artifact, Source, View
from mipyme_backup.sources.content import check_lines
from mipyme_backup.sources.media.check import check_pack
from mipyme_backup.sources.media.collection import Collection
from mipyme_backup.sources.media.contents import FolderTree
from mipyme_backup.sources.media.packs import Packer


class ShelvesSource(Source):
    """Saves each of `folders` as a source of its own: ``<entry>:<key>``, ``<entry>`` for "".

    What one of them has packed in a run is not packed again by the next.
    """

    name = "shelves"

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = folders

    def split(self) -> list[Source]:
        written: list[Collection] = []
        return [
            Shelf(f"{self.name}:{key}" if key else self.name, Path(folder), written)
            for key, folder in self._folders.items()
        ]

    def artifacts(self, view: View) -> Iterator[Artifact]:
        raise NotImplementedError("its parts are saved")


class Shelf(Source):
    """One folder; `written` are the collections of those before it in this run."""

    def __init__(self, name: str, folder: Path, written: list[Collection]) -> None:
        self.name = name
        self._folder = folder
        self._written = written

    def artifacts(self, view: View) -> Iterator[Artifact]:
        packs = {pack for before in self._written for pack in before.facts()["packs"]}
        view = dataclasses.replace(
            view, previous=self._before, known_packs=view.known_packs | packs
        )
        collection = Collection(FolderTree(self._folder), view, root=self._folder)
        members = collection.members()
        with contextlib.closing(collection), contextlib.closing(members):
            for pack, reader in Packer(members, 2**20).packs():
                yield _pack(pack, reader)
            self._written.append(collection)
            yield Artifact(
                name=self.name.replace(":", ".") + ".index.jsonl",
                open=collection.index.open,
                check=check_lines,
                facts=lambda: self._facts(collection),
            )

    def _before(self, _name: str) -> Reader | None:
        return self._written[-1].index.open() if self._written else None

    def _facts(self, collection: Collection) -> dict[str, Any]:
        return {**collection.facts(), "place": str(self._folder)}


def _pack(pack: str, reader: Reader) -> Artifact:
    return Artifact(name="files.tar", pool=pack, open=lambda: reader, check=check_pack)
