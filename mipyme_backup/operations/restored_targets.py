"""The targets of a restore that the journal describes, made again from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mipyme_backup.errors import RestoreError, StateError
from mipyme_backup.journal import Entry
from mipyme_backup.messages import _
from mipyme_backup.operations.project import Project
from mipyme_backup.sources.base import Target


def targets_of(project: Project, entry: Entry) -> list[Target]:
    """Return the targets that the journal describes.

    Raises StateError where they are no targets of this project, and RestoreError where their
    place is not in the settings any more.
    """
    try:
        return [_target(project, state, entry["elsewhere"]) for state in entry["targets"]]
    except StateError as error:
        project.journal.attributed(error, entry)
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise project.journal.not_ours(entry) from error


def _target(project: Project, state: dict[str, Any], elsewhere: bool) -> Target:
    name = source_name(state)
    source = project.find_source(name)
    if source is None:
        raise RestoreError(
            _("A restore of %(name)s is kept, and SOURCES has no such entry any more."),
            hint=_("Put it back there until KEEP_REPLACED_HOURS are over."),
            name=name,
        )
    return source.restored_target(state, elsewhere=elsewhere)


def source_name(state: Mapping[str, Any]) -> str:
    """Return the source of a target; that of a version before 1.0 by what it was then."""
    if "source" in state:
        return str(state["source"])
    if state["type"] in {"media", "remote_media"}:
        return "media"
    return f"database:{state['alias']}"
