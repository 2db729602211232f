"""Celery's tasks: each calls one function of the api. Import this module only with Celery there.

A task that is delivered again does no harm: its slot is done, or another worker is at it. So
messages are acknowledged when the work is over, and one whose worker was killed comes back.
Arguments are names and moments; what is secret stays in the settings. Anyone who reaches the broker
can send these tasks: what no slot and no row of the catalog limits is done once an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from celery import Task, shared_task
from celery.utils.log import get_task_logger

from mipyme_backup import api
from mipyme_backup.errors import BackupError, TooSoonError, reason_of
from mipyme_backup.guarded_task import RETRIES, GuardedTask, RefusedError, TaskError
from mipyme_backup.queue import RUN_TASK
from mipyme_backup.results import Level
from mipyme_backup.schedule import EVERY, RUN_DUE_TASK
from mipyme_backup.translation import in_project_language, translated

logger = get_task_logger(__name__)

SOFT_TIME_LIMIT = 12 * 3600
"""Seconds after which a run is ended in order: no backup of a small company takes half a day."""

FIRST_PAUSE = 60
ATTEMPTS = 1 + RETRIES

ONCE_IN = timedelta(hours=1)
LOOK_ONCE_IN = timedelta(minutes=5)
"""How often a message has its work done where no slot and no row of the catalog limits it."""

OPTIONS: dict[str, Any] = {
    "base": GuardedTask,
    "bind": True,
    "acks_late": True,
    "reject_on_worker_lost": True,
    "soft_time_limit": SOFT_TIME_LIMIT,
}


def _tried(task: Task[Any, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what the work does, in the language of the project.

    What may pass is tried again after 1, 2 and 4 minutes. What a foreign error says stays in the
    worker's log: it may hold a secret, and the result back end is often another machine.
    """
    with in_project_language():
        try:
            return work()
        except TooSoonError as error:
            raise RefusedError(_said(error)) from None
        except BackupError as error:
            failure = TaskError(_said(error))
            logger.error("%s", failure)
            if error.permanent:
                raise failure from None
            raise task.retry(exc=failure, countdown=FIRST_PAUSE * 2**task.request.retries) from None
        except Exception as error:
            logger.exception("The task %s broke.", task.name)
            raise TaskError(reason_of(error)) from None


def _rationed(
    task: Task[Any, Any], work: Callable[[], dict[str, Any]], once_in: timedelta = ONCE_IN
) -> dict[str, Any]:
    """Return what the work does, once in each stretch of time."""
    verb = task.name.rpartition(".")[2]
    return _tried(
        task, lambda: api.run_rationed(verb=verb, once_in=once_in, attempts=ATTEMPTS, work=work)
    )


def _said(error: BackupError) -> str:
    return f"{translated(error.message)} {translated(error.hint)}".strip()


@shared_task(name=RUN_DUE_TASK, base=GuardedTask, ignore_result=True, expires=EVERY.total_seconds())
def run_due() -> None:
    """Send the task of each job that is due; call it every quarter of an hour."""
    for due in api.due():
        run_job.apply_async(
            kwargs={"job": due.job, "slot": due.slot.isoformat()}, expires=EVERY.total_seconds()
        )


@shared_task(name="mipyme_backup.run_job", **OPTIONS)
def run_job(self: Task[Any, Any], *, job: str, slot: str) -> dict[str, Any]:
    """Do the work of a slot, once; a failed one is tried again by a later `run_due`.

    A slot that is not the newest of its job is not done: the message came too late, or another
    program made it up. Nor is one that failed often and whose next attempt is not due yet.
    """
    moment = _slot(slot)
    if moment is None or not api.may_run_job(job=job, slot=moment, attempts=ATTEMPTS):
        logger.warning("The schedule has no such slot now: %r of %r", slot, job)
        return {"job": job, "slot": slot, "outcome": "not_due", "error": None}
    outcome = api.run_job(job=job, slot=moment)
    if outcome.error is not None:
        logger.error("%s of %s failed: %s", job, slot, outcome.error)
    with in_project_language():
        return outcome.to_dict()


@shared_task(name=RUN_TASK, **OPTIONS)
def run_task(self: Task[Any, Any], *, task_id: str) -> dict[str, Any]:
    """Do what was asked for in the admin, once; how it ended stands in the task's row."""
    return _tried(self, lambda: {"status": api.run_task(task_id=task_id)})


@shared_task(name="mipyme_backup.backup", **OPTIONS)
def backup(self: Task[Any, Any], *, kind: str = "manual", label: str = "") -> dict[str, Any]:
    """Take a backup; it waits for the lock. It stands for no slot: those are `run_job`'s."""
    return _rationed(self, lambda: api.backup(kind=kind, label=label, wait=True).to_dict())


@shared_task(name="mipyme_backup.complete", **OPTIONS)
def complete(self: Task[Any, Any], *, identifier: str) -> dict[str, Any]:
    """Complete the copies of a backup."""
    return _rationed(self, lambda: api.complete(identifier=identifier).to_dict())


@shared_task(name="mipyme_backup.verify", **OPTIONS)
def verify(
    self: Task[Any, Any], *, identifiers: Sequence[str] = (), level: Level = "stored"
) -> dict[str, Any]:
    """Verify the named backups, or all."""
    return _rationed(
        self,
        lambda: {
            "verified": [one.to_dict() for one in api.verify(identifiers=identifiers, level=level)]
        },
    )


@shared_task(name="mipyme_backup.prune", **OPTIONS)
def prune(self: Task[Any, Any]) -> dict[str, Any]:
    """Delete what the retention lets go; it waits for the lock."""
    return _rationed(self, lambda: api.prune(wait=True).to_dict())


@shared_task(name="mipyme_backup.status", **OPTIONS)
def status(self: Task[Any, Any]) -> dict[str, Any]:
    """Return how the backups are, and tell the channels of ALERTS what they do not know yet."""
    return _rationed(self, lambda: api.watch().to_dict(), LOOK_ONCE_IN)


@shared_task(name="mipyme_backup.drill", **OPTIONS)
def drill(self: Task[Any, Any], *, language: str | None = None) -> dict[str, Any]:
    """Rehearse the restore of the newest backup; it waits for the lock."""
    return _rationed(self, lambda: api.drill(language=language, wait=True).to_dict())


def _slot(text: str) -> datetime | None:
    """Return the moment that a message names; None where it names none, or no time zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
