"""What each run writes down before its first byte, so that a later one can end what it left.

While a run is *writing*, all that it stored can be thrown away. From before its first manifest
is written it is *committing*, and from after that *committed*: there is a backup, and the
destinations that are still in the note lack a copy, which is completed from there.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from mipyme_backup import manifest as manifests
from mipyme_backup.destinations import Destination
from mipyme_backup.errors import DeletionRefusedError
from mipyme_backup.operations.project import Project
from mipyme_backup.private_files import make_folder, write_file


class RunNote:
    """The note of the run `backup_id`: a file in `STATE_DIR`, gone when `destinations` is empty.

    `destinations` are those where something of the run may lie that is no whole backup, `packs`
    the paths of the packs that it began. Several threads may share one, and no two of the same
    file may be in use.
    """

    def __init__(
        self,
        file: Path,
        *,
        name: str,
        destinations: Sequence[str],
        packs: Sequence[str] = (),
        committing: bool = False,
        committed: bool = False,
    ) -> None:
        self.backup_id = file.stem
        self.name = name
        self.destinations = list(destinations)
        self.packs = list(packs)
        self.committing = committing
        self.committed = committed
        self._file = file
        self._temporary = file.with_suffix(".tmp")
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
                self._temporary.unlink(missing_ok=True)  # of a run killed while it wrote
                self._file.unlink(missing_ok=True)

    def remove_from(self, destination: Destination) -> None:
        """Remove what the run stored there; what may not be deleted stays, and harms nobody."""
        for prefix in (f"{self.name}/", *(f"{path}." for path in self.packs)):
            with contextlib.suppress(DeletionRefusedError):
                destination.sweep(prefix)
                for entry in [*destination.entries(prefix)]:
                    destination.delete(entry.name)

    def _write(self) -> None:
        make_folder(self._file.parent)
        self._temporary.unlink(missing_ok=True)
        write_file(self._temporary, json.dumps(self._values()).encode())
        self._temporary.rename(self._file)

    def _values(self) -> dict[str, object]:
        return {
            "name": self.name,
            "destinations": self.destinations,
            "packs": self.packs,
            "committing": self.committing,
            "committed": self.committed,
        }


def new_note(project: Project, backup_id: str, name: str, destinations: Sequence[str]) -> RunNote:
    note = RunNote(_folder(project) / f"{backup_id}.json", name=name, destinations=destinations)
    note.write()
    return note


def run_notes(project: Project) -> Iterator[RunNote]:
    """Yield the notes of earlier runs, oldest first. Call it with the lock held."""
    files = sorted(_folder(project).glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    for file in files:
        yield RunNote(file, **json.loads(file.read_text()))


def manifest_path(name: str) -> str:
    return f"{name}/{manifests.FILE_NAME}"


def _folder(project: Project) -> Path:
    return project.state_dir / "runs"
