"""A task in words: how far it is, how long it will take, and where it has led."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from mipyme_backup.admin import asking, by_hand, marks
from mipyme_backup.admin.addresses import address_for
from mipyme_backup.catalog.selection import UNDER_WAY
from mipyme_backup.catalog.tasks import is_silent, restored_since
from mipyme_backup.models import Backup, Drill, Restore, Task
from mipyme_backup.translation import said

EXPECTED_WITHIN = timedelta(seconds=15)
"""How soon a worker takes a task, where one is there and has time."""

PLAN_HOLDS = timedelta(hours=1)
"""How long after a plan was made a restore may go by it."""

HALF_RESTORED = gettext_noop(
    "Nobody knows how far it came. The next backup or restore brings it to an end: take a backup,"
    " and see what Restores says of it then."
)


def context_of(task: Task, request: HttpRequest, site_name: str) -> dict[str, Any]:
    """Return what the page and its script show of a task."""
    now = datetime.now(UTC)
    silent = is_silent(task, now)
    ended = task.status not in UNDER_WAY or silent
    return {
        "title": capfirst(task.get_verb_display()),
        "backup": task.backup_name,
        "mark": _state(task, silent=silent),
        "ended": ended,
        "said": _said(task, silent=silent),
        "times": _times(task),
        "notes": _notes(task, now, silent=silent),
        "command": _command(task, now, silent=silent),
        "problems": [said(line) for line in task.error.splitlines()],
        "hint": said(task.hint) if task.hint else "",
        "plan": [said(line) for line in task.result.get("plan", ())],
        "links": _links(task, request, site_name),
        "goes_on": _goes_on(task, request, site_name, now),
        "address": asking.task_address(task.task_id, site_name),
        "progress_address": asking.task_address(task.task_id, site_name, "progress"),
        **({} if ended or task.status == Task.Status.QUEUED else _progress(task)),
    }


def may_go_on(task: Task, now: datetime) -> bool:
    """Say whether this is a plan of ours that a restore may go by: once, not of what is gone."""
    finished = task.finished_at
    planned = task.verb == Task.Verb.PLAN and task.status == Task.Status.COMPLETE
    if not planned or finished is None or now - finished >= PLAN_HOLDS:
        return False
    ours = asking.is_ours(task.project) and asking.is_our_backup(task.backup_id)
    return ours and not restored_since(finished)


def _state(task: Task, *, silent: bool) -> Any:
    if silent:
        return marks.status(Task.Status.ABANDONED, Task.Status.ABANDONED.label)
    return marks.status(task.status, task.get_status_display())


def _said(task: Task, *, silent: bool) -> str:
    """Return the one line that a screen reader is told when it changes."""
    if silent or task.status != Task.Status.RUNNING:
        word = Task.Status.ABANDONED.label if silent else task.get_status_display()
        return f"{capfirst(task.get_verb_display())}: {word}"
    return said(task.step) if task.step else str(Task.Status.RUNNING.label)


def _progress(task: Task) -> dict[str, Any]:
    done, total = task.done_bytes, task.total_bytes
    seconds = (task.seen_at - task.step_at).total_seconds() if task.seen_at and task.step_at else 0
    rate = done / seconds if seconds > 0 else 0
    left = (total - done) / rate if total and rate and total > done else None
    return {
        "step": said(task.step) if task.step else _("Beginning"),
        "percent": min(100, 100 * done // total) if total else None,
        "done": marks.size(done) if done else "",
        "total": marks.size(total) if total else "",
        "rate": _("%(size)s a second") % {"size": marks.size(int(rate))} if rate else "",
        "left": _("about %(time)s left") % {"time": _about(left)} if left else "",
    }


def _about(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 60 else marks.duration(seconds)


def _times(task: Task) -> list[tuple[str, str]]:
    """Return (name, value) of when it was and how long it took."""
    began, ended = task.started_at, task.finished_at
    times = [(_("Asked"), marks.moment(task.asked_at))]
    if began:
        times.append((_("Started"), marks.moment(began)))
    if ended:
        times.append((_("Finished"), marks.moment(ended)))
    if began and ended:
        times.append((_("Duration"), marks.duration((ended - began).total_seconds())))
    return times


def _notes(task: Task, now: datetime, *, silent: bool) -> list[str]:
    if task.status == Task.Status.QUEUED and silent:
        return [_("No worker took it in time. Is a Celery worker running?")]
    if silent or task.status == Task.Status.ABANDONED:
        gone = [_("The worker that had it gives no sign of life any more.")]
        return [*gone, _(HALF_RESTORED)] if _was_restoring(task) else gone
    if task.status == Task.Status.QUEUED and _waits(task, now):
        return [_("No worker has taken it yet. Is a Celery worker running?")]
    if task.status == Task.Status.QUEUED:
        return [_("Waiting for a worker.")]
    return []


def _command(task: Task, now: datetime, *, silent: bool) -> str | None:
    """Return what to run by hand, where no worker does it; None for what this version lacks."""
    if task.verb not in Task.Verb.values:
        return None
    unsent = task.status == Task.Status.FAILED and task.started_at is None
    over = silent or task.status == Task.Status.ABANDONED
    if over and _was_restoring(task):
        return by_hand.command("backup")  # to restore again would be wrong: it may be done
    if over or unsent or _waits(task, now):
        return by_hand.command(task.verb, task.backup_id, task.options)
    return None


def _was_restoring(task: Task) -> bool:
    return task.verb == Task.Verb.RESTORE and task.started_at is not None


def _waits(task: Task, now: datetime) -> bool:
    return task.status == Task.Status.QUEUED and now - task.asked_at > EXPECTED_WITHIN


def _links(task: Task, request: HttpRequest, site_name: str) -> list[tuple[str, str]]:
    """Return (address, name) of what it made, as far as this user may see it."""
    rows: list[tuple[type[Backup] | type[Drill] | type[Restore], str, str]] = [
        (Backup, "backup_id", _("Backup")),
        (Drill, "drill_id", _("Report of the drill")),
        (Restore, "restore_id", _("Restore")),
    ]
    links = []
    for model, key, name in rows:
        if key not in task.result:
            continue
        row = model._default_manager.filter(**{key: task.result[key]}).only("pk").first()
        page = row and address_for(request, str(model._meta.model_name), row.pk, site_name)
        if page:
            links.append((page, name))
    return links


def _goes_on(task: Task, request: HttpRequest, site_name: str, now: datetime) -> str | None:
    """Return where the restore is asked for that this is the plan of."""
    if not may_go_on(task, now) or "restore" not in asking.verbs_of(request):
        return None
    return asking.task_address(task.task_id, site_name, "restore")
