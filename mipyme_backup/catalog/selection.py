"""Which rows a question is about."""

from __future__ import annotations

from django.db import connections
from django.db.models import Model, Q

from mipyme_backup.models import Backup, Task

MADE = (Backup.Status.COMPLETE, Backup.Status.PARTIAL)
"""The statuses of a run that made a backup."""

UNDER_WAY = (Task.Status.QUEUED, Task.Status.RUNNING)
"""The statuses of a task that waits for a worker, or has one."""


def ours(project: str) -> Q:
    """Those of a project, not of others in the same place; of old failed runs it is not known."""
    return Q(project__in=(project, ""))


def is_current(model: type[Model], using: str) -> bool:
    """Say whether the table of the model is there, with every column that the code knows.

    One that came out of a backup, or waits for `migrate`, may be older.
    """
    connection, table = connections[using], model._meta.db_table
    if table not in connection.introspection.table_names():
        return False
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, table)
    return {field.column for field in model._meta.local_concrete_fields} <= {
        column.name for column in columns
    }
