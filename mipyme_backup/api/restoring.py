"""Restores: for good, undone, and rehearsed."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mipyme_backup import conf
from mipyme_backup.api.given import Silent
from mipyme_backup.api.watching import ends_with_check
from mipyme_backup.catalog import Catalog
from mipyme_backup.errors import UsageError
from mipyme_backup.messages import _
from mipyme_backup.operations import drill as drill_operation
from mipyme_backup.operations import drill_report
from mipyme_backup.operations import restore as restore_operation
from mipyme_backup.operations import undo as undo_operation
from mipyme_backup.operations.project import Progress
from mipyme_backup.operations.targets import Request as RestoreRequest
from mipyme_backup.parts import build_project
from mipyme_backup.results import DrillResult, RestoreResult
from mipyme_backup.translation import project_language


def restore(
    *,
    identifier: str | None = None,
    latest: bool = False,
    at: datetime | None = None,
    destination: str | None = None,
    only: Sequence[str] = (),
    plan: bool = False,
    migrate: bool = False,
    safety_backup: bool = True,
    to_database: str | None = None,
    to_media: Path | None = None,
    in_place: bool = False,
    other_origin: bool = False,
    progress: Progress | None = None,
) -> RestoreResult:
    """Restore a backup: `identifier`, the `latest`, or the newest `at` a moment.

    With `plan` nothing is changed: the result says what would be done. `in_place` replaces a
    PostgreSQL database in one transaction, for a role that may not create databases. A backup of
    another database or host than what it would replace raises OtherOriginError, unless with
    `other_origin`; the result of a plan says what speaks against it.
    """
    if sum([identifier is not None, latest, at is not None]) != 1:
        raise UsageError(
            _("Say which backup to restore: an ID, or --latest, or --at."),
            hint=_("list_backups shows those that there are."),
        )
    request = RestoreRequest(
        identifier=identifier,
        at=at,
        destination=destination,
        only=only,
        safety_backup=safety_backup,
        migrate=migrate,
        to_database=to_database,
        to_media=to_media,
        in_place=in_place,
        other_origin=other_origin,
    )
    project = build_project()
    if plan:
        return restore_operation.plan(project, request)
    with ends_with_check(project):
        return restore_operation.run(project, request, progress or Silent())


def undo_restore(
    *, plan: bool = False, safety_backup: bool = True, progress: Progress | None = None
) -> RestoreResult:
    """Swap back what the last restore replaced; with `plan` only say what that would be.

    What is put aside is saved first, unless without `safety_backup`.
    """
    project = build_project()
    if plan:
        return undo_operation.plan(project, safety_backup=safety_backup)
    with ends_with_check(project):
        return undo_operation.run(project, progress or Silent(), safety_backup=safety_backup)


def drill(
    *,
    identifier: str | None = None,
    destination: str | None = None,
    language: str | None = None,
    wait: bool = False,
    progress: Progress | None = None,
) -> DrillResult:
    """Rehearse the restore of a backup, the newest without an `identifier`.

    It goes into a database and a folder that are removed again. `language` is that of the
    report's page, ``en`` or ``es``, without it the project's; raises UsageError for any other.
    `wait` waits for the lock.
    """
    language = language or project_language()
    if language not in drill_report.LANGUAGES:
        raise UsageError(
            _("There is no report of a drill in the language %(language)s."),
            hint=_("Languages: %(known)s"),
            language=language,
            known=", ".join(drill_report.LANGUAGES),
        )
    settings = conf.load()
    request = drill_operation.Request(
        identifier=identifier,
        destination=destination,
        assertions=settings.drill_assertions,
        rto=settings.rto,
        report=drill_report.Asked(
            language=language, checklist=settings.checklist, host=socket.gethostname()
        ),
    )
    project = build_project()
    with ends_with_check(project):
        return drill_operation.run(project, request, progress or Silent(), wait=wait)


def note_drill(*, drill_id: str, notes: str) -> None:
    """Keep what was found and done after a drill; raises CatalogError where that cannot be."""
    Catalog().note_drill(drill_id, notes)
