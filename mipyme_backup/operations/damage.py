"""Which packs a verification found damaged: the next backup must not build on them.

Packs are shared by many backups and never read again once stored, so without this note every
later backup would refer to the same damaged bytes while the media folder still has good ones.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from mipyme_backup.operations.project import Project
from mipyme_backup.private_files import make_folder, write_file

Damage = Mapping[str, frozenset[str]]
"""The paths of damaged packs by destination."""

_writing = threading.Lock()  # a run tells of several destinations at once


def known_damage(project: Project) -> Damage:
    """Return what earlier verifications found; nothing where they left no note."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        noted = json.loads(_file(project).read_text())
        return {name: frozenset(paths) for name, paths in noted.items()}
    return {}


def note_damage(
    project: Project, destination: str, *, damaged: Collection[str], sound: Collection[str]
) -> None:
    """Add the packs found damaged on `destination`, take those away that are sound (again)."""
    with _writing:
        known = dict(known_damage(project))
        before = known.get(destination, frozenset())
        known[destination] = (before - set(sound)) | set(damaged)
        if known[destination] == before:
            return
        make_folder(project.state_dir)
        file = _file(project)
        temporary = file.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        write_file(temporary, json.dumps({n: sorted(p) for n, p in known.items()}).encode())
        temporary.rename(file)


def _file(project: Project) -> Path:
    return project.state_dir / "damaged_packs.json"
