"""Which packs a verification found damaged: the next backup must not build on them.

Packs are shared by many backups and never read again once stored, so without this note every
later backup would refer to the same damaged bytes while the media folder still has good ones.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any

from mipyme_backup.operations.project import Project

Damage = Mapping[str, frozenset[str]]
"""The paths of damaged packs by destination."""

RECORD = "damaged_packs.json"

_writing = threading.Lock()  # a run tells of several destinations at once


def known_damage(project: Project) -> Damage:
    """Return what earlier verifications found; nothing where they left no note."""
    return project.recall(RECORD, _parsed, {})


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
        project.remember(RECORD, {name: sorted(paths) for name, paths in known.items()})


def _parsed(record: Any) -> Damage:
    if not all(isinstance(path, str) for paths in record.values() for path in paths):
        raise ValueError(RECORD)
    return {name: frozenset(paths) for name, paths in record.items()}
