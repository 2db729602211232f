"""What lies on a destination and belongs to no backup there: packs, and what killed runs left.

Nothing tells how old an object is, so a note in `STATE_DIR` says since when each folder has been
seen to belong to nobody. Another project may be writing to the same place: what nobody is known
to have given up stays for `PATIENCE`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mipyme_backup.operations.layout import PACK_FOLDER, PIN_FILE
from mipyme_backup.operations.notes import RunNote, is_ours, manifest_path
from mipyme_backup.operations.project import Project
from mipyme_backup.results import Found

RECORD = "leftovers.json"
PATIENCE = timedelta(hours=72)
STORED_FILE = re.compile(rf"[^/]+\.\d{{5}}|{PIN_FILE}")


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """What was noted of one destination.

    `deleting` are the folders (of backups and packs) whose deletion was begun, `since` says when
    each other one was first seen to belong to nobody.
    """

    deleting: frozenset[str] = frozenset()
    since: Mapping[str, datetime] = field(default_factory=dict)

    def due(self, folder: str, now: datetime) -> bool:
        """Say whether the folder, if it still belongs to nobody, may go."""
        first = self.since.get(folder, now)
        return folder in self.deleting or now - first >= PATIENCE

    def seen(self, folders: Iterable[str], now: datetime) -> dict[str, datetime]:
        """Return since when each of `folders` has been so; a moment in the future is none."""
        return {folder: min(self.since.get(folder, now), now) for folder in folders}


def noted(project: Project, destination: str) -> Leftovers:
    """Return what earlier prunes noted of a destination."""
    return _noted(project).get(destination, Leftovers())


def note(project: Project, destination: str, leftovers: Leftovers) -> None:
    """Keep what is known of a destination now, on disk before this returns."""
    known = {**_noted(project), destination: leftovers}
    record = {
        name: {
            "deleting": sorted(one.deleting),
            "since": {f: moment.isoformat() for f, moment in sorted(one.since.items())},
        }
        for name, one in known.items()
    }
    project.remember(RECORD, record)


def unused(
    names: Iterable[str], backups: Iterable[Found], runs: Iterable[RunNote]
) -> dict[str, list[str]]:
    """Return the objects of each folder that no backup and no noted run needs, by folder.

    `names` are all objects of a destination, `backups` those that its manifests tell of. While
    one of them cannot be read, every pack may be needed.
    """
    found, every = [*backups], dict.fromkeys(names)
    manifests = [item.manifest for item in found if item.manifest is not None]
    needed = {item.name for item in found}
    for run in runs:
        needed |= {run.name, *map(_folder, run.packs)}
    needed |= {_folder(pack.path) for manifest in manifests for pack in manifest.packs}
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for name in every:
        folder, _slash, file = name.rpartition("/")
        if STORED_FILE.fullmatch(file):
            folders[folder].append(name)
    all_readable = len(manifests) == len(found)
    return {
        folder: held
        for folder, held in folders.items()
        if folder not in needed
        and manifest_path(folder) not in every
        and is_ours(folder)
        and (all_readable or not PACK_FOLDER.fullmatch(folder))
    }


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _noted(project: Project) -> Mapping[str, Leftovers]:
    return project.recall(RECORD, _parsed, {})


def _parsed(record: Any) -> Mapping[str, Leftovers]:
    return {name: _leftovers(values) for name, values in record.items()}


def _leftovers(values: Any) -> Leftovers:
    """Return what a record says of one destination; ValueError for folders that are not ours."""
    deleting = frozenset(values.get("deleting", ()))
    since = {
        folder: datetime.fromisoformat(moment) for folder, moment in values.get("since", {}).items()
    }
    if not all(is_ours(folder) for folder in (*deleting, *since)):
        raise ValueError("a folder that is not ours")
    if any(moment.tzinfo is None for moment in since.values()):
        raise ValueError("a time without its zone")
    return Leftovers(deleting=deleting, since=since)
