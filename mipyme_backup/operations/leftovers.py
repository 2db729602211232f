"""What lies on a destination and belongs to no backup there: packs, and what killed runs left.

Nothing tells how old an object is, so a note in `STATE_DIR` says since when each folder has been
seen to belong to nobody. Another project may be writing to the same place: what nobody is known
to have given up stays for `PATIENCE`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mipyme_backup.operations.layout import BACKUP_FOLDER, PACK_FOLDER, PIN_FILE
from mipyme_backup.operations.notes import RunNote, manifest_path
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Found
from mipyme_backup.private_files import make_folder, sync_folder, write_file

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
    values = _read(project).get(destination, {})
    return Leftovers(
        deleting=frozenset(values.get("deleting", ())),
        since={
            folder: datetime.fromisoformat(moment)
            for folder, moment in values.get("since", {}).items()
        },
    )


def note(project: Project, destination: str, leftovers: Leftovers) -> None:
    """Keep what is known of a destination now, on disk before this returns."""
    known = {
        **_read(project),
        destination: {
            "deleting": sorted(leftovers.deleting),
            "since": {f: moment.isoformat() for f, moment in sorted(leftovers.since.items())},
        },
    }
    make_folder(project.state_dir)
    file = _file(project)
    temporary = file.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    write_file(temporary, json.dumps(known, indent=1).encode())
    temporary.rename(file)
    sync_folder(project.state_dir)


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
        and (BACKUP_FOLDER.fullmatch(folder) or (PACK_FOLDER.fullmatch(folder) and all_readable))
    }


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _read(project: Project) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        values = json.loads(_file(project).read_text())
        if isinstance(values, dict):
            return values
    return {}


def _file(project: Project) -> Path:
    return project.state_dir / "leftovers.json"
