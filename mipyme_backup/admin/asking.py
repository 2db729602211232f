"""What a button does: it checks who may, keeps a task for a worker, and leads to its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from mipyme_backup import api
from mipyme_backup.admin.by_hand import command
from mipyme_backup.errors import BackupError
from mipyme_backup.models import Backup
from mipyme_backup.translation import translated


@dataclass(frozen=True, kw_only=True)
class Named:
    """The backup that a task is about."""

    id: str
    name: str


def verbs_of(request: HttpRequest) -> frozenset[str]:
    """Return what this user may ask for here; a restore only where the settings allow it."""
    allowed = {verb for verb in api.PERMISSIONS if may(request, verb)}
    return frozenset(allowed if _restores() else allowed - api.RESTORING)


def may(request: HttpRequest, verb: str) -> bool:
    """Say whether this user has the permission."""
    return bool(cast("Any", request.user).has_perm(api.PERMISSIONS[verb]))


def is_ours(project: str) -> bool:
    """Say whether a row is this project's: others may share the catalog."""
    try:
        return api.is_ours(project=project)
    except BackupError:
        return False


def is_our_backup(backup_id: str) -> bool:
    """Say whether a backup is this project's.

    One that the catalog does not know is left to the worker, which looks at the destinations.
    """
    rows = Backup.objects.filter(backup_id=backup_id)
    project = rows.values_list("project", flat=True).first()
    return project is None or is_ours(project)


def ask(
    request: HttpRequest,
    site: admin.AdminSite,
    verb: str,
    *,
    back: str,
    backup: Named | None = None,
    options: Mapping[str, Any] | None = None,
    reason: str = "",
) -> HttpResponse:
    """Keep the task and lead to its page; where that cannot be, `back` with what to do.

    Raises PermissionDenied, also for a backup of another project.
    """
    if verb not in api.PERMISSIONS or not may(request, verb):
        raise PermissionDenied
    if backup is not None and not is_our_backup(backup.id):
        raise PermissionDenied
    named = {"backup_id": backup.id, "backup_name": backup.name} if backup else {}
    if not api.takes_tasks():
        messages.warning(request, _by_hand(verb, named.get("backup_id", ""), options))
        return HttpResponseRedirect(back)
    try:
        kept = api.ask(
            verb=verb,
            by=cast("Any", request.user).get_username(),
            options=options,
            reason=reason,
            **named,
        )
    except BackupError as error:
        messages.error(request, f"{translated(error.message)} {translated(error.hint)}")
        return HttpResponseRedirect(back)
    if not kept.fresh:
        messages.info(request, _("That is under way already."))
    return HttpResponseRedirect(task_address(kept.task_id, site.name) or back)


def task_address(task_id: str, site_name: str, page: str = "change") -> str | None:
    """Return the address of a page of a task: ``change``, ``progress`` or ``restore``.

    It is the same after a restore; None where the admin's site shows no tasks.
    """
    try:
        return reverse(f"admin:mipyme_backup_task_{page}", args=[task_id], current_app=site_name)
    except NoReverseMatch:
        return None


def _restores() -> bool:
    try:
        return api.allows_restore()
    except BackupError:
        return False


def _by_hand(verb: str, backup_id: str, options: Mapping[str, Any] | None) -> str:
    return format_html(
        "{} <code>{}</code>",
        _("No worker takes tasks here: Celery has no broker. Run this command on the server:"),
        command(verb, backup_id, options),
    )
