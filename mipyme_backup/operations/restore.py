"""Restore: choose, plan, load beside, check, safety backup, swap."""

from __future__ import annotations

import time

from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from mipyme_backup import signals
from mipyme_backup.errors import (
    BackupError,
    RestoreError,
    reason_of,
)
from mipyme_backup.journal import Entry
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import Choice, choose
from mipyme_backup.operations.loading import (
    bring_back_history,
    check,
    history_at_stake,
    load,
    rebuild_catalog,
    told_remarks,
)
from mipyme_backup.operations.origin import asked_for, other_origin, require_same_origin
from mipyme_backup.operations.planning import plan_lines
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.recovery import (
    roll_back,
    settle,
    swap_all,
)
from mipyme_backup.operations.safety import take_safety_backup
from mipyme_backup.operations.targets import Part, Request, Targets, left_out, make_targets
from mipyme_backup.operations.writing import new_id
from mipyme_backup.results import RestoreResult

ANY_ID = "<id>"
"""In a plan, in place of the id that the restore will give to what it makes."""


def plan(project: Project, request: Request) -> RestoreResult:
    """Say what a restore would do; changes nothing. Raises what would forbid it."""
    choice = _choose(project, request)
    restore_id = new_id()
    targets = make_targets(project, request, choice.manifest, restore_id)
    lines = plan_lines(project, request, choice, targets)
    others = other_origin(project, request, choice.manifest, targets)
    return RestoreResult(
        id="",
        status="planned",
        backup_id=choice.manifest.id,
        backup_name=choice.manifest.name,
        plan=(
            *(_without_id(line, restore_id) for line in lines),
            *others,
            *asked_for(request, others),
        ),
        left_out=tuple(left_out(project, choice.manifest, targets)),
        other_origin=tuple(others),
    )


def run(project: Project, request: Request, progress: Progress) -> RestoreResult:
    """Restore one backup. Live data is as it was unless this returns."""
    started = time.monotonic()
    with project.lock("restore") as lock:
        settle(project)
        choice = _choose(project, request)
        manifest, restore_id = choice.manifest, new_id()
        targets = make_targets(project, request, manifest, restore_id)
        lines = plan_lines(project, request, choice, targets)
        others = other_origin(project, request, manifest, targets)
        require_same_origin(request, manifest, others)
        signals.pre_restore.send_robust(sender=run, restore_id=restore_id, backup_id=manifest.id)
        entry = _entry(restore_id, manifest, targets, elsewhere=request.elsewhere)
        try:
            project.journal.write(entry)
            project.catalog.start_restore(restore_id, manifest, _names(targets))
            load(project, choice, targets, progress)
            check(manifest, targets, progress)
            lines += told_remarks(targets)
            if not request.elsewhere:
                entry["safety_backup"] = _safety_backup(project, request, targets, progress)
                rebuild_catalog(project, targets)
            replaced = {} if request.elsewhere else _replaced_names(targets)
            lock.check()
        except BaseException as error:
            roll_back(project, entry, [part.target for part in targets])
            project.catalog.end_restore(restore_id, "failed", reason_of(error))
            raise
        history = history_at_stake(project, targets)
        try:
            downtime = _swap(project, entry, targets, progress)
        except BackupError as error:
            project.catalog.end_restore(restore_id, "failed", str(error))
            raise
        if history is not None:
            bring_back_history(project, history)
        project.catalog.start_restore(restore_id, manifest, _names(targets))
        project.catalog.end_restore(
            restore_id, "complete", downtime=downtime, safety=entry["safety_backup"]
        )
        if request.migrate and not request.elsewhere:
            _migrate(targets, progress)
        signals.post_restore.send_robust(sender=run, restore_id=restore_id, backup_id=manifest.id)
    return RestoreResult(
        id=restore_id,
        status="complete",
        backup_id=manifest.id,
        backup_name=manifest.name,
        plan=(*lines, *others),
        other_origin=tuple(others),
        safety_backup=entry["safety_backup"],
        replaced=replaced,
        left_out=tuple(left_out(project, manifest, targets)),
        seconds=time.monotonic() - started,
        downtime_seconds=downtime,
    )


def _without_id(line: Message, restore_id: str) -> Message:
    """Return a line of a plan that names no id: the restore itself will have another."""

    def without(value: object) -> object:
        if isinstance(value, Message):
            return _without_id(value, restore_id)
        if isinstance(value, int | float):
            return value
        return str(value).replace(restore_id, ANY_ID)

    return Message(line.text, {name: without(value) for name, value in line.params.items()})


def _choose(project: Project, request: Request) -> Choice:
    return choose(
        project,
        identifier=request.identifier,
        at=request.at,
        destination=request.destination,
        only=request.only,
    )


def _entry(restore_id: str, manifest: Manifest, targets: Targets, *, elsewhere: bool) -> Entry:
    return {
        "id": restore_id,
        "backup": manifest.id,
        "phase": "loading",
        "elsewhere": elsewhere,
        "merges": sorted({str(part.target.alias) for part in targets if part.target.merges}),
        "targets": [part.target.state for part in targets if not part.target.merges],
        "safety_backup": None,
        "finished_at": None,
    }


def _names(targets: Targets) -> list[str]:
    return [part.source.name for part in targets]


def _safety_backup(
    project: Project, request: Request, targets: Targets, progress: Progress
) -> str | None:
    if not request.safety_backup:
        return None
    live = {name for part in targets for name in _at_stake(project, part)}
    if not live:
        progress.step(Message(_("There is no live data to save: no safety backup.")))
        return None
    try:
        return take_safety_backup(project, live, progress)
    except BackupError as error:
        raise RestoreError(
            _("The safety backup failed, so nothing was restored: %(reason)s"),
            hint=_("Mend that, or restore without one: --no-safety-backup"),
            reason=error,
        ) from error


def _at_stake(project: Project, part: Part) -> list[str]:
    """Return the sources that save what this target replaces, or merges into."""
    if part.target.merges:
        return [s.name for s in project.sources.values() if s.alias == part.target.alias]
    return [part.source.name] if part.target.has_live() else []


def _migrate(targets: Targets, progress: Progress) -> None:
    progress.step(Message(_("Running migrate")))
    restored = [part.target for part in targets if not part.target.merges]
    aliases = [target.alias for target in restored if target.alias is not None]
    try:
        for alias in aliases or [DEFAULT_DB_ALIAS]:
            call_command("migrate", database=alias, interactive=False, verbosity=0)
    except (CommandError, DatabaseError) as error:
        raise RestoreError(
            _("The backup is restored, but migrate failed: %(reason)s"),
            hint=_("Mend the migration and run migrate, or swap back: restore --undo"),
            reason=error,
        ) from error


def _replaced_names(targets: Targets) -> dict[str, str]:
    """Return where the live data of each source will be kept, where it is; note what is live."""
    for part in targets:
        part.target.state["had_live"] = part.target.has_live()
    return {
        part.source.name: part.target.kept_at()
        for part in targets
        if not part.target.for_good and part.target.state["had_live"]
    }


def _swap(project: Project, entry: Entry, targets: Targets, progress: Progress) -> float:
    """Cut over; from the journal's mark on, a later run finishes what a crash interrupts."""
    progress.step(Message(_("Cutting over")))
    connections.close_all()
    entry["phase"] = "swapping"
    project.journal.write(entry)
    return swap_all(project, entry, [part.target for part in targets])
