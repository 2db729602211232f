"""The files that the rows of a database name."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.db import connections, models, transaction
from django.db.models import QuerySet
from django.utils.functional import LazyObject, empty

CHUNK_ROWS = 2000


def file_names(using: str, *, storage: str = "default") -> Iterator[str]:
    """Yield the name of every file that a row names in the storage `storage` of ``STORAGES``.

    Rows are read through the alias `using`, one pass for each table that the database has; a
    name that several rows share comes several times. A field with a `FileSystemStorage` of its
    own counts where its folder is the storage's or lies in it. Names are relative to `storage`.
    """
    wanted = _unwrapped(storages[storage])
    tables = set(connections[using].introspection.table_names())
    for model in apps.get_models(include_auto_created=True):
        if model._meta.managed and not model._meta.proxy and model._meta.db_table in tables:
            prefixes = dict(_prefixes(model, wanted))
            if prefixes:
                yield from _names(model, using, prefixes)


def _names(model: type[models.Model], using: str, prefixes: dict[str, str]) -> Iterator[str]:
    with transaction.atomic(using=using):  # a savepoint, should a column not be there yet
        rows: Any = QuerySet(model, using=using).order_by().values_list(*prefixes)
        values = rows.iterator(chunk_size=CHUNK_ROWS)
        try:
            for row in values:
                for name, prefix in zip(row, prefixes.values(), strict=True):
                    if name:
                        yield prefix + str(name)
        finally:
            values.close()


def _prefixes(model: type[models.Model], wanted: Storage) -> Iterator[tuple[str, str]]:
    for field in model._meta.local_fields:
        if isinstance(field, models.FileField):
            prefix = _prefix(_unwrapped(field.storage), wanted)
            if prefix is not None:
                yield field.name, prefix


def _prefix(storage: Storage, wanted: Storage) -> str | None:
    """Return what stands before names of `storage` in `wanted`, None where they are elsewhere."""
    if storage == wanted:
        return ""
    if isinstance(storage, FileSystemStorage) and isinstance(wanted, FileSystemStorage):
        relative = os.path.relpath(
            os.path.realpath(storage.location), os.path.realpath(wanted.location)
        )
        if relative == os.curdir:
            return ""
        if relative.split(os.sep)[0] != os.pardir:
            return relative.replace(os.sep, "/") + "/"
    return None


def _unwrapped(storage: Any) -> Storage:
    """Return the storage behind ``default_storage``, which stands for whatever is configured."""
    if isinstance(storage, LazyObject):
        if storage._wrapped is empty:
            storage._setup()
        return storage._wrapped
    return storage
