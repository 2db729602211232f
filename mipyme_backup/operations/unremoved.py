"""What restores and drills made or replaced and could not remove: told until it is gone.

Each run tries again, so what is noted here changes nothing of what is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from mipyme_backup.errors import PreflightError
from mipyme_backup.operations.project import Project

RECORD = "unremoved.json"


def note(project: Project, restore_id: str, reason: object) -> None:
    """Note why something of the restore `restore_id` is still there."""
    with contextlib.suppress(PreflightError):  # it was logged, and the next run tries again
        project.remember(RECORD, {**unremoved(project), restore_id: str(reason)})


def unremoved(project: Project) -> Mapping[str, str]:
    """Return the reasons by the ids of the restores that are still in the journal."""
    noted: Mapping[str, str] = project.recall(RECORD, _parsed, {})
    known = {entry["id"] for entry in project.journal.entries()}
    return {restore_id: reason for restore_id, reason in noted.items() if restore_id in known}


def _parsed(record: Any) -> Mapping[str, str]:
    if not all(isinstance(text, str) for pair in record.items() for text in pair):
        raise ValueError("a note that is no text")
    return dict(record)
