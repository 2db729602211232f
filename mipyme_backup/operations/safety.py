"""The safety backup: what a restore or an undo is about to put aside, saved first."""

from __future__ import annotations

from collections.abc import Iterable

from mipyme_backup.operations import backup
from mipyme_backup.operations.project import Progress, Project


def take_safety_backup(project: Project, names: Iterable[str], progress: Progress) -> str:
    """Save these sources, with the lock held already; return the name of the backup."""
    request = backup.Request(kind="safety", only=sorted(names))
    return backup.take(project, request, progress).manifest.name
