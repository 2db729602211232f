"""Where a project keeps files: every storage that a file field of an installed model uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getattr_static
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.db.models import FileField
from django.utils.functional import LazyObject

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.messages import _
from mipyme_backup.sources.file_fields import file_fields, named_files, storage_behind
from mipyme_backup.sources.media.tables import Anywhere

DEFAULT = "default"
UNUSABLE = (Exception,)
"""What making a storage raises: any storage of a third party may raise anything."""


@dataclass(kw_only=True)
class Kept:
    """One place where files are kept, and what is kept there.

    `key` is an alias of ``STORAGES``, or the label of the first field whose own storage it is.
    `folder` is where all its files lie, in any context; None where it is no folder, or has
    none. `aliases` say in which folder of it other storages lie ("" for itself), `fields` what
    stands before the names of each field. Those `in_context` have a folder that depends on who
    asks: their names say how a path ends. A storage that cannot be made is a `problem`.
    """

    key: str
    storage: Storage | None
    problem: ConfigurationError | None = None
    folder: Path | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    fields: dict[FileField, str] = field(default_factory=dict)
    in_context: set[FileField] = field(default_factory=set)

    @property
    def remote(self) -> bool:
        """Whether the files lie elsewhere than in a folder; raises ConfigurationError."""
        if self.problem is not None:
            raise self.problem
        return not isinstance(self.storage, FileSystemStorage)


def kept_files(names: Sequence[str] | None = None) -> list[Kept]:
    """Return the places of the storages `names` (aliases, or fields as ``app.Model.field``).

    Without names, that of the default storage and of each that a file field uses. A folder that
    lies in another one of them is part of that.
    """
    used = [(found, _storage_of(found)) for found in _all_fields()]
    places: list[Kept] = []
    for place in _all_places(names, used):
        if not any(_is_same(other.storage, place.storage) for other in places):
            places.append(place)
    outer = [place for place in places if _around(place, places) is None]
    for place in places:
        holder = _around(place, outer) or place
        prefix = _prefix(place.folder, holder.folder)
        if place.key in storages.backends:
            holder.aliases[place.key] = prefix.rstrip("/")
        for found, storage in used:
            if _is_same(storage, place.storage):
                holder.fields[found] = prefix
                if storage is not None and is_in_context(storage):
                    holder.in_context.add(found)
    return outer


def names_in(place: Kept, using: str) -> Iterator[str | Anywhere]:
    """Yield each file of the place that a row names, through the alias `using` of a database.

    A file that several rows name comes several times. Names are relative to the place's folder.
    """
    for named in named_files(using, fields=place.fields.keys()):
        if named.field in place.in_context:
            yield Anywhere(named.schema or "", named.name)
        else:
            yield place.fields[named.field] + named.name


def folders_of_fields() -> dict[str, Path]:
    """Return the folders that file fields name themselves, by field; no storage is made for it."""
    found: dict[str, Path] = {}
    for named in _all_fields():
        storage = named.storage
        if not isinstance(storage, LazyObject) and isinstance(storage, FileSystemStorage):
            folder = folder_of(storage)
            if folder is not None:
                found[label_of(named)] = folder
    return found


def aliases_of_fields() -> set[str]:
    """Return the aliases whose storages file fields use; none is made that no field has made."""
    made = getattr(storages, "_storages", {})
    used = [found.storage for found in _all_fields() if not isinstance(found.storage, LazyObject)]
    return {alias for alias, storage in made.items() if any(storage is one for one in used)}


def configured_storages() -> dict[str, Storage]:
    """Return the storages of ``STORAGES`` that can be made, by alias: no field uses the others."""
    found = {}
    for alias in storages.backends:
        with contextlib.suppress(*UNUSABLE):
            found[alias] = storages[alias]
    return found


def storage_called(key: str) -> Storage:
    """Return the storage of an alias, or of a field as ``app.Model.field``.

    Raises ConfigurationError for what is neither, and for a storage that cannot be used.
    """
    if key in storages.backends:
        try:
            return storages[key]
        except UNUSABLE as error:
            raise ConfigurationError(
                _("The storage %(alias)s, which keeps the media, cannot be used: %(reason)s"),
                hint=_(
                    'Look at its OPTIONS in STORAGES. S3 needs pip install "mipyme_backup[s3]",'
                    ' SFTP pip install "mipyme_backup[sftp]".'
                ),
                alias=key,
                reason=error,
            ) from error
    for found in _all_fields():
        if label_of(found) == key:
            return storage_behind(found.storage)
    raise ConfigurationError(
        _("The media source names the storage %(alias)s, which STORAGES does not have"),
        hint=_("Set its OPTIONS to an alias of STORAGES, or to a file field: app.Model.field"),
        alias=key,
    )


def folder_of(storage: Storage) -> Path | None:
    """Return the folder below which all files of a storage lie; None where it has none.

    One that depends on context has a root that does not: its own, or ``MEDIA_ROOT``.
    """
    if not isinstance(storage, FileSystemStorage):
        return None
    if is_in_context(storage):
        root = getattr(storage, "_location", None) or settings.MEDIA_ROOT
        try:
            now: Any = storage.location
        except UNUSABLE:
            now = root  # there is no context here
        if not now:
            return None
        within = root and _is_within(Path(now), Path(root))
        return Path(os.path.abspath(root if within else now))
    # Without MEDIA_ROOT, Django takes the working directory: that is not media.
    if os.fspath(storage.base_location) in ("", "."):
        return None
    return Path(storage.location)


def is_in_context(storage: Storage) -> bool:
    """Say whether a class of the project computes its folder each time it is asked."""
    if not isinstance(storage, FileSystemStorage):
        return False
    return any(
        getattr_static(type(storage), name) is not getattr_static(FileSystemStorage, name)
        for name in ("base_location", "location", "path")
    )


def label_of(found: FileField) -> str:
    """Return the name of a field as the settings write it: ``app.Model.field``."""
    return f"{found.model._meta.label}.{found.name}"


def place_called(key: str) -> Kept:
    """Return the place of one storage, by its alias or a field; its fields are not looked for."""
    try:
        storage = storage_called(key)
    except ConfigurationError as error:
        return Kept(key=key, storage=None, problem=error)
    return Kept(key=key, storage=storage, folder=folder_of(storage))


def _all_places(
    names: Sequence[str] | None, used: Sequence[tuple[FileField, Storage | None]]
) -> Iterator[Kept]:
    """Yield what is kept, by alias where it has one, else by the first field; the default first."""
    if names is not None:
        yield from map(place_called, names)
        return
    if DEFAULT in storages.backends:
        yield place_called(DEFAULT)
    aliases = configured_storages()
    for found, storage in used:
        if storage is not None:
            alias = next((a for a, known in aliases.items() if _is_same(known, storage)), None)
            yield Kept(key=alias or label_of(found), storage=storage, folder=folder_of(storage))


def _storage_of(found: FileField) -> Storage | None:
    """Return the storage of a field; None where that is the default one, and cannot be made."""
    try:
        return storage_behind(found.storage)
    except UNUSABLE:
        return None


def _all_fields() -> list[FileField]:
    models = apps.get_models(include_auto_created=True)
    return [found for model in models if not model._meta.proxy for found in file_fields(model)]


def _is_same(one: Storage | None, other: Storage | None) -> bool:
    if one is other:
        return True
    if one is None or other is None:
        return False
    if isinstance(one, FileSystemStorage) and isinstance(other, FileSystemStorage):
        folders = {os.path.realpath(f) for f in (folder_of(one), folder_of(other)) if f}
        return len(folders) == 1 and None not in (folder_of(one), folder_of(other))
    return (
        type(one) is type(other)
        and _made_with(one) is not None
        and (_made_with(one) == _made_with(other))
    )


def _made_with(storage: Storage) -> Mapping[str, Any] | None:
    """Return the arguments that a storage was made with, where it tells."""
    deconstruct = getattr(storage, "deconstruct", None)
    if deconstruct is None:
        return None
    _path, args, kwargs = deconstruct()
    return {"": args, **kwargs}


def _around(place: Kept, places: Sequence[Kept]) -> Kept | None:
    """Return the outermost of `places` whose folder holds that of `place`; None for none."""
    holders = [
        other
        for other in places
        if other is not place
        and place.folder is not None
        and other.folder is not None
        and _is_within(place.folder, other.folder)
    ]
    return min(holders, key=lambda other: len(os.path.realpath(str(other.folder))), default=None)


def _is_within(path: Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _prefix(folder: Path | None, holder: Path | None) -> str:
    """Return what stands before the names of `folder` in `holder`."""
    if folder is None or holder is None:
        return ""
    relative = os.path.relpath(os.path.realpath(folder), os.path.realpath(holder))
    return "" if relative == os.curdir else relative.replace(os.sep, "/") + "/"
