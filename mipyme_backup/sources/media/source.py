"""The files of the project's storages: of the default one, and of each that a file field uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import Message, _
from mipyme_backup.sources.base import Artifact, Facts, Snapshot, Source, StoredIn, View
from mipyme_backup.sources.file_fields import named_files
from mipyme_backup.sources.media.files import FileOptions, FileSource, escaped
from mipyme_backup.sources.media.storages import (
    DEFAULT,
    Kept,
    aliases_of_fields,
    kept_files,
    label_of,
    names_in,
    place_called,
)
from mipyme_backup.sources.media.tables import Anywhere


class MediaSource(Source):
    """The files of the storages that the project's file fields use, and of the default one.

    `storages` names others: aliases of ``STORAGES``, or fields as ``app.Model.field``; `storage`
    is one alias that alone is saved. `exclude` names those that are left out on purpose; what file
    fields keep in any other that is not saved is counted and told. For the other options see
    `FileOptions`.
    """

    name = "media"

    def __init__(
        self,
        storage: str | None = None,
        *,
        storages: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        **options: Any,
    ) -> None:
        for option, names in (("storages", storages), ("exclude", exclude)):
            if isinstance(names, str):
                raise ConfigurationError(
                    _("%(option)s of MediaSource must be a list of aliases or fields."),
                    option=option,
                )
        if storage is not None and storages is not None:
            raise ConfigurationError(_("MediaSource takes either storage or storages."))
        self._only = storage
        self._names = [storage] if storage is not None else storages
        self._exclude = frozenset(exclude)
        self._options = FileOptions(**options)

    @property
    def aliases(self) -> set[str]:
        """The aliases of what is saved, as far as they are known without making a storage."""
        saved = {DEFAULT, *aliases_of_fields()} if self._names is None else {*self._names}
        return saved - self._exclude

    def split(self) -> list[Source]:
        return [self._part(place) for place in self._places()]

    def part(self, name: str) -> Source | None:
        """Return what saves one storage, also where no field uses it any more."""
        entry, _colon, key = name.partition(":")
        if entry != self.name:
            return None
        key = key or self._only or DEFAULT
        found = next((place for place in self._places() if place.key == key), None)
        return self._part(found or place_called(key))

    def artifacts(self, view: View) -> Iterator[Artifact]:
        for source in self.split():
            yield from source.artifacts(view)

    def unsaved(self) -> list[Kept]:
        """Return where file fields keep what is neither saved nor left out on purpose."""
        saved = {field for place in self._places() for field in place.fields}
        others = [place for place in kept_files() if place.key not in self._exclude]
        for place in others:
            place.fields = {f: prefix for f, prefix in place.fields.items() if f not in saved}
        return [place for place in others if place.fields]

    def _places(self) -> list[Kept]:
        return [place for place in kept_files(self._names) if place.key not in self._exclude]

    def _part(self, place: Kept) -> Source:
        own = place.key in (DEFAULT, self._only)
        name = self.name if own else f"{self.name}:{place.key}"
        required = own or self._names is not None
        return StorageSource(self, name, place, self._options, required=required)


class StorageSource(FileSource):
    """The files of one storage. The default one tells of what no source saves."""

    def __init__(
        self, media: MediaSource, name: str, place: Kept, options: FileOptions, *, required: bool
    ) -> None:
        super().__init__(options, required=required)
        self.name = name
        self._media = media
        self._place = place
        self._unsaved: Counter[tuple[str, str, str]] = Counter()

    @property
    def index_stem(self) -> str:
        entry, colon, key = self.name.partition(":")
        return f"{escaped(entry)}.{escaped(key)}" if colon else escaped(entry)

    @property
    def tag(self) -> str:
        return super().tag if ":" in self.name else ""  # as earlier versions called theirs

    @property
    def location(self) -> Path | None:
        return None if self._place.remote else self._place.folder

    @property
    def remote_key(self) -> str | None:
        return self._place.key if self._place.remote else None

    @property
    def stored_in(self) -> StoredIn:
        fields = self._place.fields
        return StoredIn(
            aliases=self._place.aliases,
            fields={label_of(field): prefix for field, prefix in fields.items()},
            in_context=[label_of(field) for field in self._place.in_context],
        )

    def named_files(self, snapshots: Mapping[str, Snapshot]) -> Iterator[str | Anywhere]:
        self._unsaved.clear()
        unsaved = self._media.unsaved() if ":" not in self.name else []
        if self._is_left_out:
            unsaved.append(self._place)
        for snapshot in snapshots.values():
            with snapshot.reading() as using:
                for place in unsaved:
                    for named in named_files(using, fields=place.fields.keys()):
                        key = (place.key, label_of(named.field), named.schema or "")
                        self._unsaved[key] += 1
                if not self._is_left_out:
                    yield from names_in(self._place, using)

    def completed(self, facts: Facts) -> Facts:
        """Return the facts, with how many files rows name that are not saved, by field."""
        facts = super().completed(facts)
        if not self._unsaved:
            return facts
        counts = [
            {"storage": storage, "field": field, "schema": schema, "rows": rows}
            for (storage, field, schema), rows in sorted(self._unsaved.items())
        ]
        return {**facts, "unsaved": counts}

    def unsaved_warnings(self) -> list[Message]:
        return [
            Message(
                _(
                    "%(rows)d files named by %(field)s are not saved, because SOURCES does not save"
                    " the storage %(storage)s (add it to storages, or to exclude if that is"
                    " intended)"
                ),
                {
                    "rows": rows,
                    "field": f"{schema}.{field}" if schema else field,
                    "storage": storage,
                },
            )
            for (storage, field, schema), rows in sorted(self._unsaved.items())
        ]
