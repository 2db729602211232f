"""What each run writes down before its first byte, so that a later one can end what it left.

While a run is *writing*, all that it stored can be thrown away. From before its first manifest
is written it is *committing*, and from after that *committed*: there is a backup, and the
destinations that are still in the note lack a copy, which is completed from there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any

from mipyme_backup import manifest as manifests
from mipyme_backup.destinations import Destination
from mipyme_backup.errors import DeletionRefusedError, StateError
from mipyme_backup.operations.layout import BACKUP_FOLDER, PACK_FOLDER
from mipyme_backup.operations.project import Project

FOLDER = "runs"


class RunNote:
    """The note of the run `backup_id`: a record of `STATE_DIR`, gone when `destinations` is empty.

    `destinations` are those where something of the run may lie that is no whole backup, `packs`
    the paths of the packs that it began. Several threads may share one, and no two of the same
    record may be in use.
    """

    def __init__(
        self,
        project: Project,
        backup_id: str,
        *,
        name: str,
        destinations: Sequence[str],
        packs: Sequence[str] = (),
        committing: bool = False,
        committed: bool = False,
    ) -> None:
        self.backup_id = backup_id
        self.name = name
        self.destinations = list(destinations)
        self.packs = list(packs)
        self.committing = committing
        self.committed = committed
        self._project = project
        self._record = f"{FOLDER}/{backup_id}.json"
        self._lock = threading.Lock()

    def write(self) -> None:
        """Keep it on disk, whole at any moment."""
        with self._lock:
            self._write()

    def begin_pack(self, path: str) -> None:
        self.packs.append(path)
        self.write()

    def begin_commit(self) -> None:
        self.committing = True
        self.write()

    def nothing_committed(self) -> None:
        """Note that no destination has the manifest: what was stored can be thrown away."""
        self.committing = False
        self.write()

    def settled(self, destination: str, *, committed: bool = False) -> None:
        """Note that `destination` holds the whole backup now (`committed`), or nothing of it."""
        with self._lock:
            self.committed = self.committed or committed
            self.destinations = [name for name in self.destinations if name != destination]
            if self.destinations:
                self._write()
            else:
                self._project.state.remove(self._record)

    def remove_from(self, destination: Destination, *, needed: Collection[str] = ()) -> list[str]:
        """Remove what the run stored there, but the packs that are `needed`; return the prefixes.

        What may not be deleted stays, and harms nobody.
        """
        packs = [path for path in self.packs if path not in needed]
        prefixes = [f"{self.name}/", *(f"{path}." for path in packs)]
        for prefix in prefixes:
            with contextlib.suppress(DeletionRefusedError):
                destination.sweep(prefix)
                for entry in [*destination.entries(prefix)]:
                    destination.delete(entry.name)
        return prefixes

    def _write(self) -> None:
        self._project.remember(
            self._record,
            {
                "name": self.name,
                "destinations": self.destinations,
                "packs": self.packs,
                "committing": self.committing,
                "committed": self.committed,
            },
        )


def run_notes(project: Project) -> list[RunNote]:
    """Return the notes of earlier runs, oldest first. Call it with the lock held."""
    try:
        names = project.state.names(FOLDER)
    except StateError as error:
        project.ignore(error)
        return []
    found = [project.recall(name, _checked, None) for name in names]
    return [
        RunNote(project, PurePath(name).stem, **values)
        for name, values in zip(names, found, strict=True)
        if values is not None
    ]


def is_ours(folder: str) -> bool:
    """Say whether the folder of a destination is called as our backups and packs are."""
    return bool(BACKUP_FOLDER.fullmatch(folder) or PACK_FOLDER.fullmatch(folder))


def manifest_path(name: str) -> str:
    return f"{name}/{manifests.FILE_NAME}"


def _checked(record: Any) -> dict[str, Any]:
    """Return the values of a note; raises ValueError, TypeError or KeyError where it is none."""
    values = {key: record[key] for key in ("name", "destinations", "packs")}
    flags = {key: record[key] for key in ("committing", "committed")}
    lists = (values["destinations"], values["packs"])
    if not all(isinstance(one, list) and all(isinstance(t, str) for t in one) for one in lists):
        raise ValueError(lists)
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ValueError(flags)
    if not BACKUP_FOLDER.fullmatch(values["name"]):
        raise ValueError(values["name"])
    if not all(PACK_FOLDER.fullmatch(path.rpartition("/")[0]) for path in values["packs"]):
        raise ValueError(values["packs"])
    return {**values, **flags}
