"""The files that the rows of a database name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from django.apps import apps
from django.core.files.storage import Storage
from django.db import connections, models
from django.db.models import QuerySet
from django.utils.functional import LazyObject, empty

from mipyme_backup.sources.postgresql import schemas

CHUNK_ROWS = 2000

FileField = models.FileField
ModelClass = type[models.Model]


class NamedFile(NamedTuple):
    """A file that a row names: in which schema the row lies, by which field, and how it is called.

    `schema` is None for a table that is found by the name that its model has. `name` is relative
    to the storage of `field`.
    """

    schema: str | None
    field: FileField
    name: str


def named_files(using: str, *, fields: Collection[FileField] | None = None) -> Iterator[NamedFile]:
    """Yield what every row names through the alias `using`, one pass for each table.

    Tables of every schema count, of all installed models or of the `fields` that are given. A
    file that several rows name comes several times. A column is missing where its migration is
    not applied yet. Nothing else may be asked through `using` before the last name has come.
    """
    wanted = {
        model: chosen
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
        and not model._meta.proxy
        and (chosen := [f for f in file_fields(model) if fields is None or f in fields])
    }
    if connections[using].vendor == "postgresql":
        yield from _in_all_schemas(using, wanted)
    else:
        yield from _by_name(using, wanted)


def file_fields(model: ModelClass) -> list[FileField]:
    """Return the file fields of `model`'s own table."""
    return [f for f in model._meta.local_fields if isinstance(f, models.FileField)]


def _by_name(using: str, wanted: dict[ModelClass, list[FileField]]) -> Iterator[NamedFile]:
    introspection = connections[using].introspection
    tables = set(introspection.table_names())
    for model, fields in wanted.items():
        table = model._meta.db_table
        if table in tables:
            with connections[using].cursor() as cursor:
                columns = {c.name for c in introspection.get_table_description(cursor, table)}
            yield from _names(model, using, [f for f in fields if f.column in columns])


def _in_all_schemas(using: str, wanted: dict[ModelClass, list[FileField]]) -> Iterator[NamedFile]:
    found = schemas.find_tables(using, {model._meta.db_table for model in wanted})
    tables = [*found.reached.values(), *(t for s in found.others.values() for t in s.values())]
    columns = schemas.columns_of(using, tables)
    for model, fields in wanted.items():
        table = found.reached.get(model._meta.db_table)
        if table is not None:
            present = [f for f in fields if f.column in columns[table.oid]]
            yield from _names(model, using, present)
    for schema, others in found.others.items():
        for model, fields in wanted.items():
            table = others.get(model._meta.db_table)
            if table is not None:
                present = [f for f in fields if f.column in columns[table.oid]]
                yield from _copied_names(schema, using, table, present)


def _names(model: ModelClass, using: str, fields: Sequence[FileField]) -> Iterator[NamedFile]:
    rows: Any = QuerySet(model, using=using).order_by()
    values = rows.values_list(*(field.name for field in fields)).iterator(chunk_size=CHUNK_ROWS)
    try:
        for row in values if fields else ():
            for field, name in zip(fields, row, strict=True):
                if name:
                    yield NamedFile(None, field, str(name))
    finally:
        values.close()


def _copied_names(
    schema: str, using: str, table: schemas.ModelTable, fields: Sequence[FileField]
) -> Iterator[NamedFile]:
    """Yield the names in a table of another schema, which may belong to a stranger."""
    connection: Any = connections[using]
    converters = [field.get_db_converters(connection) for field in fields]
    rows = schemas.copied(using, table, [str(f.column) for f in fields]) if fields else ()
    for row in rows:
        for field, convert, written in zip(fields, converters, row, strict=True):
            name: Any = written
            for converter in convert:
                name = converter(name, field.get_col(table.name, field), connection)
            if name:
                yield NamedFile(schema, field, str(name))


def storage_behind(storage: Any) -> Storage:
    """Return the storage behind ``default_storage``, which stands for whatever is configured."""
    if isinstance(storage, LazyObject) and storage._wrapped is empty:
        storage._setup()
    unwrapped: Storage = storage._wrapped if isinstance(storage, LazyObject) else storage
    return unwrapped
