"""The guard of ``migrate``: a fresh backup before a migration that drops or rewrites something."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from django.db.migrations import Migration, operations
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder

from mipyme_backup import api
from mipyme_backup.errors import BackupError
from mipyme_backup.messages import Message, _
from mipyme_backup.translation import in_project_language, translated, warn

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
    with in_project_language():  # migrate itself speaks English
        _save(losing)


def _save(losing: Sequence[str]) -> None:
    warn(logger, _("Before %(names)s: taking a backup."), names=", ".join(losing))
    try:
        result = api.backup(
            kind="pre_deploy", label=f"before migrate: {losing[0]}"[: api.LABEL_LENGTH]
        )
    except BackupError as error:
        raise CommandError(_refusal(error)) from error
    text = _("The backup is %(name)s, %(status)s.")
    warn(logger, text, name=result.manifest.name, status=Message(result.status))


def _refusal(error: BackupError) -> str:
    text = _("Nothing was migrated, because no backup could be taken first: %(reason)s")
    lines = [
        Message(text, {"reason": error.message}),
        error.hint,
        Message(_("To migrate without one, set MIGRATE_GUARD in MIPYME_BACKUP to False.")),
    ]
    return "\n".join(filter(None, map(translated, lines)))


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
