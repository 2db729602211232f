"""After a crash: finish a restore that had begun to swap, roll back one that had not."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from django.db import Error

from mipyme_backup.errors import BackupError, DestinationError, RestoreError, StateError
from mipyme_backup.journal import Entry, Phase
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import listings
from mipyme_backup.operations.ignored import tell_ignored, tell_set_aside
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.restored_targets import targets_of
from mipyme_backup.operations.undisturbed import undisturbed
from mipyme_backup.operations.unremoved import note as note_unremoved
from mipyme_backup.sources.base import Target
from mipyme_backup.translation import translated, warn

logger = logging.getLogger("mipyme_backup")

CANNOT_REMOVE = _("What restore %(id)s loaded cannot be removed: %(reason)s")
CANNOT_FORGET = _("What restore %(id)s replaced cannot be removed: %(reason)s")
REPLACED = ("before", "replaced")
"""By what names the targets know what they have replaced."""
FAILURES = (BackupError, OSError, Error)


def settle(project: Project) -> None:
    """End what killed runs left, and what was kept long enough. Call it with the lock held."""
    with settled(project):
        pass


@contextlib.contextmanager
def settled(project: Project) -> Iterator[None]:
    """Run the block once what killed runs left is ended; no far destination is waited for before.

    What such a run had committed is looked for on this machine before, and on the far ones after
    the block; where all are far, before. Call it with the lock held.
    """
    tell_ignored(project)
    recover(project)
    later = _end_killed_runs(project)
    project.sweep_work()
    tell_set_aside(project)
    remove_expired(project)
    try:
        yield
    except BackupError:
        _catch_up(project, later)
        raise
    _catch_up(project, later)


def _end_killed_runs(project: Project) -> list[str]:
    """Say in the catalog what became of runs that were killed: a few came to their end before.

    Returns the names of the destinations that the catalog has to catch up with later.
    """
    if not project.catalog.has_running():
        return []
    ended = {"done": "complete", "undone": "undone"}
    project.catalog.abandon_running(
        {e["id"]: ended[e["phase"]] for e in project.journal.entries() if e["phase"] in ended}
    )
    far = [name for name, destination in project.destinations.items() if destination.remote]
    near = [name for name in project.destinations if name not in far]
    _catch_up(project, near or far)
    return far if near else []


def _catch_up(project: Project, names: Sequence[str]) -> None:
    """Have the catalog say what these destinations hold, as far as they can be listed."""
    if names:
        with contextlib.suppress(DestinationError):
            project.catalog.sync(listings(project, names))


def recover(project: Project) -> None:
    """Bring every interrupted restore to an end.

    Raises only where live data may be half old and half new, and stays so.
    """
    for entry in project.journal.unfinished():
        try:
            targets = targets_of(project, entry)
        except StateError as error:
            project.ignore(error)
            continue
        except RestoreError as error:
            if entry["phase"] != "loading":
                raise
            warn(logger, CANNOT_REMOVE, id=entry["id"], reason=error)
            continue
        if entry["phase"] == "loading":
            _abandon(project, entry, targets)
        elif entry["phase"] == "swapping":
            _finish(project, entry, targets)
        else:
            undo_targets(project, entry, targets)
            text = _("The interrupted undo of restore %(id)s was finished.")
            warn(logger, text, id=entry["id"])


def _abandon(project: Project, entry: Entry, targets: Sequence[Target]) -> None:
    if roll_back(project, entry, targets):
        project.catalog.end_restore(entry["id"], "abandoned")
        text = _("The interrupted restore %(id)s was rolled back.")
        if entry.get("drill"):
            text = _("The interrupted drill %(id)s was rolled back.")
        warn(logger, text, id=entry["id"])


def _finish(project: Project, entry: Entry, targets: Sequence[Target]) -> None:
    """Swap the rest, where the swap had begun to change what is live; else roll back.

    The site may have gone on for hours with what a swap that never began would replace.
    """
    try:
        if targets and not any(target.swap_has_begun() for target in targets):
            entry["phase"] = "loading"
            project.journal.write(entry)
            _abandon(project, entry, targets)
            return
        swap_all(project, entry, targets)
    except BackupError as error:
        if entry["phase"] == "swapping":
            raise
        project.catalog.end_restore(entry["id"], "failed", str(error))
        text = _("The interrupted restore %(id)s was rolled back: %(reason)s")
        warn(logger, text, id=entry["id"], reason=error)
    else:
        if entry["merges"]:
            _say_merge_is_open(project, entry)
        else:
            project.catalog.end_restore(entry["id"], "complete")
            warn(logger, _("The interrupted restore %(id)s was finished."), id=entry["id"])


def _say_merge_is_open(project: Project, entry: Entry) -> None:
    """Fixtures are merged last and by the process that read them: nobody knows how far it came."""
    text = Message(
        _("The restore was interrupted while fixtures were merged into %(aliases)s."),
        {"aliases": ", ".join(entry["merges"])},
    )
    project.catalog.end_restore(entry["id"], "failed", str(text))
    hint = _("%(what)s Merge them again: restore %(backup)s --only fixtures")
    warn(logger, hint, what=text, backup=entry["backup"])


def roll_back(project: Project, entry: Entry, targets: Sequence[Target]) -> bool:
    """Remove what was loaded beside; say whether all of it is gone.

    What cannot be removed harms nobody, so that is a warning, and the next run tries again.
    """
    # One that fails keeps no other from being removed, but the journal's entry for the next run.
    failed = [target for target in targets if not _removed(project, entry, target.discard)]
    return not failed and _removed(project, entry, lambda: project.journal.remove(entry))


def _removed(project: Project, entry: Entry, remove: Callable[[], None]) -> bool:
    try:
        remove()
    except FAILURES as error:
        warn(logger, CANNOT_REMOVE, id=entry["id"], reason=error)
        note_unremoved(project, entry["id"], error)
        return False
    return True


def swap_all(project: Project, entry: Entry, targets: Sequence[Target]) -> float:
    """Swap every target in, or none: where one fails, those before it are swapped back.

    Returns the seconds of downtime. What was restored elsewhere, or merged, replaces nothing:
    there is nothing to keep of it.
    """
    with undisturbed():
        swapped: list[Target] = []
        try:
            downtime = 0.0
            for target in targets:
                downtime += _swap_stubbornly(target)
                swapped.append(target)
        except BackupError:
            for target in reversed(swapped):
                target.undo()
            # Nothing is swapped any more: a crash must not swap in what is left of it.
            entry["phase"] = "loading"
            project.journal.write(entry)
            roll_back(project, entry, targets)
            raise
        except BaseException:
            text = _("The cut-over was interrupted: the next backup or restore finishes it.")
            logger.error(translated(Message(text)))
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
    except FAILURES as error:
        warn(logger, _("The swap failed and is tried once more: %(reason)s"), reason=error)
        return target.swap()


def undo_targets(project: Project, entry: Entry, targets: Sequence[Target]) -> None:
    """Swap everything that was replaced back in, in the reverse order, or nothing.

    What replaced nothing stays: it would leave the site without a database.
    """
    with undisturbed():
        undone: list[Target] = []
        try:
            for target in reversed(_to_undo(entry, targets)):
                target.undo()
                undone.append(target)
            if "stays" not in entry:  # an earlier version took everything out
                for target in targets:
                    if not target.has_live():
                        target.swap()
        except BackupError:
            for target in reversed(undone):
                target.swap()
            _end(project, entry, "done")  # it can be tried again, and blocks nobody meanwhile
            raise
        _end(project, entry, "undone")
    project.catalog.end_restore(entry["id"], "undone")
    with contextlib.suppress(DestinationError):  # the catalog that is back knows nothing newer
        project.catalog.sync(listings(project, [*project.destinations]))


def _to_undo(entry: Entry, targets: Sequence[Target]) -> list[Target]:
    stays = entry.get("stays", [])
    return [target for number, target in enumerate(targets) if number not in stays]


def remove_expired(project: Project) -> None:
    """Remove what restores and undos replaced longer ago than `KEEP_REPLACED_HOURS`.

    What cannot be removed keeps no backup and no restore from running: it is warned about.
    """
    for entry in project.journal.entries():
        if entry["finished_at"] is None:
            continue
        age = datetime.now(UTC) - datetime.fromisoformat(entry["finished_at"])
        if age < project.keep_replaced:
            continue
        try:
            targets = targets_of(project, entry)
            for target in targets:
                target.remove_replaced()
        except StateError:
            _forget(project, entry)
        except FAILURES as error:
            warn(logger, CANNOT_FORGET, id=entry["id"], reason=error)
            note_unremoved(project, entry["id"], error)
        else:
            roll_back(project, entry, targets)


def _forget(project: Project, entry: Entry) -> None:
    """Drop the record of a restore that does not fit the settings any more: it can do nothing.

    What the record says of places is no order, so what lies there is named and left alone.
    """
    try:
        project.journal.remove(entry)
    except OSError as error:
        warn(logger, CANNOT_FORGET, id=entry["id"], reason=error)
        return
    named = [str(state.get(key) or "") for state in entry["targets"] for key in REPLACED]
    left = [name for name in named if name and (name[0] != "/" or os.path.lexists(name))]
    if left:
        text = _(
            "KEEP_REPLACED_HOURS are over for the restore %(id)s, which does not fit the settings"
            " any more: its record was deleted, and what it replaced stays: %(places)s."
        )
        hint = _("Check what these files or databases are, and delete them by hand.")
        project.ignore(
            StateError(text, hint=hint, finished=True, id=entry["id"], places=", ".join(left))
        )


def _end(project: Project, entry: Entry, phase: Phase) -> None:
    entry["phase"] = phase
    entry["finished_at"] = datetime.now(UTC).isoformat()
    project.journal.write(entry)
