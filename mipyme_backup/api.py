"""The public Python API: what the commands, tasks and pages call, and what other code may.

Every function is keyword-only, reads the settings, builds the parts, calls an operation, and
returns a frozen result whose ``to_dict()`` is what ``--json`` prints. All errors are
`mipyme_backup.errors.BackupError`.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings

from mipyme_backup import conf
from mipyme_backup.catalog import Catalog, needed, reading
from mipyme_backup.encryption.passphrase import read_secret
from mipyme_backup.errors import (
    AlertError,
    BackupError,
    DestinationError,
    KeyMissingError,
    SlotDoneError,
    UsageError,
    reason_of,
)
from mipyme_backup.messages import Message, _
from mipyme_backup.monitoring import heartbeat as heartbeats
from mipyme_backup.monitoring import last_look as last_looks
from mipyme_backup.monitoring import notifications
from mipyme_backup.monitoring import overview as overviews
from mipyme_backup.monitoring import recovery_sheet as sheets
from mipyme_backup.monitoring import status as monitoring
from mipyme_backup.monitoring.channels import channels_of
from mipyme_backup.monitoring.delivery import Delivery
from mipyme_backup.monitoring.last_look import LastLook
from mipyme_backup.monitoring.notifications import Watched
from mipyme_backup.monitoring.overview import Overview
from mipyme_backup.monitoring.status import Status
from mipyme_backup.monitoring.told import Records
from mipyme_backup.operations import backup as backup_operation
from mipyme_backup.operations import drill as drill_operation
from mipyme_backup.operations import drill_report, pins, rolling, scheduled
from mipyme_backup.operations import prune as prune_operation
from mipyme_backup.operations import restore as restore_operation
from mipyme_backup.operations import verify as verify_operation
from mipyme_backup.operations.backup import BackupResult
from mipyme_backup.operations.choosing import all_backups, listings
from mipyme_backup.operations.drill import DrillResult
from mipyme_backup.operations.listing import rows_of
from mipyme_backup.operations.pins import PinResult
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.prune import PruneResult
from mipyme_backup.operations.restore import RestoreResult
from mipyme_backup.operations.scheduled import Coming, Outcome
from mipyme_backup.operations.targets import Request as RestoreRequest
from mipyme_backup.operations.verify import Level, Verified
from mipyme_backup.parts import build_project, check_parts
from mipyme_backup.policy import checklist as checklists
from mipyme_backup.policy.status import Finding
from mipyme_backup.policy.status_facts import Facts, Policy
from mipyme_backup.policy.status_proof import DRILL_EVERY, VERIFY_WITHIN
from mipyme_backup.schedule import JOBS, Due
from mipyme_backup.translation import in_project_language, project_language, said, translated

KINDS = ("manual", "daily", "monthly", "pre_deploy")
LABEL_LENGTH = 200
STATUS_SECONDS = 30.0

__all__ = [
    "BackupResult",
    "Coming",
    "Delivery",
    "DrillResult",
    "Due",
    "LastLook",
    "Listed",
    "Objectives",
    "Outcome",
    "Overview",
    "PinResult",
    "PruneResult",
    "RestoreResult",
    "Status",
    "Verified",
    "Watched",
    "alert_channels",
    "backup",
    "backups",
    "build_project",
    "check_parts",
    "coming",
    "complete",
    "drill",
    "due",
    "guards_migrations",
    "heartbeat",
    "is_monitor",
    "last_look",
    "mark_checklist",
    "note_drill",
    "objectives",
    "overview",
    "pin",
    "preflight",
    "prune",
    "recovery_sheet",
    "restore",
    "run_due",
    "run_job",
    "status",
    "test_alert",
    "undo_restore",
    "verify",
    "watch",
]


class Silent:
    """Progress for callers who do not look."""

    def step(self, message: Message, total: int | None = None) -> None:
        """Ignore it."""

    def advance(self, size: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One backup as ``list_backups`` shows it."""

    row: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        copies = [
            {**copy, "error": said(copy["error"] or "") or None} for copy in self.row["copies"]
        ]
        return {
            **self.row,
            "warnings": [said(warning) for warning in self.row["warnings"]],
            "copies": copies,
        }


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What the policy promises: RPO and RTO."""

    rpo: timedelta
    rto: timedelta


def backup(
    *,
    kind: str = "manual",
    only: Sequence[str] = (),
    destinations: Sequence[str] = (),
    label: str = "",
    slot: datetime | None = None,
    wait: bool = False,
    progress: Progress | None = None,
) -> BackupResult:
    """Take a backup. `slot` is the moment it stands for; `wait` waits for the lock."""
    if kind not in KINDS:
        raise UsageError(
            _("There is no kind %(kind)s."),
            hint=_("Kinds: %(known)s"),
            kind=kind,
            known=", ".join(KINDS),
        )
    if len(label) > LABEL_LENGTH or not label.isprintable():
        raise UsageError(
            _("The label must be one line of at most %(limit)d characters."), limit=LABEL_LENGTH
        )
    request = backup_operation.Request(
        kind=kind, only=only, destinations=destinations, label=label, slot=slot
    )
    return backup_operation.run(build_project(), request, progress or Silent(), wait=wait)


def complete(
    *,
    identifier: str,
    destinations: Sequence[str] = (),
    progress: Progress | None = None,
) -> BackupResult:
    """Complete the copies of a backup on the `destinations`, without any on all that lack it.

    Only what a destination lacks, or holds damaged, is sent, from a copy that is good.
    """
    return backup_operation.complete(
        build_project(), identifier, destinations, progress or Silent()
    )


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
    progress: Progress | None = None,
) -> RestoreResult:
    """Restore a backup: `identifier`, the `latest`, or the newest `at` a moment.

    With `plan` nothing is changed: the result says what would be done. `in_place` replaces a
    PostgreSQL database in one transaction, for a role that may not create databases.
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
    )
    project = build_project()
    if plan:
        return restore_operation.plan(project, request)
    return restore_operation.run(project, request, progress or Silent())


