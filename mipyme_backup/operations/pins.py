"""Pinning a backup: a small file beside each copy, and a mark in the catalog.

The file outlives the database and this host: whoever reads the destination sees the pin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipyme_backup.destinations import Destination
from mipyme_backup.errors import DeletionRefusedError, DestinationError
from mipyme_backup.operations.choosing import choose
from mipyme_backup.operations.layout import PIN_FILE
from mipyme_backup.operations.notes import manifest_path
from mipyme_backup.operations.project import Project
from mipyme_backup.private_files import write_file
from mipyme_backup.translation import translated

CONTENT = (
    b"This backup is pinned: prune_backups keeps it. pin_backup --remove takes the pin away.\n"
)


@dataclass(frozen=True, kw_only=True)
class PinResult:
    """What became of a pin; `copies` are the destinations that hold the backup, or may.

    One with an error is as it was.
    """

    id: str
    name: str
    pinned: bool
    copies: Mapping[str, DestinationError | None]

    @property
    def failed(self) -> bool:
        return any(self.copies.values())

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "pinned": self.pinned,
            "copies": [
                {"destination": name, "error": translated(error.message) if error else None}
                for name, error in self.copies.items()
            ],
        }


def pin(project: Project, identifier: str, *, pinned: bool) -> PinResult:
    """Pin a backup on every destination that holds it, or take the pin away.

    The catalog calls it pinned until no destination may do so any more. Raises LockedError, and
    what `choose` raises where no backup is named, or several are.
    """
    copies: dict[str, DestinationError | None] = {}
    with project.lock("pin"), project.work_folder() as work:
        manifest = choose(project, identifier=identifier).manifest
        for name, destination in project.destinations.items():
            try:
                if destination.size(manifest_path(manifest.name)) is not None:
                    copies[name] = None
                    _set(destination, f"{manifest.name}/{PIN_FILE}", pinned, work)
            except DestinationError as error:
                copies[name] = error
        left = pinned or any(copies.values())
        project.catalog.pin(manifest.id, left)
    return PinResult(id=manifest.id, name=manifest.name, pinned=left, copies=copies)


def _set(destination: Destination, path: str, pinned: bool, work: Path) -> None:
    """Put the file there, or remove it; an empty one is no pin where nothing may be deleted."""
    if pinned:
        _put(destination, path, CONTENT, work)
        return
    try:
        destination.delete(path)
    except DeletionRefusedError:
        _put(destination, path, b"", work)


def _put(destination: Destination, path: str, content: bytes, work: Path) -> None:
    file = work / PIN_FILE
    file.unlink(missing_ok=True)
    write_file(file, content)
    destination.put(path, file)
