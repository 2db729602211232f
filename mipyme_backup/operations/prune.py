"""Prune: on each destination delete what its policy lets go, and what belongs to no backup."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mipyme_backup.catalog import Known
from mipyme_backup.errors import BackupError, CatalogError, DestinationError, PreflightError
from mipyme_backup.lock import ProjectLock
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import check_destination
from mipyme_backup.operations.deleting import Deleting
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import Holdings, holdings
from mipyme_backup.operations.recovery import settle
from mipyme_backup.operations.survey import copies_on, lacking, newest_whole, pinned_on
from mipyme_backup.policy.finding import age_text
from mipyme_backup.policy.retention import Decision, held_back, plan
from mipyme_backup.results import Action, Outcome, Pruned, PruneResult

MOST_AHEAD = timedelta(days=1)
"""How far this host's clock may be ahead: retention counts whole days."""


def run(
    project: Project,
    *,
    destinations: Sequence[str] = (),
    dry_run: bool = False,
    wait: bool = False,
    progress: Progress,
) -> PruneResult:
    """Prune the destinations of these names, without any all of them.

    A dry run changes nothing and needs no lock. Raises LockedError, UsageError for an unknown
    destination, and PreflightError where the catalog cannot be read.
    """
    asked = dict.fromkeys(check_destination(project, name) for name in destinations)
    names = [*(asked or project.destinations)]
    with contextlib.nullcontext() if dry_run else project.lock("prune", wait=wait) as lock:
        if lock is not None:
            settle(project)
        now = datetime.now(UTC)
        known = _known(project, now)
        stop = _stopped(project, known)
        if stop is not None:
            return PruneResult(
                dry_run=dry_run,
                destinations=tuple(Pruned(destination=name, error=stop) for name in names),
            )
        held = {name: _listed(project, name) for name in names}
        pinned = known.pinned | pinned_on(one for one in held.values() if isinstance(one, Holdings))
        return PruneResult(
            dry_run=dry_run,
            destinations=tuple(
                _prune(project, name, one, known, pinned, now, progress, lock)
                if isinstance(one, Holdings)
                else Pruned(destination=name, error=one)
                for name, one in held.items()
            ),
        )


def _prune(
    project: Project,
    name: str,
    held: Holdings,
    known: Known,
    pinned: frozenset[str],
    now: datetime,
    progress: Progress,
    lock: ProjectLock | None,
) -> Pruned:
    """Prune one destination; without a lock, say what would be done."""
    progress.step(Message(_("Pruning %(name)s"), {"name": name}))
    try:
        gone = lacking(project, name, held, known)
    except DestinationError as untrusted:
        return Pruned(destination=name, error=untrusted)
    copies = copies_on(project, name, held, known, pinned)
    decisions = plan(project.retention(name), copies, now)
    deleting = Deleting(project, name, held, now)
    error: DestinationError | None = None
    if lock is None:
        deleting.rehearse(decisions)
    else:
        lock.check()
        for backup_id in gone:
            project.catalog.pruned(backup_id, name, Message(_("Its deletion had been begun.")))
        try:
            deleting.run(decisions)
        except DestinationError as caught:
            error = caught
    return Pruned(
        destination=name,
        outcomes=tuple(_outcome(decision, deleting, now) for decision in decisions),
        freed=deleting.freed,
        waiting=deleting.waiting,
        error=error,
    )


def _outcome(decision: Decision, deleting: Deleting, now: datetime) -> Outcome:
    copy = decision.copy
    action: Action = "keep" if decision.keep else "failed"
    if copy.name in deleting.deleted:
        action = "delete"
    elif copy.name in deleting.locked:
        action = "locked"
    return Outcome(
        decision=decision,
        action=action,
        size=deleting.size(copy.name),
        age_days=(now - copy.finished_at).total_seconds() / 86400 if copy.finished_at else None,
    )


def _known(project: Project, now: datetime) -> Known:
    known = project.catalog.known(project.name, now)
    if known is None:
        raise PreflightError(
            _("The catalog cannot be read, and without it nobody can tell what should be where."),
            hint=_(
                "If its database was lost: manage.py restore --latest. Else run migrate, then"
                " list_backups --sync, then prune again."
            ),
        )
    return known


def _stopped(project: Project, known: Known) -> BackupError | None:
    """Return why nothing may be pruned anywhere, and what to do; None where it may be."""
    text = _("Nothing is pruned: %(reason)s")
    if reason := held_back(known.newest):
        hint = _("Take a backup; once it has succeeded, prune again.")
        return BackupError(text, hint=hint, reason=reason)
    if reason := held_back(newest_whole(project)):
        hint = _(
            "Look what was deleted. Where it is meant, wait for some more backups, or set"
            " max_shrink in ALERTS to 1 for one prune."
        )
        return BackupError(text, hint=hint, reason=reason)
    return _clock_is_ahead(project)


def _clock_is_ahead(project: Project) -> BackupError | None:
    """Return why nothing may be called old: the last look saw a clock far behind this host's."""
    try:
        look = project.catalog.last_look(project.name)
    except CatalogError:
        return None
    destinations = look["facts"]["destinations"] if look else {}
    for name, facts in destinations.items():
        behind = timedelta(seconds=-(facts.get("clock_ahead_seconds") or 0))
        if behind > MOST_AHEAD:
            return BackupError(
                _("Nothing is pruned: the clock of %(name)s is %(time)s behind this host's."),
                hint=_("Set both by NTP, look again with backup_status, then prune."),
                name=name,
                time=age_text(behind),
            )
    return None


def _listed(project: Project, name: str) -> Holdings | DestinationError:
    try:
        return holdings(project, name)
    except DestinationError as error:
        return error