def undo_restore(*, progress: Progress | None = None) -> RestoreResult:
    """Swap back what the last restore replaced."""
    return restore_operation.undo(build_project(), progress or Silent())


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
    return drill_operation.run(build_project(), request, progress or Silent(), wait=wait)


def verify(
    *,
    identifiers: Sequence[str] = (),
    latest: bool = False,
    destination: str | None = None,
    level: Level = "stored",
    progress: Progress | None = None,
) -> list[Verified]:
    """Verify the named backups, the latest, or (without either) all."""
    return verify_operation.run(
        build_project(),
        identifiers=identifiers,
        latest=latest,
        destination=destination,
        level=level,
        progress=progress or Silent(),
    )


def prune(
    *,
    destinations: Sequence[str] = (),
    dry_run: bool = False,
    wait: bool = False,
    progress: Progress | None = None,
) -> PruneResult:
    """Delete what the retention of each destination lets go; with `dry_run` only say what.

    `wait` waits for the lock.
    """
    return prune_operation.run(
        build_project(),
        destinations=destinations,
        dry_run=dry_run,
        wait=wait,
        progress=progress or Silent(),
    )


def due(*, now: datetime | None = None) -> list[Due]:
    """Return what the schedule has to be done now; `now` is aware, the present without it."""
    settings = conf.load()
    return scheduled.what_is_due(
        settings.state_dir, settings.schedule, now or datetime.now(UTC), _zone()
    )


def coming(*, now: datetime | None = None) -> list[Coming]:
    """Return each job of the schedule with what became of its last slot, and its next one."""
    settings = conf.load()
    known = scheduled.attempts(settings.state_dir)
    return scheduled.coming(known, settings.schedule, now or datetime.now(UTC), _zone())


def run_job(*, job: str, slot: datetime, progress: Progress | None = None) -> Outcome:
    """Do the work of a slot once, however often it is asked for; see `schedule.JOBS`.

    A backup waits for the lock. An error is the outcome's; raises UsageError for an unknown job
    and a naive slot.
    """
    if job not in JOBS or slot.tzinfo is None:
        raise UsageError(
            _("There is no job %(job)s with the slot %(slot)s."),
            hint=_("Jobs: %(known)s. A slot is a moment with its time zone."),
            job=job,
            slot=slot,
            known=", ".join(JOBS),
        )
    work = _works(progress or Silent())[job]
    with in_project_language():
        return scheduled.run_once(conf.load().state_dir, Due(job=job, slot=slot), work)


def run_due(*, progress: Progress | None = None) -> Iterator[Outcome]:
    """Do what is due, once, one after the other; yields each outcome when it is there."""
    for one in due():
        yield run_job(job=one.job, slot=one.slot, progress=progress)


