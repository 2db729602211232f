"""Says what lies in `STATE_DIR`, or lay there once, and does not count."""

from __future__ import annotations

import contextlib

from mipyme_backup import former_state
from mipyme_backup.errors import BackupError, StateError
from mipyme_backup.journal import Entry
from mipyme_backup.messages import _
from mipyme_backup.operations.damage import known_damage
from mipyme_backup.operations.leftovers import noted
from mipyme_backup.operations.notes import run_notes
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.restored_targets import targets_of
from mipyme_backup.operations.sequence import newest_known
from mipyme_backup.state import IGNORED


def tell_ignored(project: Project) -> None:
    """Say which records of `STATE_DIR` do not count; `project.ignored` has them afterwards."""
    _tell_waiting(project)
    for error in project.journal.ignored():
        project.ignore(error)
    for entry in project.journal.entries():
        try:
            targets_of(project, entry)
        except StateError as error:
            project.ignore(error)
        except BackupError:
            continue  # not to be reached now: it is told where it is needed
    tell_set_aside(project)
    run_notes(project)
    known_damage(project)
    noted(project, "")
    newest_known(project)


def tell_set_aside(project: Project) -> None:
    """Say what lay in the way, and is neither used nor deleted."""
    for name in project.state.names_set_aside():
        text = _("%(path)s was set aside: it was no private file or folder of this user.")
        hint = _("Find out where it comes from, then delete it, or move it out of STATE_DIR.")
        path = project.state_dir / name
        project.ignore(StateError(text, hint=hint, record=name.partition(IGNORED)[0], path=path))


def waiting_restores(project: Project) -> list[Entry]:
    """Return the restores whose records an earlier version left where none is taken from yet."""
    if project.waiting_state_dir is None:
        return []
    with contextlib.suppress(OSError):
        return former_state.restores(project.waiting_state_dir)
    return []


def _tell_waiting(project: Project) -> None:
    """Say what of an earlier version would be lost with the container, and so is left alone."""
    former = project.waiting_state_dir
    if former is None:
        return
    with contextlib.suppress(OSError):
        if former_state.holds_records(former):
            text = _(
                "The records of an earlier version in %(former)s are not used: STATE_DIR"
                " (%(folder)s) is gone with this container."
            )
            hint = _(
                "Set STATE_DIR in MIPYME_BACKUP to a folder on a volume: the next run moves them"
                " there."
            )
            folder = project.state_dir
            project.ignore(
                StateError(text, hint=hint, record=former.name, former=former, folder=folder)
            )
    for entry in waiting_restores(project):
        if entry["finished_at"] is None and not entry.get("drill"):
            text = _("The restore %(id)s, noted in %(former)s, is unfinished.")
            hint = _(
                "Set STATE_DIR in MIPYME_BACKUP to a folder on a volume, then let the next run"
                " finish it: manage.py backup"
            )
            project.ignore(StateError(text, hint=hint, id=entry["id"], former=former))
