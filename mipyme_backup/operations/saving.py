"""Saving: every source read out of one consistent view, and handed to the writer."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

from mipyme_backup.errors import BackupError, SourceBusyError, SourceError
from mipyme_backup.manifest import Manifest, SavedSource, StoredArtifact
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.damage import known_damage
from mipyme_backup.operations.databases import databases_of
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import Holdings, open_artifact
from mipyme_backup.operations.writing import Writer
from mipyme_backup.process import Reader
from mipyme_backup.results import Found
from mipyme_backup.sources.base import Artifact, Snapshot, Source, View

ARTIFACT_NAME = re.compile(r"[A-Za-z0-9_%+=@-][A-Za-z0-9._%+=@-]{0,199}")
INDEX = ".index.jsonl"
UNFINISHED = ".part"
"""How `recover.py` ends the names of what is not whole yet."""
ATTEMPTS = 4
BACKOFF_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What was saved, as the manifest tells it."""

    sources: tuple[SavedSource, ...]
    packs: tuple[StoredArtifact, ...]
    migrations: Mapping[str, list[str]]
    snapshot_at: datetime
    warnings: tuple[Message, ...]


class Saving:
    """The reading of all sources, tried again whole while somebody is in the way."""

    def __init__(
        self,
        project: Project,
        sources: Sequence[Source],
        writer: Writer,
        work: Path,
        progress: Progress,
        held: Mapping[str, Holdings],
    ) -> None:
        self._warnings: list[Message] = []
        self._names: set[str] = set()
        self._project = project
        self._sources = sources
        self._writer = writer
        self._work = work
        self._progress = progress
        self._held = held
        self._earlier = _by_age(project, (b for one in held.values() for b in one.backups))

    def run(self) -> Saved:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._save_all()
            except SourceBusyError:
                if attempt == ATTEMPTS:
                    raise
                self._progress.step(Message(_("Somebody waits behind us: releasing, trying again")))
                self._warnings.clear()
                self._names.clear()
                self._writer.start_again()
                time.sleep(BACKOFF_SECONDS * attempt * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError("unreachable")

    def _save_all(self) -> Saved:
        saved: list[SavedSource] = []
        migrations: dict[str, list[str]] = {}
        with contextlib.ExitStack() as stack:
            snapshots = self._open_snapshots(stack)
            snapshot_at = datetime.now(UTC)
            view = View(snapshots=snapshots)
            saved += [self._save(source, view) for source in self._sources if source.needs_snapshot]
            for alias, snapshot in snapshots.items():
                migrations[alias] = _applied_migrations(snapshot)
            later = [source for source in self._sources if not source.needs_snapshot]
            expected = {source.name: [*source.named_files(snapshots)] for source in later}
        known = self._known_packs()
        for source in later:
            view = View(
                previous=partial(self._previous, source.name),
                known_packs=frozenset(known),
                expected_files=expected[source.name],
            )
            if not (saved and source.is_absent(view)):
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
        return Saved(
            sources=tuple(saved),
            packs=tuple(packs[pack] for pack in referenced),
            migrations=migrations,
            snapshot_at=snapshot_at,
            warnings=tuple(self._warnings),
        )

    def _open_snapshots(self, stack: contextlib.ExitStack) -> dict[str, Snapshot]:
        """Open one of each database that the sources read."""
        snapshots = {}
        for alias, source in databases_of(self._project, self._sources).items():
            self._progress.step(
                Message(_("Opening a consistent view of %(alias)s"), {"alias": alias})
            )
            snapshot = source.open_snapshot(
                work_dir=self._work, without_rows=self._project.catalog.tables
            )
            snapshots[alias] = stack.enter_context(contextlib.closing(snapshot))
        return snapshots

    def _save(self, source: Source, view: View) -> SavedSource:
        artifacts, facts = [], {}
        for artifact in _yielded(source, view):
            if artifact.pool is None:
                self._take_name(source, artifact.name)
            self._progress.step(
                Message(_("Saving %(name)s"), {"name": artifact.name}), artifact.size_hint
            )
            stored = self._writer.store(artifact, self._progress.advance)
            for snapshot in view.snapshots.values():
                snapshot.check()
            if artifact.pool is None:
                artifacts.append(stored)
                facts[artifact.name] = dict(artifact.facts())
            self._warnings += artifact.warnings()
        return SavedSource(name=source.name, artifacts=tuple(artifacts), facts=facts)

    def _take_name(self, source: Source, name: str) -> None:
        """Raise SourceError for a name that no file of a backup may have, or that is taken."""
        if not ARTIFACT_NAME.fullmatch(name) or name.endswith(UNFINISHED):
            raise SourceError(
                _("The source %(source)s named an artifact %(name)s, which is no valid file name."),
                hint=_("Use letters, digits, dots, dashes and underscores."),
                source=source.name,
                name=ascii(name),
            )
        # An index of files is unpacked into a folder, called as what comes before its suffix.
        unpacked = name.removesuffix(INDEX)
        if unpacked in self._names:
            raise SourceError(
                _("Two sources named an artifact %(name)s: %(source)s is the second."),
                hint=_("Each artifact of a backup needs a name of its own."),
                source=source.name,
                name=name,
            )
        self._names.add(unpacked)

    def _known_packs(self) -> dict[str, StoredArtifact]:
        """Return the packs of earlier backups that some destination holds whole, by id."""
        packs: dict[str, StoredArtifact] = {}
        damage = known_damage(self._project)
        working = {lane.name for lane in self._writer.keeping_up}
        for manifest in self._earlier:
            for pack in manifest.packs:
                pack_id = pack.path.split("/")[1]
                if pack_id not in packs and any(
                    pack.path not in damage.get(name, ()) and holdings.hold(pack)
                    for name, holdings in self._held.items()
                    if name in working
                ):
                    packs[pack_id] = pack
        return packs

    def _previous(self, source_name: str, artifact_name: str) -> Reader | None:
        """Open what the newest backup has of it, on this machine where it is there."""
        lanes = sorted(self._writer.keeping_up, key=lambda lane: lane.destination.remote)
        for manifest in self._earlier:
            source = manifest.source(source_name)
            for artifact in source.artifacts if source else ():
                for lane in lanes:
                    holdings = self._held.get(lane.name)
                    if artifact.name == artifact_name and holdings and holdings.hold(artifact):
                        return open_artifact(
                            self._project,
                            lane.destination,
                            manifest,
                            artifact,
                            readable_here=True,
                        )
        return None


def _yielded(source: Source, view: View) -> Iterator[Artifact]:
    """Yield the artifacts; what a source of the project raises is an error of that source."""
    try:
        yield from source.artifacts(view)
    except (BackupError, MemoryError):
        raise
    except Exception as error:
        raise SourceError(
            _("The source %(name)s failed: %(kind)s: %(reason)s"),
            hint=_("Look at its code, or leave it out with --only."),
            name=source.name,
            kind=type(error).__name__,
            reason=error,
        ) from error


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


def _applied_migrations(snapshot: Snapshot) -> list[str]:
    with snapshot.reading() as using:
        recorder = MigrationRecorder(connections[using])
        return sorted(".".join(key) for key in recorder.applied_migrations())