def _works(progress: Progress) -> Mapping[str, Callable[[datetime], object]]:
    """Return what is done for the slot of each job."""
    return {
        "daily": lambda slot: _scheduled_backup("daily", slot, progress),
        "monthly": lambda slot: _scheduled_backup("monthly", slot, progress),
        "verify": lambda slot: rolling.run(build_project(), slot, progress),
        "prune": lambda slot: _scheduled_prune(progress),
        "status": lambda slot: _scheduled_look(),
        "drill": lambda slot: _scheduled_drill(progress),
    }


def _scheduled_backup(kind: str, slot: datetime, progress: Progress) -> BackupResult:
    """Take the backup of a slot, with the heartbeat told of its start and its end."""
    heartbeat("start", kind)
    try:
        result = backup(kind=kind, slot=slot, wait=True, progress=progress)
    except SlotDoneError as error:
        heartbeat("success", translated(error.message))
        raise
    except BaseException as error:
        heartbeat("fail", f"{kind}: {said(reason_of(error))}")
        raise
    heartbeat("success", f"{kind}: {result.manifest.name}, {result.status}")
    return result


def _scheduled_look() -> None:
    """Look and tell; raises AlertError where a channel could not be told."""
    for delivery in watch().deliveries:
        if delivery.failed:
            raise AlertError(
                _("An alert to %(channel)s has not arrived: %(reason)s"),
                hint=_("Send one by hand: manage.py backup_status --test-alert"),
                channel=delivery.channel,
                reason=delivery.error,
            )


def _scheduled_prune(progress: Progress) -> None:
    """Prune; raises what kept a destination from it.

    Where nothing may be pruned anywhere, another finding of `status` is to blame.
    """
    for pruned in prune(wait=True, progress=progress).destinations:
        if isinstance(pruned.error, DestinationError):
            raise pruned.error


def _scheduled_drill(progress: Progress) -> None:
    """Drill where this host can open its backups; what it finds is kept, and `status` tells."""
    with contextlib.suppress(KeyMissingError):
        drill(wait=True, progress=progress)


def _zone() -> ZoneInfo:
    return ZoneInfo(django_settings.TIME_ZONE)


def pin(*, identifier: str, pinned: bool = True) -> PinResult:
    """Pin a backup, so that no prune deletes it; without `pinned` take the pin away."""
    return pins.pin(build_project(), identifier, pinned=pinned)


def backups(*, destination: str | None = None, sync: bool = False) -> list[Listed]:
    """Return the backups, newest first: from the catalog, or from the destinations themselves.

    The destinations are read where one is named, where `sync` asks for it (which rebuilds the
    catalog from them), and where the catalog cannot be read or is empty.
    """
    project = build_project()
    if sync:
        project.catalog.sync(listings(project, [*project.destinations]))
    rows = None if destination else project.catalog.rows()
    if not rows:
        rows = rows_of(all_backups(project, destination))
    return [Listed(row=row) for row in rows]


def status(*, timeout: float = STATUS_SECONDS) -> Status:
    """Return how the backups are; a destination silent for `timeout` seconds is unreachable.

    A small object is written to each destination that can be listed, and deleted again: only so
    is it known whether it takes backups, and lets us delete. Raises UsageError for a timeout
    that is not above zero.
    """
    return _status(build_project(retry_for=timeout / 4), timeout)


def watch(*, timeout: float = STATUS_SECONDS, now: datetime | None = None) -> Watched:
    """Look as `status` does, and tell the channels of ALERTS what they do not know yet.

    No channel raises; what could not be sent is sent by the next look. Where the look itself fails,
    that is told, and its error raised.
    """
    settings = conf.load()
    records, channels = Records(settings.state_dir), channels_of(settings.alerts)
    records.prepare()
    digest = settings.alerts["digest"]
    try:
        seen = _status(build_project(retry_for=timeout / 4), timeout, now)
    except UsageError:
        raise
    except Exception as error:
        blind = _unseen(settings, [_cannot_tell(error)], now)
        last_looks.keep(Catalog(), blind)
        notifications.tell(blind, channels, records, digest=digest, sees_all=False)
        raise
    return notifications.tell(seen, channels, records, digest=digest)


