"""Tasks: what was asked for in the admin, how far it is, and how it ended."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from mipyme_backup import api
from mipyme_backup.admin import asking, marks
from mipyme_backup.admin.read_only import STYLES, RunAdmin
from mipyme_backup.admin.restoring import restore_view
from mipyme_backup.admin.task_context import context_of
from mipyme_backup.models import Task

FRAGMENT = "admin/mipyme_backup/task/progress.html"
SCRIPT = "mipyme_backup/progress.js"
SHORTEST_IDENTIFIER = 16
"""Characters; the number of a row has fewer."""


@admin.register(Task)
class TaskAdmin(RunAdmin):
    """Who may ask for anything sees what was asked for."""

    list_display = ("name", "state", "began", "took", "asked_by", "backup_name")
    list_filter = ("status", "verb", "asked_by")
    search_fields = ("task_id", "backup_name", "backup_id", "asked_by", "reason", "error")
    date_hierarchy = "asked_at"
    fields = ("of", "asked_by", "why")

    class Media:
        css = STYLES
        js = (SCRIPT,)

    def get_urls(self) -> list[URLPattern]:
        view, name = self.admin_site.admin_view, "mipyme_backup_task"
        return [
            path("<str:object_id>/progress/", view(self.progress_view), name=f"{name}_progress"),
            path("<str:object_id>/restore/", view(self.restore_view), name=f"{name}_restore"),
            *super().get_urls(),
        ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return sees_tasks(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return sees_tasks(request)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Task | None:
        """Return a task by its identifier or its row, whose number a restore may change."""
        found: QuerySet[Task] = self.get_queryset(request)
        is_row = object_id.isdecimal() and len(object_id) < SHORTEST_IDENTIFIER
        return found.filter(**{"pk" if is_row else "task_id": object_id}).first()

    def page_of(self, request: HttpRequest, row: Task) -> dict[str, Any]:
        return {"task": context_of(row, request, self.admin_site.name)}

    @method_decorator([never_cache, require_safe])
    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return how far a task is, for the script of the page that shows it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        shown = context_of(self._task(request, object_id), request, self.admin_site.name)
        return JsonResponse(
            {
                "ended": shown["ended"],
                "said": str(shown["said"]),
                "fragment": render_to_string(FRAGMENT, {"task": shown}, request),
            }
        )

    def restore_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for the restore that a task is the plan of."""
        return restore_view(request, self._task(request, object_id), self.admin_site)

    def _task(self, request: HttpRequest, object_id: str) -> Task:
        task = self.get_object(request, object_id)
        if task is None:
            raise Http404
        return task

    @admin.display(description=_("task"), ordering="verb")
    def name(self, task: Task) -> str:
        return capfirst(task.get_verb_display())

    @admin.display(description=_("status"), ordering="status")
    def state(self, task: Task) -> SafeString:
        return marks.status(task.status, task.get_status_display())

    @admin.display(description=_("backup"))
    def of(self, task: Task) -> SafeString | str:
        if not task.backup_id:
            return marks.NOTHING
        return self.link_to_backup(task.backup_id, task.backup_name)

    @admin.display(description=_("reason"))
    def why(self, task: Task) -> str:
        return task.reason or marks.NOTHING


def sees_tasks(request: HttpRequest) -> bool:
    """Say whether this user sees what was asked for: who may ask for anything does."""
    user: Any = request.user
    return user.has_perm("mipyme_backup.view_task") or any(
        asking.may(request, verb) for verb in api.PERMISSIONS
    )
