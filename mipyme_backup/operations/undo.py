"""Undo: what the last restore replaced is swapped back, and what it brought is kept aside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import connections

from mipyme_backup.errors import BackupError, NoBackupError, RestoreError
from mipyme_backup.journal import Entry
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.recovery import settle, undo_targets
from mipyme_backup.operations.restored_targets import source_name, targets_of
from mipyme_backup.operations.safety import take_safety_backup
from mipyme_backup.results import RestoreResult
from mipyme_backup.sources.base import Target


@dataclass(frozen=True, kw_only=True)
class _Undo:
    """The restore to undo, its targets with the names of their sources, and which of them stay."""

    entry: Entry
    targets: Sequence[Target]
    names: Sequence[str]
    stays: Sequence[int]

    @property
    def undone(self) -> list[tuple[str, Target]]:
        pairs = zip(self.names, self.targets, strict=True)
        return [pair for number, pair in enumerate(pairs) if number not in self.stays]

    @property
    def staying(self) -> tuple[str, ...]:
        return tuple(self.names[number] for number in self.stays)


def plan(project: Project, *, safety_backup: bool = True) -> RestoreResult:
    """Say what an undo would do; changes nothing. Raises what `run` would."""
    found = _find(project)
    return _result(
        found,
        status="planned",
        plan=tuple(_plan_lines(project, found, safety_backup=safety_backup)),
    )


def run(project: Project, progress: Progress, *, safety_backup: bool = True) -> RestoreResult:
    """Swap back what the last restore replaced.

    Raises NoBackupError where it replaced nothing, or that is gone. What replaced nothing stays as
    it is. What is put aside is saved first, unless without `safety_backup`.
    """
    started = time.monotonic()
    with project.lock("restore") as lock:
        settle(project)
        found = _find(project)
        lines = _plan_lines(project, found, safety_backup=safety_backup)
        safety = _safety_backup(project, found, progress) if safety_backup else None
        text = _("Swapping back what the restore %(id)s replaced")
        progress.step(Message(text, {"id": found.entry["id"]}))
        lock.check()
        connections.close_all()
        entry = found.entry
        entry["phase"], entry["finished_at"] = "undoing", None
        entry["stays"] = [*found.stays]
        entry["safety_backup"] = safety or entry["safety_backup"]  # no prune deletes it meanwhile
        project.journal.write(entry)
        undo_targets(project, entry, found.targets)
    return _result(
        found,
        status="undone",
        plan=tuple(lines),
        safety_backup=safety,
        seconds=time.monotonic() - started,
    )


def _find(project: Project) -> _Undo:
    entry = project.journal.newest_done()
    if entry is None:
        raise NoBackupError(
            _("There is no restore to undo: nothing that one replaced is kept any more."),
            hint=_("Restore the safety backup instead; list_backups shows it."),
        )
    targets = targets_of(project, entry)
    names = [source_name(state) for state in entry["targets"]]
    stays = []
    for number, (name, target) in enumerate(zip(names, targets, strict=True)):
        # Journals of earlier versions do not say whether anything was live.
        if target.for_good and target.state.get("had_live", True):
            raise RestoreError(
                _(
                    "%(name)s was replaced in place, so the restore %(id)s cannot be undone: what"
                    " it replaced is in the safety backup."
                ),
                hint=_("Restore that one: list_backups shows it."),
                name=name,
                id=entry["id"],
            )
        if not target.has_replaced():
            stays.append(number)
            if target.state.get("had_live"):
                raise NoBackupError(
                    _("What the restore %(id)s replaced of %(name)s is not kept any more."),
                    hint=_("Restore the safety backup instead; list_backups shows it."),
                    id=entry["id"],
                    name=name,
                )
    if len(stays) == len(targets):
        raise NoBackupError(
            _("The restore %(id)s replaced nothing, so there is nothing to undo."),
            hint=_(
                "To go back to other data, restore another backup: list_backups shows those that"
                " there are."
            ),
            id=entry["id"],
        )
    return _Undo(entry=entry, targets=targets, names=names, stays=stays)


def _plan_lines(project: Project, found: _Undo, *, safety_backup: bool) -> list[Message]:
    text = _("The restore %(id)s of the backup %(backup)s is undone.")
    lines = [Message(text, {"id": found.entry["id"], "backup": found.entry["backup"]})]
    for name, target in found.undone:
        text = _("%(name)s: what the restore replaced is swapped back, from %(place)s")
        lines.append(Message(text, {"name": name, "place": target.kept_at()}))
    for name in found.staying:
        text = _("%(name)s stays as it is: the restore replaced nothing there.")
        lines.append(Message(text, {"name": name}))
    if safety_backup:
        text = _("What is put aside is saved first, as a safety backup.")
    else:
        text = _("NO safety backup of what is put aside is taken.")
    lines.append(Message(text))
    text = _("What is put aside is kept for %(hours)d hours.")
    lines.append(Message(text, {"hours": project.keep_replaced / timedelta(hours=1)}))
    return lines


def _safety_backup(project: Project, found: _Undo, progress: Progress) -> str | None:
    live = {name for name, target in found.undone if target.has_live()}
    if not live:
        progress.step(Message(_("There is no live data to save: no safety backup.")))
        return None
    try:
        return take_safety_backup(project, live, progress)
    except BackupError as error:
        raise RestoreError(
            _("The safety backup failed, so nothing was undone: %(reason)s"),
            hint=_(
                "Fix the problem that it reports, or undo without one: restore --undo"
                " --no-safety-backup"
            ),
            reason=error,
        ) from error


def _result(
    found: _Undo,
    *,
    status: str,
    plan: tuple[Message, ...],
    safety_backup: str | None = None,
    seconds: float = 0.0,
) -> RestoreResult:
    return RestoreResult(
        id=found.entry["id"],
        status=status,
        backup_id=found.entry["backup"],
        backup_name="",
        plan=plan,
        safety_backup=safety_backup,
        stays=found.staying,
        seconds=seconds,
    )
