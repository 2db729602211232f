"""The places that a drill restores into: made beside everything live, and always removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connections

from mipyme_backup.drills.job import Database
from mipyme_backup.errors import NoBackupError
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import _
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.recovery import roll_back
from mipyme_backup.operations.targets import (
    Part,
    Targets,
    contents_of,
    part_of,
    require_source,
)
from mipyme_backup.private_files import make_folder
from mipyme_backup.sources.base import Source, require_distinct


@dataclass(frozen=True, kw_only=True)
class Throwaway:
    """A private `folder`, and the targets of the sources that can be rehearsed.

    `places` are the folders in it that they may use, in the same order. `unrehearsed` are the
    sources of the backup that have no such target.
    """

    folder: Path
    targets: Targets
    places: Sequence[Path]
    unrehearsed: Sequence[str]


@contextlib.contextmanager
def throwaway(project: Project, manifest: Manifest, drill_id: str) -> Iterator[Throwaway]:
    """Yield places for all sources of a backup but its fixtures, and remove them in the end.

    The journal says what to remove should this process be killed: the next run does it then.
    Raises NoBackupError for a backup with nothing to restore.
    """
    with project.work_folder() as folder:
        found = [*_parts(project, manifest, drill_id, folder)]
        made = Throwaway(
            folder=folder,
            targets=[part for _place, _source, part in found if part is not None],
            places=[place for place, _source, part in found if part is not None],
            unrehearsed=[
                source.name
                for _place, source, part in found
                if part is None and source.restored_by_default
            ],
        )
        if not made.targets:
            raise NoBackupError(
                _("The backup %(name)s holds nothing that a drill can restore."),
                name=manifest.name,
            )
        targets = [part.target for part in made.targets]
        require_distinct(targets)
        entry = project.journal.loading(drill_id, manifest.id, [t.state for t in targets])
        try:
            project.journal.write(entry)
            yield made
        finally:
            roll_back(project, entry, targets)


def _parts(
    project: Project, manifest: Manifest, drill_id: str, folder: Path
) -> Iterator[tuple[Path, Source, Part | None]]:
    for number, saved in enumerate(manifest.sources):
        source = require_source(project, saved.name)
        place = folder / str(number)
        make_folder(place)
        restorable = source.drill_target(drill_id, contents_of(saved), place)
        part = None if restorable is None else part_of(source, saved, restorable)
        yield place, source, part


def databases(project: Project, made: Throwaway) -> dict[str, Database | None]:
    """Return what each alias of ``DATABASES`` becomes in the drill; None for one not restored."""
    restored = {
        part.target.alias: side
        for part in made.targets
        if (side := part.target.side_settings()) is not None
    }
    found: dict[str, Database | None] = {}
    for alias in connections.settings:
        side = restored.get(alias) or next(
            (side for saved, side in restored.items() if _stands_for(made, saved, alias)), None
        )
        found[alias] = None if side is None else _changes(connections.settings[alias], side)
    return found


def _stands_for(made: Throwaway, saved: str | None, alias: str) -> bool:
    return any(
        part.target.alias == saved and part.source.stands_for(alias) for part in made.targets
    )


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
