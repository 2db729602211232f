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


def has_table(model: type[Model], using: str) -> bool:
    """Say whether the table is there: backups, and databases before `migrate`, may be older."""
    return model._meta.db_table in connections[using].introspection.table_names()
