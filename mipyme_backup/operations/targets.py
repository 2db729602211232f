"""What a restore is asked for, and the targets that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from mipyme_backup.errors import NoBackupError, RestoreError, UsageError
from mipyme_backup.manifest import Manifest, SavedSource
from mipyme_backup.messages import _
from mipyme_backup.operations.choosing import selected
from mipyme_backup.operations.places import require_apart, require_no_sidecar
from mipyme_backup.operations.project import Project
from mipyme_backup.sources.base import (
    Contents,
    Facts,
    Restorable,
    Saved,
    Source,
    Target,
    Where,
    require_distinct,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One target of a restore, and what of a backup is loaded into it.

    `saved` holds no other artifacts than those; `facts` are what the target is checked against.
    """

    source: Source
    saved: SavedSource
    target: Target
    facts: Facts


Targets = Sequence[Part]
Chosen = tuple[Source, SavedSource]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: an `identifier`, or the newest (`at` a moment); `only` names sources.

    With `other_origin` the backup may be of another database or host than what it replaces.
    """

    identifier: str | None = None
    at: datetime | None = None
    destination: str | None = None
    only: Sequence[str] = ()
    safety_backup: bool = True
    migrate: bool = False
    to_database: str | None = None
    to_media: Path | None = None
    in_place: bool = False
    other_origin: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether the live data stays as it is."""
        return bool(self.places)

    @property
    def places(self) -> dict[str, str | Path]:
        """The places beside the live data, by the option that names them."""
        given = {"--to-database": self.to_database, "--to-media": self.to_media}
        return {option: place for option, place in given.items() if place is not None}


def make_targets(
    project: Project, request: Request, manifest: Manifest, restore_id: str
) -> list[Part]:
    """Return the targets, in the order in which they are swapped."""
    chosen = _chosen(project, request, manifest)
    parts = [
        part
        for source, saved in chosen
        for part in _parts(
            source,
            saved,
            restore_id,
            _where(project, request, chosen, source),
            named=bool(request.only),
        )
    ]
    if not parts:
        raise NoBackupError(
            _("The backup %(name)s holds nothing that could be restored here."),
            hint=_("It holds: %(known)s"),
            name=manifest.name,
            known=", ".join(saved.name for saved in manifest.sources),
        )
    require_distinct(part.target for part in parts)
    # Last, because what cannot be undone must not be in when another swap fails; merges after all.
    return sorted(parts, key=lambda part: (part.target.for_good, part.source.restore_order))


def left_out(project: Project, manifest: Manifest, targets: Targets) -> list[str]:
    """Return the names of what the backup holds and the targets do not bring back."""
    restored = {part.source.name for part in targets}
    return [
        saved.name
        for saved in manifest.sources
        if saved.name not in restored
        and not _has_no_file(saved)
        and not _is_held_elsewhere(project, saved.name)
    ]


def _has_no_file(saved: SavedSource) -> bool:
    """Say whether it is a source of files that had none."""
    return bool(saved.facts) and all(facts.get("files") == 0 for facts in saved.facts.values())


def _is_held_elsewhere(project: Project, name: str) -> bool:
    source = project.find_source(name)
    return source is not None and source.held_elsewhere


def replaces_live(targets: Targets) -> bool:
    """Say whether a restore changes any data that is live now."""
    return any(part.target.merges or part.target.has_live() for part in targets)


def require_source(project: Project, name: str) -> Source:
    """Return the source called `name`; raises RestoreError where the settings have none."""
    source = project.find_source(name)
    if source is None:
        raise RestoreError(
            _("The backup holds %(name)s, and SOURCES has no such entry."),
            hint=_("Put it back into SOURCES, or restore others with --only."),
            name=name,
        )
    return source


def contents_of(saved: SavedSource) -> Contents:
    """Return what a backup holds of a source, as sources see it."""
    return {
        artifact.name: Saved(facts=saved.facts.get(artifact.name, {}), raw_size=artifact.raw_size)
        for artifact in saved.artifacts
    }


