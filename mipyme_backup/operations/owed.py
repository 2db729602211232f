"""Copies that a destination lacks, or holds damaged: completed by a later run, or by hand."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path

from mipyme_backup.destinations import Destination
from mipyme_backup.errors import BackupError, NoBackupError, ObjectMissingError
from mipyme_backup.manifest import MAX_BYTES, Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import check_destination, choose
from mipyme_backup.operations.completing import complete
from mipyme_backup.operations.lanes import Lanes
from mipyme_backup.operations.notes import RunNote, manifest_path, run_notes
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import read_manifest, read_whole
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")


def complete_owed(project: Project, away: Collection[str], progress: Progress) -> None:
    """Complete what earlier runs noted as lacking; leaves out the destinations `away`.

    Whatever fails is a warning, and tried again by the next run. Nothing is owed any more to a
    destination that the settings lack, nor of a backup that was pruned where it was.
    """
    for note in [*run_notes(project)]:
        for name in {*note.destinations} - project.destinations.keys():
            note.settled(name)
        names = [n for n in note.destinations if n in project.destinations and n not in away]
        if not note.committing or not names:
            continue
        try:
            manifest, data = _committed(project, note)
        except ObjectMissingError:
            if not note.committed:  # else the disk that holds it may be away
                note.nothing_committed()  # the next run removes what is left of it
            elif project.catalog.was_pruned(note.backup_id):
                for name in note.destinations:  # what lies there, later backups may need
                    note.settled(name)
            continue
        except BackupError as error:
            text = _("The copies of %(name)s cannot be completed now: %(reason)s")
            warn(logger, text, name=note.name, reason=error)
            continue
        progress.step(Message(_("Completing the copies of %(name)s"), {"name": note.name}))
        failures = complete_on(project, manifest, data, names)
        for name, failure in failures.items():
            if failure is None:
                note.settled(name, committed=True)
            else:
                text = _("%(destination)s lacks a copy of %(name)s: %(reason)s")
                warn(logger, text, destination=name, name=note.name, reason=failure)
        project.catalog.finish(manifest, hashlib.sha256(data).hexdigest(), failures)


def complete_by_hand(
    project: Project, identifier: str, destinations: Collection[str], progress: Progress
) -> tuple[Manifest, bytes, dict[str, BackupError | None]]:
    """Complete the backup on the destinations, without any on all that lack it.

    Returns its manifest with its bytes, and what failed by destination. Raises LockedError,
    UsageError for an unknown destination, and NoBackupError where no destination has it whole.
    """
    for name in destinations:
        check_destination(project, name)
    with project.lock("backup"):
        choice = choose(project, identifier=identifier)
        manifest = choice.manifest
        lacking = [n for n in project.destinations if n not in choice.destinations]
        names = [n for n in project.destinations if n in destinations] or lacking
        holder = next((n for n in choice.destinations if n not in names), None)
        if holder is None:
            raise NoBackupError(
                _("There is no other copy of %(name)s to complete it from."),
                hint=_("Take another backup."),
                name=manifest.name,
            )
        data = read_whole(project.destinations[holder], manifest_path(manifest.name), MAX_BYTES)
        progress.step(Message(_("Completing the copies of %(name)s"), {"name": manifest.name}))
        failures = complete_on(project, manifest, data, names)
        for note in run_notes(project):
            if note.backup_id == manifest.id:
                for name in [name for name, failure in failures.items() if failure is None]:
                    note.settled(name, committed=True)
        copies = {**dict.fromkeys(choice.destinations), **failures}
        project.catalog.finish(manifest, hashlib.sha256(data).hexdigest(), copies)
    return manifest, data, copies


def complete_on(
    project: Project, manifest: Manifest, data: bytes, names: Collection[str]
) -> dict[str, BackupError | None]:
    """Complete the backup on the destinations `names` from the others; return what failed.

    `data` are the bytes of its manifest. What is there with the right size, and is no pack that
    other backups share, is read once more. One of `names` may hold it whole: a run may be killed
    before it notes so.
    """
    ranked = sorted(
        project.destinations.items(), key=lambda item: (item[0] in names, item[1].remote)
    )
    with (
        Lanes({name: project.destinations[name] for name in names}) as lanes,
        project.work_folder() as work,
    ):
        for name, lane in lanes.items():
            others = [destination for other, destination in ranked if other != name]
            lane.submit(partial(_complete, project, name, manifest, data, others, work))
        lanes.wait(lambda: not lanes.busy)
        return {name: lane.failure for name, lane in lanes.items()}


def _complete(
    project: Project,
    name: str,
    manifest: Manifest,
    data: bytes,
    others: Collection[Destination],
    work: Path,
    destination: Destination,
) -> None:
    destination.check()
    complete(
        project,
        name,
        manifest,
        data,
        others=lambda: others,
        unread=lambda path: path.startswith(f"{manifest.name}/"),
        work=work,
    )


def _committed(project: Project, note: RunNote) -> tuple[Manifest, bytes]:
    """Return the manifest and its bytes from the first destination that has it.

    Raises ObjectMissingError where none has it, another BackupError where some do not tell.
    """
    failure: BackupError = ObjectMissingError(_("No destination holds it."))
    for name, destination in project.destinations.items():
        found = read_manifest(project, name, note.name)
        if found.manifest is not None and found.manifest.id == note.backup_id:
            return found.manifest, read_whole(destination, manifest_path(note.name), MAX_BYTES)
        if found.error is not None and not isinstance(found.error, ObjectMissingError):
            failure = found.error
    raise failure
