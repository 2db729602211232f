"""What was asked for in the admin: kept until a worker takes it, and then for good.

A worker that dies says nothing: a task that has shown no sign of life for `SILENT_AFTER` may be
taken again, save a restore, and gives way to the next one that is asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from mipyme_backup.catalog.guards import needed
from mipyme_backup.catalog.selection import ours
from mipyme_backup.errors import LockedError
from mipyme_backup.messages import _
from mipyme_backup.models import Restore, Task

SILENT_AFTER = timedelta(minutes=2)
TAKEN_WITHIN = timedelta(hours=1)
RESTORE_TAKEN_WITHIN = timedelta(minutes=10)
"""How long a task may wait for a worker. Nobody expects a restore of yesterday's."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user asked for; `verb` is one of `Task.Verb`, the backup may be none.

    `project` is empty where it is not known: then it is anyone's.
    """

    project: str = ""
    verb: str
    asked_by: str
    backup_id: str = ""
    backup_name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Claimed(Asked):
    """What a worker has taken, with all that is needed to write it anew."""

    task_id: str
    asked_at: datetime
    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A task that was kept; not `fresh` where the same one is under way."""

    task_id: str
    fresh: bool


def add(asked: Asked, now: datetime) -> Kept:
    """Keep what was asked for, once; raises CatalogError where that cannot be.

    Two who ask at the same moment get the same task: the database sees to it. There is one restore
    at a time, of whatever, also over projects that share the database: a second one would wait for
    the first, and undo what was done since.
    """
    with needed(), transaction.atomic():
        _give_up_on_silent(now)
        task, fresh = Task.objects.get_or_create(
            under_way=_what(asked),
            defaults={
                "task_id": secrets.token_hex(8),
                "status": Task.Status.QUEUED,
                "asked_at": now,
                **dataclasses.asdict(asked),
            },
        )
        return Kept(task_id=task.task_id, fresh=fresh)


def claim(task_id: str, now: datetime, *, project: str = "") -> Claimed | None:
    """Take a task, for one worker only; None where it is over, or was asked for too long ago.

    With a `project` one of another project is not taken. Raises LockedError where another worker
    may have it still: it comes back once that is silent.
    """
    with needed(), transaction.atomic():
        mine = Task.objects.filter(Q(status=Task.Status.QUEUED) | _may_begin_again(now))
        taken = mine.filter(task_id=task_id).exclude(_too_old(now))
        if project:
            taken = taken.filter(ours(project))
        if not taken.update(status=Task.Status.RUNNING, started_at=now, seen_at=now):
            running = Task.objects.filter(task_id=task_id, status=Task.Status.RUNNING)
            if project:
                running = running.filter(ours(project))
            if running.exclude(verb=Task.Verb.RESTORE).exists():
                raise LockedError(_("Another worker has this task."), permanent=False)
            return None
        task = Task.objects.get(task_id=task_id)
    return Claimed(
        task_id=task_id,
        asked_at=task.asked_at,
        started_at=now,
        project=task.project,
        verb=task.verb,
        asked_by=task.asked_by,
        backup_id=task.backup_id,
        backup_name=task.backup_name,
        options=task.options,
        reason=task.reason,
    )


def keep_progress(task_id: str, values: Mapping[str, Any]) -> None:
    """Write how far it is: `step`, `step_at`, `done_bytes`, `total_bytes`, `seen_at`."""
    with needed():
        Task.objects.filter(task_id=task_id, status=Task.Status.RUNNING).update(**values)


def end(
    task: Claimed,
    status: str,
    now: datetime,
    *,
    result: Mapping[str, Any] | None = None,
    error: str = "",
    hint: str = "",
) -> None:
    """Write how it ended; raises CatalogError where that cannot be.

    What was restored may be older than the table, and `migrate` has made it anew since: then the
    task is written as a whole, as the record of who asked for it, and why.
    """
    ended = {
        "status": status,
        "under_way": None,
        "finished_at": now,
        "seen_at": now,
        "result": dict(result or {}),
        "error": error,
        "hint": hint,
    }
    with needed():
        Task.objects.update_or_create(
            task_id=task.task_id,
            defaults=ended,
            create_defaults={**dataclasses.asdict(task), **ended},
        )


def give_up_unsent(task_id: str, now: datetime, *, error: str, hint: str = "") -> None:
    """Write why it could not be sent, unless a worker has it all the same."""
    with needed():
        Task.objects.filter(task_id=task_id, status=Task.Status.QUEUED).update(
            status=Task.Status.FAILED, under_way=None, finished_at=now, error=error, hint=hint
        )


def is_silent(task: Task, now: datetime) -> bool:
    """Say whether no worker has it any more, or none will."""
    if task.status == Task.Status.QUEUED:
        return now - task.asked_at > taken_within(task.verb)
    return task.status == Task.Status.RUNNING and now - (task.seen_at or now) > SILENT_AFTER


def restored_since(moment: datetime) -> bool:
    """Say whether what is live has been replaced since, or may have been."""
    restores = Restore.objects.filter(started_at__gte=moment)
    return restores.exclude(status=Restore.Status.FAILED).exists()


def taken_within(verb: str) -> timedelta:
    """Return how long a task may wait for a worker."""
    return RESTORE_TAKEN_WITHIN if verb == Task.Verb.RESTORE else TAKEN_WITHIN


def _what(asked: Asked) -> str:
    """Return what may not be under way twice."""
    if asked.verb == Task.Verb.RESTORE:
        return asked.verb
    options = json.dumps([asked.project, dict(asked.options)], sort_keys=True).encode()
    return f"{asked.verb}:{asked.backup_id}:{hashlib.sha256(options).hexdigest()}"


def _give_up_on_silent(now: datetime) -> None:
    Task.objects.filter(_silent(now) | _too_old(now)).update(
        status=Task.Status.ABANDONED, under_way=None, finished_at=now
    )


def _may_begin_again(now: datetime) -> Q:
    """A message comes back when its worker was killed; a restore is never begun by itself."""
    return _silent(now) & ~Q(verb=Task.Verb.RESTORE)


def _silent(now: datetime) -> Q:
    return Q(status=Task.Status.RUNNING, seen_at__lt=now - SILENT_AFTER)


def _too_old(now: datetime) -> Q:
    restore = Q(verb=Task.Verb.RESTORE)
    return Q(status=Task.Status.QUEUED) & (
        Q(asked_at__lt=now - TAKEN_WITHIN) | (restore & Q(asked_at__lt=now - RESTORE_TAKEN_WITHIN))
    )
