"""What people read: the health page, its checklist, and the recovery sheet to print."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings as django_settings

from mipyme_backup import conf
from mipyme_backup.api.given import zone
from mipyme_backup.api.watching import STATUS_SECONDS, look_at
from mipyme_backup.catalog import Catalog, needed, reading
from mipyme_backup.errors import BackupError, UsageError
from mipyme_backup.messages import _
from mipyme_backup.monitoring import last_look as last_looks
from mipyme_backup.monitoring import overview as overviews
from mipyme_backup.monitoring import recovery_sheet as sheets
from mipyme_backup.monitoring.databases import facts_by_memory
from mipyme_backup.monitoring.last_look import LastLook
from mipyme_backup.monitoring.overview import Overview
from mipyme_backup.operations import drill_report
from mipyme_backup.parts import build_project
from mipyme_backup.policy import checklist as checklists
from mipyme_backup.policy.status_databases import lost_findings
from mipyme_backup.translation import project_language


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What the policy promises: RPO and RTO."""

    rpo: timedelta
    rto: timedelta


def is_ours(*, project: str) -> bool:
    """Say whether a row of the catalog is this project's: others may share it.

    Of runs that failed under an old version the project is not known: they count as ours.
    """
    return project in ("", conf.load().project)


def last_look(*, now: datetime | None = None) -> LastLook:
    """Return what the last `status` or `watch` saw, from the catalog, without a look of its own.

    That none was taken for too long is a critical finding; raises ConfigurationError alone.
    """
    return _last_look(conf.load(), now or datetime.now(UTC))


def _last_look(settings: conf.Settings, now: datetime) -> LastLook:
    """Return the last look; where it was lost with its database, that is said first."""
    look = last_looks.read(
        Catalog(),
        settings.project,
        expression=settings.schedule["status"],
        max_age=settings.alerts["max_age"],
        now=now,
        zone=zone(),
    )
    if look.at is not None or all(finding.id != "cannot_tell" for finding in look.findings):
        return look
    with contextlib.suppress(BackupError):
        lost = lost_findings(facts_by_memory(build_project()))
        return replace(look, findings=[*lost, *look.findings])
    return look


def overview(*, now: datetime | None = None) -> Overview:
    """Return what the page of the admin shows; no destination is touched for it.

    A catalog that cannot be read is told in the overview; raises ConfigurationError alone.
    """
    settings, moment = conf.load(), now or datetime.now(UTC)
    promises = overviews.Promises(
        project=settings.project,
        rpo=settings.rpo,
        rto=settings.rto,
        max_age=settings.alerts["max_age"],
        destinations=[*settings.destinations],
        schedule=settings.schedule,
        contacts=settings.contacts,
        review=settings.policy_review,
    )
    return overviews.gather(
        promises,
        look=_last_look(settings, moment),
        state_dir=settings.state_dir,
        lines=_checklist_lines(settings),
        now=moment,
        zone=zone(),
    )


def objectives() -> Objectives:
    """Return how much data may be lost, and how long a restore may take."""
    settings = conf.load()
    return Objectives(rpo=settings.rpo, rto=settings.rto)


def mark_checklist(*, action: checklists.Action, line: str = "", by: str) -> bool:
    """Tick off a line of the disaster checklist, take that back, or begin a fresh one.

    `by` says who. Returns False where it is so already, as when two people tick off one line.
    Raises UsageError for a line that is not in the checklist, CatalogError where the catalog cannot
    be written to.
    """
    settings = conf.load()
    with needed():
        entries = reading.checklist_entries(settings.project)
    now = checklists.checklist(_checklist_lines(settings), entries)
    if not now.needs(action, line):
        if action != "began" and line not in now.texts:
            raise UsageError(
                _("The checklist has no line like this: %(line)s"),
                hint=_("CHECKLIST has been changed since. Load the page again."),
                line=line,
            )
        return False
    entry = checklists.Entry(action=action, line=line, at=datetime.now(UTC), by=by)
    Catalog().note_checklist(settings.project, entry)
    return True


def _checklist_lines(settings: conf.Settings) -> Sequence[str]:
    return drill_report.DISASTER if settings.checklist is None else settings.checklist


def recovery_sheet(*, language: str | None = None, timeout: float = STATUS_SECONDS) -> str:
    """Return the page to print, in Markdown, by a look as `status` takes it.

    `language` is ``en`` or ``es``, without it the project's; raises UsageError for any other.
    """
    language = language or project_language()
    if language not in sheets.LANGUAGES:
        raise UsageError(
            _("There is no recovery sheet in the language %(language)s."),
            hint=_("Languages: %(known)s"),
            language=language,
            known=", ".join(sheets.LANGUAGES),
        )
    project, settings = build_project(retry_for=timeout / 4), conf.load()
    options = settings.encryption.options if settings.encryption else {}
    promises = sheets.Promises(
        folder=Path(getattr(django_settings, "BASE_DIR", None) or Path.cwd()),
        rpo=settings.rpo,
        rto=settings.rto,
        key_files=sheets.key_files(options, settings.signing_key_file),
        recipients=options.get("recipients", ()),
        keyring=Path(options["home"]) if options.get("home") else None,
        contacts=settings.contacts,
        checklist=settings.checklist,
        review=settings.policy_review,
    )
    return sheets.render(project, look_at(project, timeout), promises, language=language)
