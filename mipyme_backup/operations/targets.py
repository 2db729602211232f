"""What a restore is asked for, and the targets that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mipyme_backup.errors import NoBackupError, UsageError
from mipyme_backup.manifest import MEDIA, Manifest, SavedSource
from mipyme_backup.messages import _
from mipyme_backup.operations.choosing import selected
from mipyme_backup.operations.places import require_apart, require_no_sidecar
from mipyme_backup.operations.project import Project
from mipyme_backup.sources.base import Target
from mipyme_backup.sources.database import PREFIX
from mipyme_backup.sources.fixtures import FixturesTarget

Targets = Sequence[tuple[SavedSource, Target]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: an `identifier`, or the newest (`at` a moment); `only` names sources."""

    identifier: str | None = None
    at: datetime | None = None
    destination: str | None = None
    only: Sequence[str] = ()
    safety_backup: bool = True
    migrate: bool = False
    to_database: str | None = None
    to_media: Path | None = None
    in_place: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether the live data stays as it is."""
        return self.to_database is not None or self.to_media is not None


def make_targets(
    project: Project, request: Request, manifest: Manifest, restore_id: str
) -> list[tuple[SavedSource, Target]]:
    sources = _sources(request, manifest)
    if request.to_media is None:
        sources = [source for source in sources if not _is_nothing(project, source)] or sources
    targets = [
        (part, _target(project, request, part, restore_id))
        for source in sources
        for part in _parts(source)
    ]
    # Last, because what cannot be undone must not be in when another swap fails; merges after all.
    return sorted(targets, key=lambda pair: (pair[1].for_good, isinstance(pair[1], FixturesTarget)))


def left_out(project: Project, manifest: Manifest, targets: Targets) -> list[str]:
    """Return the names of what the backup holds and the targets do not bring back.

    Not the fixtures, which hold what the databases do.
    """
    restored = {source.name for source, _target in targets}
    return [
        source.name
        for source in manifest.sources
        if source.name not in {*restored, "fixtures"} and not _is_nothing(project, source)
    ]


def _is_nothing(project: Project, source: SavedSource) -> bool:
    """Say whether it is media without a file, where the settings have no place for media."""
    files = sum(facts.get("files", 1) for facts in source.facts.values())
    return source.name == MEDIA and files == 0 and not project.media.has_place


def _parts(source: SavedSource) -> list[SavedSource]:
    """Return what has a target of its own: of the fixtures, each database's."""
    if source.name != "fixtures":
        return [source]
    return [
        SavedSource(
            name=source.name,
            artifacts=(artifact,),
            facts={artifact.name: source.facts[artifact.name]},
        )
        for artifact in source.artifacts
    ]


def _sources(request: Request, manifest: Manifest) -> list[SavedSource]:
    """Return what is restored: fixtures only when named, and only what has a place elsewhere."""
    names = list(request.only)
    if request.in_place and request.to_database:
        raise UsageError(_("--in-place and --to-database exclude each other."))
    if not names and request.elsewhere:
        names = ["database"] if request.to_database else []
        names += ["media"] if request.to_media else []
    wanted = {found for name in names for found in selected(manifest, name)}
    for name in names:
        if not selected(manifest, name):
            raise NoBackupError(
                _("The backup %(backup)s holds no %(name)s."),
                hint=_("It holds: %(known)s"),
                backup=manifest.name,
                name=name,
                known=", ".join(source.name for source in manifest.sources),
            )
    chosen = [
        source
        for source in manifest.sources
        if (source.name in wanted if names else source.name != "fixtures")
    ]
    for source in chosen if request.elsewhere else ():
        _require_place(request, source)
    databases = [source for source in chosen if source.name.startswith(PREFIX)]
    if request.to_database and len(databases) != 1:
        raise UsageError(
            _("--to-database takes one database, and this backup holds %(count)d."),
            hint=_("Name it: --only database:ALIAS"),
            count=len(databases),
        )
    return chosen


def _require_place(request: Request, source: SavedSource) -> None:
    """Refuse to restore one source elsewhere and another one over the live data, unsaved."""
    if source.name.startswith(PREFIX):
        has_place = request.to_database is not None
    else:
        has_place = source.name == "media" and request.to_media is not None
    if not has_place:
        raise UsageError(
            _("%(name)s would be restored over the live data, and the rest elsewhere."),
            hint=_("Give it a place as well (--to-database, --to-media), or leave it out: --only"),
            name=source.name,
        )


def _target(project: Project, request: Request, source: SavedSource, restore_id: str) -> Target:
    if source.name.startswith(PREFIX):
        facts = next(iter(source.facts.values()))
        alias = source.name.removeprefix(PREFIX)
        if request.to_database is not None and facts.get("engine") == "sqlite":
            require_apart(project, "--to-database", Path(request.to_database))
            require_no_sidecar(Path(request.to_database))
        return project.databases.target(
            alias,
            restore_id=restore_id,
            facts=facts,
            raw_size=source.artifacts[0].raw_size,
            to_database=request.to_database,
            in_place=request.in_place,
        )
    if source.name == "media":
        folder = request.to_media
        if folder is not None:
            folder = require_apart(project, "--to-media", folder)
        return project.media.target(restore_id=restore_id, to_directory=folder)
    return FixturesTarget.prepare(alias=source.facts[source.artifacts[0].name]["alias"])