def last_look(*, now: datetime | None = None) -> LastLook:
    """Return what the last `status` or `watch` saw, from the catalog, without a look of its own.

    That none was taken for too long is a critical finding; raises ConfigurationError alone.
    """
    return _last_look(conf.load(), now or datetime.now(UTC))


def _last_look(settings: conf.Settings, now: datetime) -> LastLook:
    return last_looks.read(
        Catalog(),
        settings.project,
        expression=settings.schedule["status"],
        max_age=settings.alerts["max_age"],
        now=now,
        zone=_zone(),
    )


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
        zone=_zone(),
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


def note_drill(*, drill_id: str, notes: str) -> None:
    """Keep what was found and done after a drill; raises CatalogError where that cannot be."""
    Catalog().note_drill(drill_id, notes)


def _checklist_lines(settings: conf.Settings) -> Sequence[str]:
    return drill_report.DISASTER if settings.checklist is None else settings.checklist


def is_monitor(token: str) -> bool:
    """Say whether `token` is the one of MONITORING_TOKEN_FILE; False where the settings have none.

    Raises EncryptionError where the file cannot be read, or not safely.
    """
    path = conf.load().monitoring_token_file
    return path is not None and hmac.compare_digest(token.encode(), read_secret(path))


def alert_channels() -> list[str]:
    """Return the names of the channels of ALERTS: without any, nobody is told of anything."""
    return [channel.name for channel in channels_of(conf.load().alerts)]


def test_alert() -> list[Delivery]:
    """Send a test message to each channel of ALERTS, and return what became of each."""
    settings = conf.load()
    return notifications.test(_unseen(settings, [], None), channels_of(settings.alerts))


def heartbeat(event: heartbeats.Event, text: str = "") -> Delivery | None:
    """Ping the heartbeat of ALERTS: ``start``, ``success`` or ``fail``; None where there is none.

    `text` goes along, and must hold no secret. A ping that fails is a warning in the log, and never
    raises; UsageError is for an event that does not exist.
    """
    if event not in heartbeats.EVENTS:
        raise UsageError(_("There is no event %(event)s of a heartbeat."), event=event)
    url = conf.load().alerts["heartbeat_url"]
    return None if url is None else heartbeats.ping(url, event, text)


def _unseen(settings: conf.Settings, findings: Sequence[Finding], now: datetime | None) -> Status:
    """Return a status without a look."""
    return Status(
        project=settings.project,
        host=socket.gethostname(),
        at=now or datetime.now(UTC),
        facts=Facts(destinations=[], backups=[]),
        findings=findings,
    )


def _cannot_tell(error: Exception) -> Finding:
    reason: object = type(error).__name__
    hint = Message(_("Run it by hand, that says more: manage.py backup_status"))
    if isinstance(error, BackupError):
        reason, hint = error.message, error.hint if error.hint.text else hint
    return Finding(
        id="cannot_tell",
        level="critical",
        message=Message(_("How the backups are cannot be told: %(reason)s"), {"reason": reason}),
        hint=hint,
    )


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
    return sheets.render(project, _status(project, timeout), promises, language=language)


def _status(project: Project, timeout: float, now: datetime | None = None) -> Status:
    if not timeout > 0:
        raise UsageError(_("The timeout must be above zero."))
    settings = conf.load()
    alerts, schedule = settings.alerts, settings.schedule
    policy = Policy(
        max_age=alerts["max_age"],
        min_size=alerts["min_size"],
        min_free_disk=alerts["min_free_disk"],
        max_shrink=alerts["max_shrink"],
        rto=settings.rto,
        verify_within=VERIFY_WITHIN if schedule["verify"] else None,
        drill_every=DRILL_EVERY if schedule["drill"] else None,
        review=settings.policy_review,
    )
    seen = monitoring.take(
        project,
        policy,
        schedule=schedule,
        host=socket.gethostname(),
        seconds=timeout,
        now=now,
    )
    last_looks.keep(project.catalog, seen)
    return seen


def guards_migrations() -> bool:
    """Say whether ``migrate`` is to take a backup before it may lose data."""
    return conf.load().migrate_guard


def preflight() -> list[Message]:
    """Return what is doubtful about backing up here; raises what makes it impossible.

    Looks at the tools, the key and the databases, and writes nothing.
    """
    project = build_project()
    return backup_operation.preflight(project, [*project.sources.values()])
