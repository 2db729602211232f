"""Backup: lock, one consistent view, artifacts to every destination, read back, commit."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import random
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import django
from django.conf import settings
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

import mipyme_backup
from mipyme_backup import signals
from mipyme_backup.errors import BackupError, SourceBusyError, UsageError
from mipyme_backup.manifest import Manifest, SavedSource, StoredArtifact
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import all_backups
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import Found, open_artifact
from mipyme_backup.operations.recovery import recover, remove_expired
from mipyme_backup.operations.writing import Writer, new_id, sweep_unfinished
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Snapshot, Source, View
from mipyme_backup.sources.file_fields import file_names

ATTEMPTS = 4
BACKOFF_SECONDS = 2.0
MEDIA_INDEX = "media.index.jsonl"


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


def run(project: Project, request: Request, progress: Progress, *, wait: bool = False) -> BackupResult:
    """Take one backup; raises LockedError, and whatever keeps all destinations from having it."""
    with project.lock("backup", wait=wait):
        recover(project)
        for backup_id in sweep_unfinished(project):
            project.catalog.abandon(backup_id)
        project.sweep_work()
        remove_expired(project)
        return take(project, request, progress)


def take(project: Project, request: Request, progress: Progress) -> BackupResult:
    """Take one backup with the lock held already."""
    sources = choose_sources(project, request.only)
    destinations = {name: project.destinations[name] for name in _destinations(project, request)}
    warnings, failures = _preflight(project, sources, destinations)
    earlier = [item for item in all_backups(project) if item.manifest] if destinations else []
    backup_id, started_at = new_id(), datetime.now(UTC)
    name = _free_name(backup_name(request, started_at), destinations)
    project.catalog.start(backup_id, name, request.kind, request.label, request.slot, started_at)
    with project.work_folder() as work:
        writer = Writer(project, destinations, backup_id=backup_id, name=name, spool=work)
        writer.failures.update(failures)
        try:
            run = _Run(project, request, sources, writer, work, progress, earlier)
            saved, packs, migrations, snapshot_at = run.save_patiently()
            manifest = Manifest(
                id=backup_id,
                name=name,
                kind=request.kind,
                label=request.label,
                slot=request.slot,
                project=project.name,
                started_at=started_at,
                snapshot_at=snapshot_at,
                finished_at=datetime.now(UTC),
                sequence=1 + max((i.manifest.sequence for i in earlier if i.manifest), default=0),
                sources=tuple(saved),
                packs=tuple(packs),
                whole=not request.only,
                host=socket.gethostname(),
                versions=_versions(),
                migrations=migrations,
                warnings=tuple(str(warning) for warning in [*warnings, *run.warnings]),
                encryption=project.encryption.method if project.encryption else None,
                key_fingerprint=project.encryption.key_fingerprint if project.encryption else None,
            )
            progress.step(Message(_("Reading back what was stored")))
            data = writer.commit(manifest, writer.packs.values())
        except BaseException as error:
            writer.forget()
            project.catalog.fail(backup_id, str(error))
            signals.backup_failed.send_robust(sender=take, error=error)
            raise
    copies = {name: writer.failures.get(name) for name in destinations}
    result = BackupResult(manifest=manifest, sha256=hashlib.sha256(data).hexdigest(), copies=copies)
    project.catalog.finish(manifest, result.sha256, copies)
    signals.backup_finished.send_robust(sender=take, result=result)
    return result


def choose_sources(project: Project, only: Sequence[str]) -> list[Source]:
    """Return the sources that the names mean (``database`` means all its aliases)."""
    for name in only:
        if not any(name in {known, known.partition(":")[0]} for known in project.sources):
            raise UsageError(
                _("There is no source %(name)s."),
                hint=_("Known sources: %(known)s"),
                name=name,
                known=", ".join(project.sources),
            )
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


class _Run:
    """The reading of all sources, tried again whole while somebody is in the way."""

    def __init__(
        self,
        project: Project,
        request: Request,
        sources: Sequence[Source],
        writer: Writer,
        work: Path,
        progress: Progress,
        earlier: Iterable[Found],
    ) -> None:
        self.warnings: list[Message] = []
        self._project = project
        self._sources = sources
        self._writer = writer
        self._work = work
        self._progress = progress
        self._earlier = _by_age(project, earlier)

    def save_patiently(
        self,
    ) -> tuple[list[SavedSource], list[StoredArtifact], dict[str, list[str]], datetime]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._save_all()
            except SourceBusyError:
                if attempt == ATTEMPTS:
                    raise
                self._progress.step(Message(_("Somebody waits behind us: releasing, trying again")))
                self.warnings.clear()
                self._writer.start_again()
                time.sleep(BACKOFF_SECONDS * attempt * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError("unreachable")

    def _save_all(
        self,
    ) -> tuple[list[SavedSource], list[StoredArtifact], dict[str, list[str]], datetime]:
        saved: list[SavedSource] = []
        expected: list[str] = []
        migrations: dict[str, list[str]] = {}
        with contextlib.ExitStack() as stack:
            snapshots = self._open_snapshots(stack)
            snapshot_at = datetime.now(UTC)
            view = View(snapshots=snapshots)
            for source in self._sources:
                if source.needs_snapshot:
                    saved.append(self._save(source, view))
            for alias, snapshot in snapshots.items():
                migrations[alias] = _applied_migrations(snapshot)
            if any(source.name == "media" for source in self._sources):
                expected = _expected_files(snapshots, self._project.media.storage)
        known = self._known_packs()
        view = View(
            previous_media=self._previous_media,
            known_packs=frozenset(known),
            expected_files=expected,
        )
        for source in self._sources:
            if not source.needs_snapshot:
                saved.append(self._save(source, view))
        packs = {**known, **self._writer.packs}
        referenced = sorted(
            {
                pack
                for source in saved
                for facts in source.facts.values()
                for pack in facts.get("packs", ())
            }
        )
        return saved, [packs[pack] for pack in referenced], migrations, snapshot_at

    def _open_snapshots(self, stack: contextlib.ExitStack) -> dict[str, Snapshot]:
        databases = self._project.databases
        wanted = {
            source.name.partition(":")[2] for source in self._sources if source.needs_snapshot
        }
        aliases = databases.aliases if "" in wanted or not wanted else sorted(wanted)
        snapshots = {}
        for alias in aliases:
            self._progress.step(
                Message(_("Opening a consistent view of %(alias)s"), {"alias": alias})
            )
            snapshot = databases.open_snapshot(
                alias, work_dir=self._work, without_rows=self._project.catalog.tables
            )
            snapshots[alias] = stack.enter_context(contextlib.closing(snapshot))
        return snapshots

    def _save(self, source: Source, view: View) -> SavedSource:
        artifacts, facts = [], {}
        for artifact in source.artifacts(view):
            self._progress.step(
                Message(_("Saving %(name)s"), {"name": artifact.name}), artifact.size_hint
            )
            stored = self._writer.store(artifact, self._progress.advance)
            for snapshot in view.snapshots.values():
                snapshot.check()
            if artifact.pool is None:
                artifacts.append(stored)
                facts[artifact.name] = dict(artifact.facts())
            self.warnings += artifact.warnings()
        return SavedSource(name=source.name, artifacts=tuple(artifacts), facts=facts)

    def _known_packs(self) -> dict[str, StoredArtifact]:
        """Return the packs of earlier backups that some destination still holds, by id."""
        packs: dict[str, StoredArtifact] = {}
        working = self._writer.working.values()
        for manifest in self._earlier:
            for pack in manifest.packs:
                pack_id = pack.path.split("/")[1]
                if pack_id not in packs and any(
                    all(place.size(path) == volume.size for path, volume in pack.volume_paths())
                    for place in working
                ):
                    packs[pack_id] = pack
        return packs

    def _previous_media(self) -> Reader | None:
        for manifest in self._earlier:
            source = manifest.source("media")
            for artifact in source.artifacts if source else ():
                for destination in self._writer.working.values():
                    path, volume = artifact.volume_paths()[0]
                    if artifact.name == MEDIA_INDEX and destination.size(path) == volume.size:
                        return open_artifact(self._project, destination, manifest, artifact)
        return None


def _by_age(project: Project, found: Iterable[Found]) -> list[Manifest]:
    """Return the manifests whose packs may be used again (same project, same key), newest first."""
    key = project.encryption.key_fingerprint if project.encryption else None
    manifests = {
        item.manifest.id: item.manifest
        for item in found
        if item.manifest is not None
        and item.manifest.project == project.name
        and item.manifest.key_fingerprint == key
    }
    return sorted(manifests.values(), key=lambda manifest: manifest.sequence, reverse=True)


def _destinations(project: Project, request: Request) -> list[str]:
    for name in request.destinations:
        if name not in project.destinations:
            raise UsageError(
                _("There is no destination %(name)s."),
                hint=_("Known destinations: %(known)s"),
                name=name,
                known=", ".join(project.destinations),
            )
    return [name for name in project.destinations if not request.destinations or name in request.destinations]


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
    if failures and len(failures) == len(destinations):
        raise next(iter(failures.values()))
    return warnings, failures


def _free_name(name: str, destinations: Mapping[str, Any]) -> str:
    candidate, number = name, 1
    while any(next(d.entries(f"{candidate}/"), None) for d in destinations.values()):
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "mipyme_backup": mipyme_backup.__version__,
    }


def _applied_migrations(snapshot: Snapshot) -> list[str]:
    with snapshot.reading() as using:
        recorder = MigrationRecorder(connections[using])
        return sorted(".".join(key) for key in recorder.applied_migrations())


def _expected_files(snapshots: Mapping[str, Snapshot], storage: str) -> list[str]:
    names: list[str] = []
    for snapshot in snapshots.values():
        with snapshot.reading() as using:
            names += file_names(using, storage=storage)
    return names


