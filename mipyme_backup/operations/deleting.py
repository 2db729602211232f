"""Deleting from one destination, so that at any moment whatever has a manifest is whole.

A backup ends with its manifest, which goes first; its volumes belong to nobody from then on. A
process that dies in between has noted what it was about to do, and the next prune goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import datetime

from mipyme_backup.errors import DeletionRefusedError
from mipyme_backup.operations.damage import note_damage
from mipyme_backup.operations.layout import PACK_FOLDER
from mipyme_backup.operations.leftovers import Leftovers, note, noted, unused
from mipyme_backup.operations.notes import manifest_path, run_notes
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Holdings
from mipyme_backup.policy.retention import Decision


class Deleting:
    """The deletions on the destination `name`, which a listing showed to hold `held`.

    `deleted` and `locked` are names of backups, `freed` is in bytes, and `waiting` the number of
    folders that belong to nobody and stay for now.
    """

    def __init__(self, project: Project, name: str, held: Holdings, now: datetime) -> None:
        self.deleted: set[str] = set()
        self.locked: set[str] = set()
        self.freed = 0
        self.waiting = 0
        self._project = project
        self._name = name
        self._destination = project.destinations[name]
        self._held = held
        self._sizes = dict(held.sizes)
        self._now = now
        self._noted = noted(project, name)
        self._runs = [*run_notes(project)]

    def size(self, folder: str) -> int:
        """Return how many bytes lay in the folder at first."""
        prefix = f"{folder}/"
        return sum(size for name, size in self._held.sizes.items() if name.startswith(prefix))

    def rehearse(self, decisions: Iterable[Decision]) -> None:
        """Count what `run` would delete now, and change nothing."""
        self._noted = self._as_noted(self._noted.deleting)
        self.deleted = {decision.copy.name for decision in decisions if not decision.keep}
        idle = self._unused()
        due = [folder for folder in idle if self._noted.due(folder, self._now)]
        self.waiting = len(idle) - len(due)
        self.freed = sum(map(self.size, [*self.deleted, *due]))

    def run(self, decisions: Sequence[Decision]) -> None:
        """Delete what was decided on, then what belongs to nobody; raises DestinationError.

        A deletion that is refused is no error: the backup stays as it was. After an error the
        note says what may be half deleted.
        """
        going = [decision for decision in decisions if not decision.keep]
        self._note(self._noted.deleting | {decision.copy.name for decision in going})
        for decision in sorted(going, key=lambda decision: decision.copy.sequence):
            self._delete_backup(decision)
        idle = self._unused()
        due = {folder for folder in idle if self._noted.due(folder, self._now)}
        self._note(self._noted.deleting | due)
        for folder in sorted(self._noted.deleting):
            if manifest_path(folder) not in self._sizes:
                self._delete_folder(folder, idle.get(folder, ()))
        left, not_told = self._unused().keys(), self._not_told()
        self._note(frozenset(f for f in self._noted.deleting if f in left or f in not_told))
        self.waiting = len(left - self._noted.deleting)

    def _delete_backup(self, decision: Decision) -> None:
        copy = decision.copy
        try:
            self._delete(manifest_path(copy.name))
        except DeletionRefusedError:
            self.locked.add(copy.name)
            return
        self.deleted.add(copy.name)
        self._project.catalog.pruned(copy.id, self._name, decision.reason)

    def _delete_folder(self, folder: str, names: Iterable[str]) -> None:
        with contextlib.suppress(DeletionRefusedError):
            for name in names:
                self._delete(name)
            self._destination.sweep(f"{folder}/")
        packs = {name.rpartition(".")[0] for name in names if PACK_FOLDER.fullmatch(folder)}
        note_damage(self._project, self._name, damaged=(), sound=packs)

    def _delete(self, name: str) -> None:
        self._destination.delete(name)
        self.freed += self._sizes.pop(name, 0)

    def _unused(self) -> dict[str, list[str]]:
        left = [item for item in self._held.backups if item.name not in self.deleted]
        return unused(self._sizes, left, self._runs)

    def _not_told(self) -> frozenset[str]:
        """Return the names of what was deleted while the catalog could not be told of it."""
        known = self._project.catalog.known(self._project.name, self._now)
        there = known.copies.get(self._name, {}).values() if known else self._noted.deleting
        return frozenset(name for name in there if manifest_path(name) not in self._sizes)

    def _note(self, deleting: frozenset[str]) -> None:
        self._noted = self._as_noted(deleting)
        note(self._project, self._name, self._noted)

    def _as_noted(self, deleting: frozenset[str]) -> Leftovers:
        idle = {*self._unused()}
        if any(item.manifest is None for item in self._held.backups):
            # Nobody knows of any pack now; what was known is no less true for it.
            idle |= {folder for folder in self._noted.since if PACK_FOLDER.fullmatch(folder)}
        return Leftovers(deleting=deleting, since=self._noted.seen(idle - deleting, self._now))
