"""What the admin asks for: kept, sent to a worker, and done there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import close_old_connections, transaction

from mipyme_backup import conf, queue
from mipyme_backup.api.keeping import backup, complete, pin, verify
from mipyme_backup.api.restoring import drill, restore
from mipyme_backup.catalog import tasks as records
from mipyme_backup.catalog.tasks import Asked, Claimed, Kept
from mipyme_backup.errors import BackupError, CatalogError, LockedError, UsageError, reason_of
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.reporting import Reporter

logger = logging.getLogger("mipyme_backup")

END_PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between two tries of writing how a task ended."""

LOCK_PAUSE = 2.0
"""Seconds between two tries of what finds the lock held."""

PERMISSIONS = {
    "backup": "mipyme_backup.run_backup",
    "complete": "mipyme_backup.run_backup",
    "verify": "mipyme_backup.verify_backup",
    "drill": "mipyme_backup.run_drill",
    "pin": "mipyme_backup.pin_backup",
    "unpin": "mipyme_backup.pin_backup",
    "plan": "mipyme_backup.restore_backup",
    "restore": "mipyme_backup.restore_backup",
}
"""Who may ask for what."""

RESTORING = frozenset({"plan", "restore"})


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a task ended: `status` is one of `Task.Status`, `result` leads to what it made."""

    status: str
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    hint: str = ""


def takes_tasks() -> bool:
    """Say whether there is a broker, so that `ask` can send a task to a worker."""
    return queue.has_broker()


def allows_restore() -> bool:
    """Say whether ADMIN_RESTORE lets people restore from the admin."""
    return conf.load().admin_restore


def ask(
    *,
    verb: str,
    by: str,
    backup_id: str = "",
    backup_name: str = "",
    options: Mapping[str, Any] | None = None,
    reason: str = "",
) -> Kept:
    """Keep a task, and send it to a worker once the transaction is committed.

    The same one that is under way already is returned in its place. A broker that is away is
    written into the task. Raises UsageError where restoring is not allowed, and CatalogError
    where the task cannot be kept.
    """
    _check_allowed(verb)
    asked = Asked(
        project=conf.load().project,
        verb=verb,
        asked_by=by,
        backup_id=backup_id,
        backup_name=backup_name,
        options=options or {},
        reason=reason,
    )
    kept = records.add(asked, datetime.now(UTC))
    if kept.fresh:
        transaction.on_commit(partial(_send, kept.task_id, verb))
    return kept


def run_task(*, task_id: str) -> str | None:
    """Do what was asked for, once; returns the status it ended with.

    None where it is over, was asked for too long ago, or in another project. What fails is written
    into the task, and not raised. Raises LockedError where another worker may have it still, and
    CatalogError where that cannot be known.
    """
    asked = records.claim(task_id, datetime.now(UTC), project=conf.load().project)
    if asked is None:
        return None
    ended = Ended(status="failed", error=_("The run was interrupted."))
    try:
        with Reporter(partial(records.keep_progress, task_id)) as progress:
            ended = _done(asked, progress)
    except BackupError as error:
        ended = Ended(status="failed", error=str(error), hint=str(error.hint))
    except BaseException as error:
        ended = Ended(status="failed", error=reason_of(error))
        raise
    finally:
        _keep_end(asked, ended)
    return ended.status


def _keep_end(task: Claimed, ended: Ended) -> None:
    """Write how it ended, stubbornly: a task that seems to go on would be done once more.

    The connection may have been ended while the work went on, and a database may be away for a
    moment, or be locked. What cannot be written is logged with all that is to be known.
    """
    for pause in (*END_PAUSES, None):
        close_old_connections()
        try:
            records.end(
                task,
                ended.status,
                datetime.now(UTC),
                result=ended.result,
                error=ended.error,
                hint=ended.hint,
            )
        except CatalogError as error:
            if pause is None:
                logger.error(
                    "How task %s ended was not kept (%s). Asked for by %s: %s, %r. It is %s. %s",
                    *(task.task_id, error, task.asked_by, task.verb, task.reason),
                    *(ended.status, ended.error),
                )
                return
            time.sleep(pause)
        else:
            return


def _send(task_id: str, verb: str) -> None:
    try:
        queue.send(task_id, records.taken_within(verb))
    except BackupError as error:
        records.give_up_unsent(task_id, datetime.now(UTC), error=str(error), hint=str(error.hint))


def _check_allowed(verb: str) -> None:
    if verb in RESTORING and not allows_restore():
        raise UsageError(
            _("Restoring from the admin is switched off."),
            hint=_("Run manage.py restore on the server, or set ADMIN_RESTORE to True."),
        )


def _check_may_still(username: str, verb: str) -> None:
    """Raise UsageError where the user who asked may not have this done any more."""
    users: Any = get_user_model()._default_manager
    user = users.filter(**{users.model.USERNAME_FIELD: username}).first()
    if user is None or not user.is_active or not user.has_perm(PERMISSIONS[verb]):
        raise UsageError(
            _("%(user)s may not ask for this any more, so nothing was done."),
            hint=_("A user who has the permission %(permission)s can ask for it again."),
            user=username,
            permission=PERMISSIONS[verb],
        )


def _done(asked: Asked, progress: Reporter) -> Ended:
    """Do it. All but a restore wait for the lock: nobody expects one an hour later."""
    _check_allowed(asked.verb)
    _check_may_still(asked.asked_by, asked.verb)
    work = _WORKS[asked.verb]
    while True:
        try:
            return work(asked, progress)
        except LockedError as error:
            if asked.verb == "restore":
                raise
            progress.step(
                Message(_("Waiting until that has ended: %(reason)s"), {"reason": str(error)})
            )
            time.sleep(LOCK_PAUSE)


def _backup(asked: Asked, progress: Reporter) -> Ended:
    made = backup(label=asked.options.get("label", ""), progress=progress)
    result = {"backup_id": made.manifest.id}
    # Where all copies are there, something that exists could not be read: the warnings name it.
    unread = "\n".join(made.warnings) if made.status == "partial" else ""
    return Ended(status=made.status, result=result, error=_problems(made.copies) or unread)


def _complete(asked: Asked, progress: Reporter) -> Ended:
    made = complete(
        identifier=asked.backup_id,
        destinations=[asked.options["destination"]] if "destination" in asked.options else (),
        progress=progress,
    )
    return Ended(status=made.status, error=_problems(made.copies))


def _verify(asked: Asked, progress: Reporter) -> Ended:
    found = verify(
        identifiers=[asked.backup_id] if asked.backup_id else (),
        latest=not asked.backup_id,
        progress=progress,
    )
    result = next(({"backup_id": one.id} for one in found if one.id), {})
    bad = {one.destination: "; ".join(one.problems) for one in found if one.problems}
    if not bad:
        return Ended(status="complete", result=result)
    return Ended(
        status="failed",
        result=result,
        error=_lines(bad),
        hint=_("The backup's page has a button that sends a copy again from a good one."),
    )


def _drill(asked: Asked, progress: Reporter) -> Ended:
    made = drill(identifier=asked.backup_id or None, progress=progress)
    result = {"drill_id": made.id, "backup_id": made.backup_id}
    if made.passed:
        return Ended(status="complete", result=result)
    problems = [problem for step in made.steps if not step.ok for problem in step.problems]
    return Ended(
        status="failed",
        result=result,
        error="\n".join(map(str, problems)),
        hint=_("The drill's own page has the whole report."),
    )


def _pin(asked: Asked, progress: Reporter) -> Ended:
    done = pin(identifier=asked.backup_id, pinned=asked.verb == "pin")
    return Ended(status="partial" if done.failed else "complete", error=_problems(done.copies))


def _plan(asked: Asked, progress: Reporter) -> Ended:
    planned = restore(identifier=asked.backup_id, plan=True)
    result = {
        "plan": [str(line) for line in planned.plan],
        "other_origin": [str(line) for line in planned.other_origin],
    }
    return Ended(status="complete", result=result)


def _restore(asked: Asked, progress: Reporter) -> Ended:
    done = restore(
        identifier=asked.backup_id,
        migrate=asked.options.get("migrate", False),
        other_origin=asked.options.get("other_origin", False),
        progress=progress,
    )
    return Ended(status="complete", result={"restore_id": done.id})


_WORKS: Mapping[str, Callable[[Asked, Reporter], Ended]] = {
    "backup": _backup,
    "complete": _complete,
    "verify": _verify,
    "drill": _drill,
    "pin": _pin,
    "unpin": _pin,
    "plan": _plan,
    "restore": _restore,
}


def _problems(copies: Mapping[str, BackupError | None]) -> str:
    return _lines({name: str(error) for name, error in copies.items() if error})


def _lines(problems: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {problem}" for name, problem in problems.items())
