"""After a crash: finish a restore that had begun to swap, roll back one that had not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mipyme_backup.errors import BackupError
from mipyme_backup.journal import Entry, Phase
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.writing import sweep_unfinished
from mipyme_backup.sources.base import Target
from mipyme_backup.sources.media import MediaTarget

logger = logging.getLogger("mipyme_backup")


def settle(project: Project) -> None:
    """End what killed runs left, and what was kept long enough. Call it with the lock held."""
    recover(project)
    for backup_id in sweep_unfinished(project):
        project.catalog.abandon(backup_id)
    project.sweep_work()
    remove_expired(project)


def recover(project: Project) -> None:
    """Bring every interrupted restore to an end."""
    for entry in project.journal.unfinished():
        targets = [target_of(project, state) for state in entry["targets"]]
        if entry["phase"] == "loading":
            for target in targets:
                target.discard()
            project.journal.remove(entry)
            project.catalog.end_restore(entry["id"], "abandoned")
            logger.warning("The interrupted restore %s was rolled back.", entry["id"])
        elif entry["phase"] == "swapping":
            swap_all(project, entry, targets)
            project.catalog.end_restore(entry["id"], "complete")
            logger.warning("The interrupted restore %s was finished.", entry["id"])
        else:
            undo_targets(project, entry, targets)
            logger.warning("The interrupted undo of restore %s was finished.", entry["id"])


def swap_all(project: Project, entry: Entry, targets: Sequence[Target]) -> float:
    """Swap every target in, or none: where one fails, those before it are swapped back.

    Returns the seconds of downtime. What was restored elsewhere, or merged, replaces nothing:
    there is nothing to keep of it.
    """
    swapped: list[Target] = []
    try:
        downtime = 0.0
        for target in targets:
            downtime += _swap_stubbornly(target)
            swapped.append(target)
    except BackupError:
        for target in reversed(swapped):
            target.undo()
        for target in targets:
            target.discard()
        project.journal.remove(entry)
        raise
    if entry["elsewhere"] or not entry["targets"]:
        for target in targets:
            target.remove_replaced()
        project.journal.remove(entry)
    else:
        _end(project, entry, "done")
    return downtime


def _swap_stubbornly(target: Target) -> float:
    """Swap, and where that fails once more: what was swapped may only lack its last step."""
    try:
        return target.swap()
    except BackupError as error:
        logger.warning("The swap failed and is tried once more: %s", error)
        return target.swap()


def undo_targets(project: Project, entry: Entry, targets: Sequence[Target]) -> None:
    """Swap everything that was replaced back in, in the reverse order."""
    try:
        for target in reversed(targets):
            target.undo()
    except BackupError:
        _end(project, entry, "done")  # it can be tried again, and blocks nobody meanwhile
        raise
    _end(project, entry, "undone")
    project.catalog.end_restore(entry["id"], "undone")


def remove_expired(project: Project) -> None:
    """Remove what restores and undos replaced longer ago than `KEEP_REPLACED_HOURS`."""
    for entry in project.journal.entries():
        if entry["finished_at"] is None:
            continue
        age = datetime.now(UTC) - datetime.fromisoformat(entry["finished_at"])
        if age >= project.keep_replaced:
            for state in entry["targets"]:
                target = target_of(project, state)
                target.remove_replaced()
                target.discard()
            project.journal.remove(entry)


def _end(project: Project, entry: Entry, phase: Phase) -> None:
    entry["phase"] = phase
    entry["finished_at"] = datetime.now(UTC).isoformat()
    project.journal.write(entry)


def target_of(project: Project, state: dict[str, Any]) -> Target:
    """Return the target that a journal describes."""
    if state["type"] == "media":
        return MediaTarget.from_state(state)
    return project.databases.restored_target(state)
