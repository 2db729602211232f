"""Backup: lock, one consistent view, artifacts to every destination, read back, commit."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import django
from django.conf import settings

import mipyme_backup
from mipyme_backup import signals
from mipyme_backup.destinations import Destination
from mipyme_backup.errors import BackupError, DestinationError, SlotDoneError, reason_of
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations import emptiness
from mipyme_backup.operations.choosing import check_destination, check_sources
from mipyme_backup.operations.lanes import Lanes
from mipyme_backup.operations.layout import RECOVERY_PROGRAM
from mipyme_backup.operations.looking import PATIENCE_SECONDS, look_around
from mipyme_backup.operations.notes import RunNote
from mipyme_backup.operations.origin import generic_name_warnings
from mipyme_backup.operations.owed import complete_by_hand, complete_owed
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import Holdings
from mipyme_backup.operations.recovery import settled
from mipyme_backup.operations.recovery_program import program_sha256, replaced_text
from mipyme_backup.operations.room import check_room
from mipyme_backup.operations.saving import Saved, Saving
from mipyme_backup.operations.sequence import (
    hidden_newest,
    made_elsewhere,
    next_sequence,
    note_newest,
)
from mipyme_backup.operations.spool import spool_folder
from mipyme_backup.operations.writing import Writer, new_id
from mipyme_backup.results import BackupResult
from mipyme_backup.sources.base import Source


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for. `destinations` and `only` are names, empty for all.

    With `allow_empty` a database without the project's tables is saved beside backups of it.
    """

    kind: str = "manual"
    only: Sequence[str] = ()
    destinations: Sequence[str] = ()
    label: str = ""
    slot: datetime | None = None
    allow_empty: bool = False


def run(
    project: Project, request: Request, progress: Progress, *, wait: bool = False
) -> BackupResult:
    """Take one backup, then complete copies of earlier ones that some destination lacks.

    Raises LockedError, SlotDoneError where the slot has its backup, and whatever keeps all
    destinations from having it.
    """
    with project.lock("backup", wait=wait), settled(project):
        _check_slot(project, request)
        result = take(project, request, progress)
        complete_owed(project, result.failed, progress)
        return result


def _check_slot(project: Project, request: Request) -> None:
    """Raise SlotDoneError where another run came first, on this host or on another."""
    if request.slot is not None:
        name = project.catalog.of_slot(project.name, request.kind, request.slot)
        if name is not None:
            raise SlotDoneError(
                _("The %(kind)s backup of %(slot)s is there already: %(name)s"),
                kind=request.kind,
                slot=request.slot.isoformat(),
                name=name,
            )


def complete(
    project: Project, identifier: str, destinations: Sequence[str], progress: Progress
) -> BackupResult:
    """Complete the copies of an earlier backup; `destinations` are names, empty for all."""
    manifest, data, copies = complete_by_hand(project, identifier, destinations, progress)
    return _result(project, manifest, data, copies)


def take(project: Project, request: Request, progress: Progress) -> BackupResult:
    """Take one backup with the lock held already."""
    sources = choose_sources(project, request.only)
    destinations = _destinations(project, request)
    backup_id, started_at = new_id(), datetime.now(UTC)
    name = backup_name(request, started_at)
    project.catalog.start(
        project.name, backup_id, name, request.kind, request.label, request.slot, started_at
    )
    try:
        with Lanes(destinations) as lanes, project.work_folder() as work:
            started = _Started(id=backup_id, name=name, at=started_at, work=work)
            result = _store(project, request, sources, lanes, started, progress)
    except BaseException as error:
        project.catalog.fail(backup_id, reason_of(error))
        signals.backup_failed.send_robust(sender=take, error=error)
        raise
    project.catalog.finish(result.manifest, result.sha256, result.copies)
    signals.backup_finished.send_robust(sender=take, result=result)
    return result


@dataclass(frozen=True, kw_only=True)
class _Started:
    """A run that has begun; `name` is what it would be called, `work` its private folder."""

    id: str
    name: str
    at: datetime
    work: Path


