"""The places that a drill restores into: made beside everything live, and always removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connections

from mipyme_backup.drills.job import Database
from mipyme_backup.errors import NoBackupError
from mipyme_backup.manifest import Manifest, SavedSource
from mipyme_backup.messages import _
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.recovery import roll_back
from mipyme_backup.operations.targets import Targets
from mipyme_backup.sources.base import Target, require_distinct
from mipyme_backup.sources.database import PREFIX


@dataclass(frozen=True, kw_only=True)
class Throwaway:
    """A private `folder`, and the targets of the sources that a restore would bring back."""

    folder: Path
    targets: Targets

    @property
    def media_folder(self) -> Path:
        return self.folder / "media"


@contextlib.contextmanager
def throwaway(project: Project, manifest: Manifest, drill_id: str) -> Iterator[Throwaway]:
    """Yield places for all sources of a backup but its fixtures, and remove them in the end.

    The journal says what to remove should this process be killed: the next run does it then.
    Raises NoBackupError for a backup with nothing to restore.
    """
    with project.work_folder() as folder:
        made = Throwaway(folder=folder, targets=[*_targets(project, manifest, drill_id, folder)])
        if not made.targets:
            raise NoBackupError(
                _("The backup %(name)s holds neither a database nor media to restore."),
                name=manifest.name,
            )
        targets = [target for _source, target in made.targets]
        require_distinct(targets)
        entry = project.journal.loading(drill_id, manifest.id, [t.state for t in targets])
        try:
            project.journal.write(entry)
            yield made
        finally:
            roll_back(project, entry, targets)


def _targets(
    project: Project, manifest: Manifest, drill_id: str, folder: Path
) -> Iterator[tuple[SavedSource, Target]]:
    for source in manifest.sources:
        if source.name.startswith(PREFIX):
            target = project.databases.drill_target(
                source.name.removeprefix(PREFIX),
                drill_id=drill_id,
                facts=next(iter(source.facts.values())),
                raw_size=source.artifacts[0].raw_size,
                folder=folder,
            )
            yield source, target
        elif source.name == project.media.name:
            place = folder / "media"
            yield source, project.media.target(restore_id=drill_id, to_directory=place)


def databases(project: Project, made: Throwaway) -> dict[str, Database | None]:
    """Return what each alias of ``DATABASES`` becomes in the drill; None for one not restored."""
    restored = {
        source.name.removeprefix(PREFIX): side
        for source, target in made.targets
        if (side := target.side_settings()) is not None
    }
    found: dict[str, Database | None] = {}
    for alias in connections.settings:
        name = alias if alias in restored else project.databases.saved_as(alias)
        side = restored.get(name or "")
        found[alias] = None if side is None else _changes(connections.settings[alias], side)
    return found


def _changes(live: Mapping[str, Any], side: Mapping[str, Any]) -> Database:
    """Return what differs, so that no password is written down that need not be."""
    before, after = live.get("OPTIONS") or {}, side.get("OPTIONS") or {}
    return Database(
        values={
            name: value
            for name, value in side.items()
            if name not in {"OPTIONS", "TEST"} and live.get(name) != value
        },
        options={
            name: value
            for name, value in after.items()
            if name not in before or before[name] != value
        },
        without_options=[name for name in before if name not in after],
    )
