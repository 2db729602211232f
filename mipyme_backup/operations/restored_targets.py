"""The targets of a restore that the journal describes, made again from the settings."""

from __future__ import annotations

from typing import Any

from django.db import connections

from mipyme_backup.errors import RestoreError, StateError
from mipyme_backup.journal import Entry
from mipyme_backup.messages import _
from mipyme_backup.operations.project import Project
from mipyme_backup.sources import media
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
    if state["type"] in media.TARGETS:
        return media.restored_target(project.media, state, elsewhere=elsewhere)
    if state["alias"] not in connections.settings:
        raise RestoreError(
            _("A restore of the database %(alias)s is kept, which is not in DATABASES any more."),
            hint=_("Put it back there until KEEP_REPLACED_HOURS are over."),
            alias=state["alias"],
        )
    return project.databases.restored_target(state, elsewhere=elsewhere)
