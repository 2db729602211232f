"""The files that the rows of a database name."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.db import connections, models
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
    introspection = connections[using].introspection
    tables = set(introspection.table_names())
    for model in apps.get_models(include_auto_created=True):
        table = model._meta.db_table
        prefixes = _prefixes(model, wanted)
        if prefixes and model._meta.managed and not model._meta.proxy and table in tables:
            with connections[using].cursor() as cursor:
                columns = {c.name for c in introspection.get_table_description(cursor, table)}
            # A column is missing where its migration is not applied yet.
            present = {f: prefix for f, prefix in prefixes.items() if f.column in columns}
            yield from _names(model, using, present)


def _names(
    model: type[models.Model], using: str, prefixes: dict[models.FileField, str]
) -> Iterator[str]:
    rows: Any = QuerySet(model, using=using).order_by()
    values = rows.values_list(*(field.name for field in prefixes)).iterator(chunk_size=CHUNK_ROWS)
    try:
        for row in values if prefixes else ():
            for name, prefix in zip(row, prefixes.values(), strict=True):
                if name:
                    yield prefix + str(name)
    finally:
        values.close()


def _prefixes(model: type[models.Model], wanted: Storage) -> dict[models.FileField, str]:
    prefixes = {
        field: _prefix(_unwrapped(field.storage), wanted)
        for field in model._meta.local_fields
        if isinstance(field, models.FileField)
    }
    return {field: prefix for field, prefix in prefixes.items() if prefix is not None}


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
    if isinstance(storage, LazyObject) and storage._wrapped is empty:
        storage._setup()
    unwrapped: Storage = storage._wrapped if isinstance(storage, LazyObject) else storage
    return unwrapped
