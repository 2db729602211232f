"""What a destination holds, seen with what is known of it: the ground for deciding what may go."""

from __future__ import annotations

from collections.abc import Iterable

from mipyme_backup.catalog import Known
from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import _
from mipyme_backup.operations.damage import known_damage
from mipyme_backup.operations.leftovers import noted
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Holdings
from mipyme_backup.policy.retention import Copy, Run
from mipyme_backup.policy.suspicion import LOOKED_BACK, emptied, loss
from mipyme_backup.results import Found


def newest_whole(project: Project) -> Run | None:
    """Return the newest good backup that counts, with what is suspect about it.

    None where there are too few to compare it with, or the catalog cannot be read.
    """
    recorded = project.catalog.recorded(project.name, LOOKED_BACK * 2) or ()
    gone = emptied(project.max_shrink, recorded)
    if gone is not None:
        return Run(name=gone.backup.name, status="complete", suspect=gone.suspect)
    lost = loss(project.max_shrink, recorded)
    if lost is None:
        return None
    return Run(name=lost.backup.name, status="complete", suspect=lost.suspect)


def lacking(project: Project, name: str, held: Holdings, known: Known) -> list[str]:
    """Return the ids of what a listing lacks because an earlier prune had begun to delete it.

    Raises DestinationError where it lacks anything else that the catalog says is there.
    """
    ids = {item.manifest.id for item in held.backups if item.manifest is not None}
    names = {item.name for item in held.backups if item.manifest is None}
    missing = {
        backup_id: backup_name
        for backup_id, backup_name in known.copies.get(name, {}).items()
        if backup_id not in ids and backup_name not in names
    }
    begun = noted(project, name).deleting
    lost = sorted(backup_name for backup_name in missing.values() if backup_name not in begun)
    if lost:
        raise DestinationError(
            _("Nothing is pruned there: it lacks what should be there (%(count)d): %(names)s"),
            hint=_(
                "Look whether it is the right place, and mounted. If they were removed on purpose,"
                " list_backups --sync takes note of that."
            ),
            count=len(lost),
            names=", ".join(lost[:10]),
        )
    return [*missing]


def copies_on(
    project: Project, name: str, held: Holdings, known: Known, pinned: frozenset[str]
) -> list[Copy]:
    """Return the backups of a destination with all that their retention depends on.

    One is in use while a restore that came from it, or saved it, can still be undone.
    """
    entries = project.journal.entries()
    in_use = {entry["backup"] for entry in entries} | {e["safety_backup"] for e in entries}
    packs = known_damage(project).get(name, frozenset())
    return [_copy(project, item, held, known, pinned, in_use, packs) for item in held.backups]


def _copy(
    project: Project,
    item: Found,
    held: Holdings,
    known: Known,
    pinned: frozenset[str],
    in_use: set[str | None],
    damaged_packs: frozenset[str],
) -> Copy:
    manifest = item.manifest
    if manifest is None:
        return Copy(name=item.name, state="unreadable", pinned=item.pinned)
    good = (
        (manifest.id, item.destination) not in known.damaged
        and all(held.hold(artifact) for artifact in manifest.artifacts())
        and damaged_packs.isdisjoint(pack.path for pack in manifest.packs)
    )
    return Copy(
        name=item.name,
        state="foreign" if manifest.project != project.name else "good" if good else "damaged",
        id=manifest.id,
        kind=manifest.kind,
        whole=manifest.whole,
        empty=manifest.empty,
        sources=frozenset(source.name for source in manifest.sources),
        sequence=manifest.sequence,
        finished_at=manifest.finished_at,
        pinned=manifest.id in pinned,
        in_use=manifest.id in in_use or manifest.name in in_use,
    )


def pinned_on(held: Iterable[Holdings]) -> frozenset[str]:
    """Return the ids of what any of the destinations says is pinned."""
    return frozenset(
        item.manifest.id
        for one in held
        for item in one.backups
        if item.pinned and item.manifest is not None
    )