def _store(
    project: Project,
    request: Request,
    sources: Sequence[Source],
    lanes: Lanes,
    started: _Started,
    progress: Progress,
) -> BackupResult:
    """Save the sources, and commit."""
    empty = emptiness.without_tables(project, sources) if request.kind != "safety" else []
    warnings = preflight(project, sources)
    seconds = emptiness.SECONDS if empty else PATIENCE_SECONDS
    held = look_around(
        project, lanes, at_all=bool(empty) or request.kind == "monthly", seconds=seconds
    )
    empty = emptiness.lost(project, empty, held, asked=[*lanes], allow=request.allow_empty)
    warnings += emptiness.warnings(empty)
    warnings += hidden_newest(project, (b for one in held.values() for b in one.backups))
    last = _last(held)
    warnings += generic_name_warnings(project, _has_backups(project, held))
    check_room(last, {source.name for source in sources}, project.volume_size)
    warnings += _scarce_space(lanes, held, last)
    warnings += [replaced_text(name) for name, one in held.items() if one.program_changed]
    places = [lane.destination for lane in lanes.values()]
    with spool_folder(started.work, places, project.volume_size) as spool:
        name = _free_name(project, started, request, held, lanes)
        note = RunNote(project, started.id, name=name, destinations=[*lanes])
        writer = Writer(project, lanes, note, spool=spool)
        try:
            note.write()
            saved = Saving(project, sources, writer, started.work, progress, held).run()
            manifest = Manifest(
                id=started.id,
                name=name,
                kind=request.kind,
                label=request.label,
                slot=request.slot,
                project=project.name,
                started_at=started.at,
                snapshot_at=saved.snapshot_at,
                finished_at=datetime.now(UTC),
                sequence=next_sequence(project, held),
                sources=saved.sources,
                packs=saved.packs,
                whole=not request.only and not empty,
                empty=bool(empty),
                host=socket.gethostname(),
                versions=_versions(),
                migrations=saved.migrations,
                warnings=tuple(str(warning) for warning in _all_warnings(project, warnings, saved)),
                encryption=project.encryption.method if project.encryption else None,
                key_fingerprint=project.encryption.key_fingerprint if project.encryption else None,
            )
            # The lock is as good as its session, which may have ended while this host slept.
            _check_slot(project, request)
            progress.step(Message(_("Confirming what each destination holds")))
            data = writer.commit(manifest)
            note_newest(project, manifest)
            failures = writer.make_room()
        except BaseException as error:
            if not writer.committed:
                writer.forget()
            if writer.committed:  # be it that a lane was just about to
                _keep_committed(project, writer, manifest, lanes, error)
            raise
        copies = {name: failures.get(name) for name in lanes}
        return _result(project, manifest, data, copies)


def _result(
    project: Project,
    manifest: Manifest,
    data: bytes,
    copies: Mapping[str, BackupError | None],
) -> BackupResult:
    return BackupResult(
        manifest=manifest,
        sha256=hashlib.sha256(data).hexdigest(),
        copies=copies,
        summaries={
            saved.name: source.describe(saved.facts)
            for saved in manifest.sources
            if (source := project.find_source(saved.name)) is not None
        },
    )


def _keep_committed(
    project: Project, writer: Writer, manifest: Manifest, lanes: Lanes, error: BaseException
) -> None:
    """Record what a run made that was ended early; its note has the next one complete the rest."""
    note_newest(project, manifest)
    lacking = BackupError(
        _("The run ended before this copy was complete: %(reason)s"), reason=reason_of(error)
    )
    copies = {name: None if name in writer.committed else lacking for name in lanes}
    project.catalog.finish(manifest, hashlib.sha256(writer.manifest_bytes).hexdigest(), copies)


def _all_warnings(project: Project, warnings: Sequence[Message], saved: Saved) -> list[Message]:
    ignored = [error.message for error in project.ignored.values()]
    return [*warnings, *saved.warnings, *ignored]


