"""The guard of ``migrate``: a fresh backup before a migration that drops or rewrites something."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from django.db.migrations import Migration, operations
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder
from django.utils.translation import gettext as _

from mipyme_backup import api
from mipyme_backup.errors import BackupError
from mipyme_backup.translation import translated

LOSING = (
    operations.AlterField,
    operations.DeleteModel,
    operations.RemoveField,
    operations.RunPython,
    operations.RunSQL,
)
"""What may lose data: AlterField narrows columns, and code may do whatever it likes."""

KNOWN = ("django.db.migrations.", "django.contrib.")
"""Where the operations come from of which the others lose nothing; nobody knows of any third."""

logger = logging.getLogger("mipyme_backup")


def guard(*, using: str, plan: Iterable[tuple[Migration, bool]] = (), **kwargs: Any) -> None:
    """Take a ``pre_deploy`` backup where the settings ask for it and the plan may lose data.

    A receiver of ``pre_migrate``. Raises CommandError, which stops ``migrate`` before its first
    change, where there is no good backup then.
    """
    if not api.guards_migrations():
        return
    applied = {
        app for app, _migration in MigrationRecorder(connections[using]).applied_migrations()
    }
    losing = [*losing_migrations(plan, applied)]
    if not losing:
        return
    logger.warning("Before %s: taking a backup.", ", ".join(losing))
    try:
        result = api.backup(
            kind="pre_deploy", label=f"before migrate: {losing[0]}"[: api.LABEL_LENGTH]
        )
    except BackupError as error:
        lines = [
            _("Nothing was migrated, because no backup could be taken first: %(reason)s")
            % {"reason": translated(error.message)},
            translated(error.hint),
            _("To migrate without one, set MIGRATE_GUARD in MIPYME_BACKUP to False."),
        ]
        raise CommandError("\n".join(filter(None, lines))) from error
    logger.warning("The backup is %s, %s.", result.manifest.name, result.status)


def losing_migrations(
    plan: Iterable[tuple[Migration, bool]], applied: Collection[str]
) -> Iterator[str]:
    """Yield the migrations of the plan that may lose data, of apps that have any yet.

    `applied` are the labels of those apps. A migration that is taken back may lose whatever it
    once added.
    """
    for migration, backwards in plan:
        if migration.app_label in applied and (
            backwards or any(_may_lose(operation) for operation in migration.operations)
        ):
            yield f"{migration.app_label}.{migration.name}"


def _may_lose(operation: Operation) -> bool:
    if isinstance(operation, operations.SeparateDatabaseAndState):
        return any(_may_lose(inner) for inner in operation.database_operations)
    return isinstance(operation, LOSING) or not type(operation).__module__.startswith(KNOWN)
