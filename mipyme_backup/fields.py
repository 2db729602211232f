"""The fields of the catalog's tables: Django's own, for any text, document and time zone.

A migration writes them as Django's, so that a table never changes for them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from mipyme_backup import stored_shapes
from mipyme_backup.printable import printable, printable_value

Set_contra = TypeVar("Set_contra", contravariant=True)
Get_co = TypeVar("Get_co", covariant=True)

if TYPE_CHECKING:
    _CharField = models.CharField[Any, str]
    _TextField = models.TextField[Any, str]

    class _DateTimeField(models.DateTimeField[Set_contra, Get_co]): ...
else:
    _CharField, _TextField = models.CharField, models.TextField
    # No field of Django can be indexed at run time; this one can, to the same end.
    _DateTimeField = {(Set_contra, Get_co): models.DateTimeField}


class CharField(_CharField):
    """A short text that any database takes, whatever it came from."""

    def get_prep_value(self, value: Any) -> Any:
        return _clean(super().get_prep_value(value))

    def deconstruct(self) -> Any:
        return _as_of_django(self, super().deconstruct())


class TextField(_TextField):
    """A text that any database takes, whatever it came from."""

    def get_prep_value(self, value: Any) -> Any:
        return _clean(super().get_prep_value(value))

    def deconstruct(self) -> Any:
        return _as_of_django(self, super().deconstruct())


class JSONField(models.JSONField):
    """A document whose texts any database takes, whatever they came from.

    It is read in its `shape`, without what does not fit: see `stored_shapes`.
    """

    def __init__(
        self, *args: Any, shape: stored_shapes.Shape = stored_shapes.anything, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._shape = shape

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        try:
            return self._shape(super().from_db_value(value, expression, connection))
        except (ValueError, RecursionError):  # the latter of a text that is nested too deep
            return self.get_default()

    def get_prep_value(self, value: Any) -> Any:
        return printable_value(super().get_prep_value(value))

    def deconstruct(self) -> Any:
        return _as_of_django(self, super().deconstruct())


class MomentField(_DateTimeField[Set_contra, Get_co]):
    """A moment: aware in Python, whatever USE_TZ says, and the same one when that is changed.

    Without USE_TZ, Django keeps local times, of which one hour of each autumn comes twice. Here a
    database that knows no time zones keeps UTC, as it does with USE_TZ, and one that knows them is
    asked in UTC. What has no time zone is taken for local: the admin's filters have such.
    """

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        if isinstance(value, datetime) and timezone.is_naive(value):
            return timezone.make_aware(value, timezone.get_default_timezone())
        return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if not prepared:
            value = self.get_prep_value(value)
        if isinstance(value, datetime) and not settings.USE_TZ and not self._has_zone(connection):
            value = timezone.make_naive(value, UTC)
        return super().get_db_prep_value(value, connection, prepared=True)

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        if not settings.USE_TZ and self._has_zone(compiler.connection):
            sql = f"({sql} AT TIME ZONE 'UTC')"
        return sql, params

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if isinstance(value, datetime) and timezone.is_naive(value):
            return value.replace(tzinfo=UTC)
        return value

    def deconstruct(self) -> Any:
        return _as_of_django(self, super().deconstruct())

    def _has_zone(self, connection: Any) -> bool:
        return "with time zone" in (self.db_type(connection) or "")


def _clean(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _as_of_django(field: models.Field[Any, Any], parts: Any) -> Any:
    """Return what a migration writes of a field: the table is that of Django's own field."""
    name, _path, args, kwargs = parts
    return name, f"django.db.models.{field.get_internal_type()}", args, kwargs
