"""The files of the project's storages: of the default one, and of each that a file field uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _
from mipyme_backup.sources.base import Artifact, Snapshot, Source, StoredIn, View
from mipyme_backup.sources.media.files import FileOptions, FileSource, escaped
from mipyme_backup.sources.media.storages import (
    DEFAULT,
    Kept,
    folder_of,
    kept_files,
    label_of,
    names_in,
    storage_called,
)
from mipyme_backup.sources.media.tables import Anywhere


class MediaSource(Source):
    """The files of the storages that the project's file fields use, and of the default one.

    `storages` names others: aliases of ``STORAGES``, or fields as ``app.Model.field``. `storage`
    is one alias that alone is saved. For the other options see `FileOptions`.
    """

    name = "media"

    def __init__(
        self,
        storage: str | None = None,
        *,
        storages: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(storages, str) or (storage is not None and storages is not None):
            raise ConfigurationError(
                _("storages of MediaSource must be a list of aliases, without storage beside it."),
            )
        self._only = storage
        self._names = [storage] if storage is not None else storages
        self._options = FileOptions(**options)

    def split(self) -> list[Source]:
        return [self._part(place.key) for place in kept_files(self._names)]

    def part(self, name: str) -> Source | None:
        """Return what saves one storage, also where no field uses it any more."""
        entry, _colon, key = name.partition(":")
        return self._part(key or self._only or DEFAULT) if entry == self.name else None

    def artifacts(self, view: View) -> Iterator[Artifact]:
        for source in self.split():
            yield from source.artifacts(view)

    def kept(self, key: str) -> Kept:
        """Return what is known of a storage; raises ConfigurationError for an unknown one."""
        places = kept_files(self._names)
        found = next((place for place in places if place.key == key), None)
        if found is not None:
            return found
        storage = storage_called(key)
        return Kept(key=key, storage=storage, folder=folder_of(storage))

    def _part(self, key: str) -> Source:
        own = key in (DEFAULT, self._only)
        name = self.name if own else f"{self.name}:{key}"
        return StorageSource(self, name, key, self._options)


class StorageSource(FileSource):
    """The files of one storage, by its alias or the field that alone uses it."""

    def __init__(self, media: MediaSource, name: str, key: str, options: FileOptions) -> None:
        super().__init__(options)
        self.name = name
        self.key = key
        self._media = media

    @property
    def index_stem(self) -> str:
        entry, colon, key = self.name.partition(":")
        return f"{escaped(entry)}.{escaped(key)}" if colon else escaped(entry)

    @property
    def tag(self) -> str:
        return super().tag if ":" in self.name else ""  # as earlier versions called theirs

    @property
    def location(self) -> Path | None:
        return self._kept.folder

    @property
    def remote_key(self) -> str | None:
        return self.key if self._kept.remote else None

    @property
    def stored_in(self) -> StoredIn:
        fields = self._kept.fields
        return StoredIn(
            aliases=self._kept.aliases,
            fields={label_of(field): prefix for field, prefix in fields.items()},
            in_context=[label_of(field) for field in self._kept.in_context],
        )

    def named_files(self, snapshots: Mapping[str, Snapshot]) -> Iterator[str | Anywhere]:
        for snapshot in snapshots.values():
            with snapshot.reading() as using:
                yield from names_in(self._kept, using)

    @cached_property
    def _kept(self) -> Kept:
        return self._media.kept(self.key)
