"""Backup: lock, one consistent view, artifacts to every destination, read back, commit."""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import django
from django.conf import settings

import mipyme_backup
from mipyme_backup import signals
from mipyme_backup.destinations import Destination
from mipyme_backup.errors import BackupError, UsageError, reason_of
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import all_backups, check_sources
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import Found
from mipyme_backup.operations.recovery import settle
from mipyme_backup.operations.saving import Saving
from mipyme_backup.operations.sequence import next_sequence
from mipyme_backup.operations.writing import Writer, new_id
from mipyme_backup.sources.base import Source


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for. `destinations` and `only` are names, empty for all."""

    kind: str = "manual"
    only: Sequence[str] = ()
    destinations: Sequence[str] = ()
    label: str = ""
    slot: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class BackupResult:
    """One backup as a caller sees it; sizes in bytes, `sha256` that of the manifest."""

    manifest: Manifest
    sha256: str
    copies: Mapping[str, BackupError | None] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return "partial" if any(self.copies.values()) else "complete"

    def to_dict(self) -> dict[str, Any]:
        return {
            **described(self.manifest, self.sha256),
            "status": self.status,
            "pinned": False,
            "copies": [
                {
                    "destination": name,
                    "status": "failed" if error else "complete",
                    "error": str(error) if error else None,
                }
                for name, error in self.copies.items()
            ],
        }


def described(manifest: Manifest, sha256: str) -> dict[str, Any]:
    """Return what a manifest says of a backup, as the JSON of ``list_backups``."""
    return {
        "id": manifest.id,
        "name": manifest.name,
        "kind": manifest.kind,
        "label": manifest.label,
        "started_at": manifest.started_at.isoformat(),
        "finished_at": manifest.finished_at.isoformat(),
        "raw_size": manifest.raw_size,
        "stored_size": manifest.stored_size,
        "sha256": sha256,
        "sources": [source.name for source in manifest.sources],
        "warnings": list(manifest.warnings),
    }


def run(
    project: Project, request: Request, progress: Progress, *, wait: bool = False
) -> BackupResult:
    """Take one backup; raises LockedError, and whatever keeps all destinations from having it."""
    with project.lock("backup", wait=wait):
        settle(project)
        return take(project, request, progress)


def take(project: Project, request: Request, progress: Progress) -> BackupResult:
    """Take one backup with the lock held already."""
    sources = choose_sources(project, request.only)
    destinations = {name: project.destinations[name] for name in _destinations(project, request)}
    warnings, failures = _preflight(project, sources, destinations)
    earlier = [item for item in all_backups(project) if item.manifest] if destinations else []
    warnings += _scarce_space(destinations, failures, earlier)
    backup_id, started_at = new_id(), datetime.now(UTC)
    name = _free_name(backup_name(request, started_at), destinations, failures)
    project.catalog.start(backup_id, name, request.kind, request.label, request.slot, started_at)
    with project.work_folder() as work:
        writer = Writer(project, destinations, backup_id=backup_id, name=name, spool=work)
        writer.failures.update(failures)
        try:
            saved = Saving(project, sources, writer, work, progress, earlier).run()
            manifest = Manifest(
                id=backup_id,
                name=name,
                kind=request.kind,
                label=request.label,
                slot=request.slot,
                project=project.name,
                started_at=started_at,
                snapshot_at=saved.snapshot_at,
                finished_at=datetime.now(UTC),
                sequence=next_sequence(project, earlier),
                sources=saved.sources,
                packs=saved.packs,
                whole=not request.only,
                host=socket.gethostname(),
                versions=_versions(),
                migrations=saved.migrations,
                warnings=tuple(str(warning) for warning in [*warnings, *saved.warnings]),
                encryption=project.encryption.method if project.encryption else None,
                key_fingerprint=project.encryption.key_fingerprint if project.encryption else None,
            )
            progress.step(Message(_("Reading back what was stored")))
            data = writer.commit(manifest, writer.packs.values())
        except BaseException as error:
            writer.forget()
            project.catalog.fail(backup_id, reason_of(error))
            signals.backup_failed.send_robust(sender=take, error=error)
            raise
    copies = {name: writer.failures.get(name) for name in destinations}
    result = BackupResult(manifest=manifest, sha256=hashlib.sha256(data).hexdigest(), copies=copies)
    project.catalog.finish(manifest, result.sha256, copies)
    signals.backup_finished.send_robust(sender=take, result=result)
    return result


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


def _destinations(project: Project, request: Request) -> list[str]:
    for name in request.destinations:
        if name not in project.destinations:
            raise UsageError(
                _("There is no destination %(name)s."),
                hint=_("Known destinations: %(known)s"),
                name=name,
                known=", ".join(project.destinations),
            )
    return [
        name
        for name in project.destinations
        if not request.destinations or name in request.destinations
    ]


def _preflight(
    project: Project, sources: Sequence[Source], destinations: Mapping[str, Any]
) -> tuple[list[Message], dict[str, BackupError]]:
    """Return warnings, and why destinations cannot be used; raise where no work is possible."""
    if project.encryption is not None:
        project.encryption.preflight()
    warnings = [warning for source in sources for warning in source.preflight()]
    failures: dict[str, BackupError] = {}
    for name, destination in destinations.items():
        try:
            destination.check()
        except BackupError as error:
            failures[name] = error
    _some_left(destinations, failures)
    return warnings, failures


def _scarce_space(
    destinations: Mapping[str, Destination],
    failures: dict[str, BackupError],
    earlier: Sequence[Found],
) -> list[Message]:
    """Warn where the last backup would not fit again; adds the destinations that do not tell.

    A warning, because this one may be smaller, and one that does not fit is removed again.
    """
    warnings = []
    last = max((item.manifest for item in earlier if item.manifest), key=_sequence, default=None)
    needed = sum(a.stored_size for s in last.sources for a in s.artifacts) if last else 0
    for name, destination in destinations.items():
        if name in failures:
            continue
        try:
            free = destination.free_space()
        except BackupError as error:
            failures[name] = error
            continue
        if free is not None and free < needed:
            text = _("%(name)s has %(free)d bytes free, and the last backup took %(needed)d.")
            warnings.append(Message(text, {"name": name, "free": free, "needed": needed}))
    _some_left(destinations, failures)
    return warnings


def _sequence(manifest: Manifest) -> int:
    return manifest.sequence


def _free_name(
    name: str, destinations: Mapping[str, Destination], failures: dict[str, BackupError]
) -> str:
    """Return `name`, with a number where it is taken; adds the destinations that do not tell."""
    taken: set[str] = set()
    for alias, destination in destinations.items():
        if alias not in failures:
            try:
                taken |= {e.name.rpartition("/")[0] for e in destination.entries(name)}
            except BackupError as error:
                failures[alias] = error
    _some_left(destinations, failures)
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _some_left(destinations: Mapping[str, Any], failures: Mapping[str, BackupError]) -> None:
    if len(failures) == len(destinations):
        raise next(iter(failures.values()))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "mipyme_backup": mipyme_backup.__version__,
    }