def part_of(source: Source, saved: SavedSource, restorable: Restorable) -> Part:
    """Return a target with what of `saved` is loaded into it; notes the source in its state."""
    restorable.target.state["source"] = source.name
    names = frozenset(restorable.artifacts)
    return Part(
        source=source,
        saved=replace(
            saved,
            artifacts=tuple(artifact for artifact in saved.artifacts if artifact.name in names),
            facts={name: facts for name, facts in saved.facts.items() if name in names},
        ),
        target=restorable.target,
        facts=restorable.facts,
    )


def _parts(
    source: Source, saved: SavedSource, restore_id: str, where: Where, *, named: bool
) -> list[Part]:
    """Return the targets of one source; only for what is `named` it is an error to have none."""
    restorables = source.targets(restore_id, contents_of(saved), where)
    if restorables is None and not named:
        return []
    if restorables is None:
        raise RestoreError(
            _("%(name)s cannot be restored by this command."),
            hint=_("Take it out of the backup by hand: docs/howto/recover.md"),
            name=source.name,
        )
    return [part_of(source, saved, restorable) for restorable in restorables]


def _chosen(project: Project, request: Request, manifest: Manifest) -> list[Chosen]:
    """Return what is restored: what is named, or else what is by default and has a place."""
    if request.in_place and request.to_database:
        raise UsageError(_("--in-place and --to-database exclude each other."))
    for name in request.only:
        if not selected(manifest, name):
            raise NoBackupError(
                _("The backup %(backup)s holds no %(name)s."),
                hint=_("It holds: %(known)s"),
                backup=manifest.name,
                name=name,
                known=", ".join(source.name for source in manifest.sources),
            )
    wanted = {found for name in request.only for found in selected(manifest, name)}
    known = [
        (require_source(project, saved.name), saved)
        for saved in manifest.sources
        if (saved.name in wanted if wanted else _may_be_asked(project, request, saved.name))
    ]
    chosen = [pair for pair in known if wanted or _is_restored_unasked(pair[0], request)]
    if request.elsewhere:
        _require_places(request, manifest, chosen)
    return chosen


def _may_be_asked(project: Project, request: Request, name: str) -> bool:
    """Say whether its source must be known; elsewhere, only those that are known have a place."""
    return not request.elsewhere or project.find_source(name) is not None


def _is_restored_unasked(source: Source, request: Request) -> bool:
    if request.elsewhere:
        return source.place_option in request.places
    return source.restored_by_default


def _require_places(request: Request, manifest: Manifest, chosen: Sequence[Chosen]) -> None:
    """Refuse to restore one source elsewhere and another one over the live data, unsaved."""
    for source, _saved in chosen:
        if source.place_option not in request.places:
            raise UsageError(
                _("%(name)s would be restored over the live data, and the rest elsewhere."),
                hint=_(
                    "Give it a place as well (--to-database, --to-media), or leave it out: --only"
                ),
                name=source.name,
            )
    for option, name in (("--to-database", "database"), ("--to-media", "media")):
        count = sum(source.place_option == option for source, _saved in chosen)
        if option in request.places and not count:
            raise NoBackupError(
                _("The backup %(backup)s holds no %(name)s."),
                hint=_("It holds: %(known)s"),
                backup=manifest.name,
                name=name,
                known=", ".join(source.name for source in manifest.sources),
            )
        if option == "--to-database" and request.to_database and count != 1:
            raise UsageError(
                _("--to-database takes one database, and this backup holds %(count)d."),
                hint=_("Name it: --only database:ALIAS"),
                count=count,
            )


def _where(project: Project, request: Request, chosen: Sequence[Chosen], source: Source) -> Where:
    """Return where a source goes to; of several folders each gets one of its own in that given."""
    option = source.place_option
    directory = request.to_media if option == "--to-media" else None
    if directory is not None and sum(s.place_option == option for s, _saved in chosen) > 1:
        directory /= quote(source.name, safe=":")
    where = Where(
        to_database=request.to_database, to_directory=directory, in_place=request.in_place
    )
    path = source.path_elsewhere(where)
    if path is None or option is None:
        return where
    require_no_sidecar(path)
    real = require_apart(project, option, path)
    return where if directory is None else replace(where, to_directory=real)
