"""The first look at every destination: is it there, what lies on it, what must be swept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from mipyme_backup.destinations import Destination
from mipyme_backup.errors import DestinationError
from mipyme_backup.operations.lanes import Lanes
from mipyme_backup.operations.notes import RunNote, manifest_path, run_notes
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Holdings, holdings
from mipyme_backup.operations.recovery_program import is_changed
from mipyme_backup.operations.sequence import hidden_newest

PATIENCE_SECONDS = 3.0


def look_around(
    project: Project, lanes: Lanes, *, at_all: bool = False, seconds: float = PATIENCE_SECONDS
) -> dict[str, Holdings]:
    """Return what each destination holds that answers within so many `seconds`.

    Nobody is waited for once one on this machine shows the newest backup that is known, unless
    what lies `at_all` of them matters. The others are marked as behind; where none has answered
    yet, the first answer is waited for. Raises the last lane's error where no destination can
    be used.
    """
    answers: dict[str, Holdings] = {}
    notes = [*run_notes(project)]
    for name, lane in lanes.items():
        lane.submit(partial(_look, project, name, notes, answers))

    def enough() -> bool:
        return not lanes.busy or (not at_all and _newest_is_near(project, lanes, answers))

    lanes.wait(enough, seconds)
    lanes.wait(lambda: bool(answers) or not lanes.busy)
    held = {**answers}  # who answers later changes nothing any more
    for lane in lanes.values():
        lane.behind = lane.name not in held
    if not held:
        raise lanes.failures()[-1]
    if _uncommitted(notes, held):
        return look_around(project, lanes, at_all=at_all, seconds=seconds)
    return held


def _look(
    project: Project,
    name: str,
    notes: Iterable[RunNote],
    answers: dict[str, Holdings],
    destination: Destination,
) -> None:
    destination.check()
    held = holdings(project, name)
    removed: list[str] = []
    for note in notes:
        if name in note.destinations and not note.committing:
            removed += _settle(name, note, held, destination)
    sizes = {path: size for path, size in held.sizes.items() if not path.startswith(tuple(removed))}
    changed = is_changed(project, destination, held.backups)
    answers[name] = replace(held, sizes=sizes, program_changed=changed)


def _settle(name: str, note: RunNote, held: Holdings, destination: Destination) -> list[str]:
    """Remove what a run that died left there, unless a backup of that name is there by now.

    A pack that a backup there needs stays, whatever the note says; while a manifest there cannot
    be read, every pack may be needed. Returns the prefixes of what was removed.
    """
    removed: list[str] = []
    found = next((item for item in held.backups if item.name == note.name), None)
    if found is None:
        manifests = [item.manifest for item in held.backups]
        needed = {pack.path for m in manifests if m is not None for pack in m.packs}
        if None in manifests:
            needed |= set(note.packs)
        removed = note.remove_from(destination, needed=needed)
    elif isinstance(found.error, DestinationError):
        raise found.error
    ours = found is not None and found.manifest is not None and found.manifest.id == note.backup_id
    note.settled(name, committed=ours)
    return removed


def _newest_is_near(project: Project, lanes: Lanes, answers: Mapping[str, Holdings]) -> bool:
    """Say whether a destination on this machine has answered that holds the newest backup."""
    return any(
        held.backups
        and not lanes[name].destination.remote
        and not hidden_newest(project, held.backups)
        for name, held in [*answers.items()]
    )


def _uncommitted(notes: Iterable[RunNote], held: Mapping[str, Holdings]) -> bool:
    """Find the runs that were killed right before their first manifest; say whether any was."""
    dead = [
        note
        for note in notes
        if note.committing
        and not note.committed
        and set(note.destinations) <= held.keys()
        and not any(manifest_path(note.name) in held[name].sizes for name in note.destinations)
    ]
    for note in dead:
        note.nothing_committed()
    return bool(dead)