def choose_sources(project: Project, only: Sequence[str]) -> list[Source]:
    """Return the sources that the names mean (``database`` means all its aliases)."""
    check_sources(project, only)
    return [
        source
        for known, source in project.sources.items()
        if not only or known in only or known.partition(":")[0] in only
    ]


def backup_name(request: Request, now: datetime) -> str:
    """Return the folder's name: UTC, save that a monthly one is named by its local month."""
    if request.kind == "monthly":
        month = (request.slot or now).astimezone(ZoneInfo(settings.TIME_ZONE))
        return f"monthly/mipyme_backup_{month:%Y%m}"
    prefix = {
        "daily": "mipyme_backup",
        "manual": "manual",
        "pre_deploy": "pre_deploy",
        "safety": "safety_before_restore",
    }[request.kind]
    return f"{prefix}_{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _destinations(project: Project, request: Request) -> dict[str, Destination]:
    """Return the destinations asked for.

    A safety backup is for the next hours, and a restore must not wait for an upload: it stays
    on this machine where there is a place for it.
    """
    for name in request.destinations:
        check_destination(project, name)
    wanted = request.destinations or [*project.destinations]
    if request.kind == "safety":
        wanted = [name for name in wanted if not project.destinations[name].remote] or wanted
    return {name: place for name, place in project.destinations.items() if name in wanted}


def preflight(project: Project, sources: Sequence[Source]) -> list[Message]:
    """Return warnings; raise what makes it impossible to save or to encrypt."""
    warnings = [] if project.encryption is None else project.encryption.preflight()
    return warnings + [warning for source in sources for warning in source.preflight()]


def _last(held: Mapping[str, Holdings]) -> Manifest | None:
    """Return the newest backup that can be read."""
    earlier = [item.manifest for one in held.values() for item in one.backups if item.manifest]
    return max(earlier, key=lambda manifest: manifest.sequence, default=None)


def _has_backups(project: Project, held: Mapping[str, Holdings]) -> bool:
    """Say whether the project has made a backup before, as far as that can be seen."""
    found = (item.manifest for one in held.values() for item in one.backups if item.manifest)
    if any(manifest.project == project.name for manifest in found):
        return True
    return project.catalog.newest_sequence(project.name) > 0


def _scarce_space(
    lanes: Lanes, held: Mapping[str, Holdings], last: Manifest | None
) -> list[Message]:
    """Warn where the last backup would not fit again.

    A warning, because this one may be smaller, and one that does not fit is removed again.
    """
    needed = sum(a.stored_size for s in last.sources for a in s.artifacts) if last else 0
    warnings = []
    for name in held:
        with contextlib.suppress(DestinationError):
            free = lanes[name].destination.free_space()
            if free is not None and free < needed:
                text = _("%(name)s has %(free)d bytes free, and the last backup took %(needed)d.")
                warnings.append(Message(text, {"name": name, "free": free, "needed": needed}))
    return warnings


def _free_name(
    project: Project,
    started: _Started,
    request: Request,
    held: Mapping[str, Holdings],
    lanes: Lanes,
) -> str:
    """Return what the backup would be called, with a number where that is taken somewhere.

    The id makes it unique where another host, without our lock and catalog, may take the same
    second; and where a destination has not said which months it holds.
    """
    unknown = request.kind == "monthly" and not lanes.keys() <= held.keys()
    if unknown or made_elsewhere(project, held):
        return f"{started.name}_{started.id}"
    taken = {path.rpartition("/")[0] for one in held.values() for path in one.sizes}
    taken |= project.catalog.names_of_others(project.name, started.id, started.name)
    candidate, number = started.name, 1
    while candidate in taken:
        number += 1
        candidate = f"{started.name}_{number}"
    return candidate


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "mipyme_backup": mipyme_backup.__version__,
        RECOVERY_PROGRAM: program_sha256(),
    }
