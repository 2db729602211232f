"""The page that shows how the backups are. It reads, and asks no destination."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe

from mipyme_backup import api
from mipyme_backup.admin import asking, by_hand
from mipyme_backup.admin.addresses import address_for
from mipyme_backup.admin.health_context import context_of
from mipyme_backup.admin.read_only import STYLES, ReadOnlyAdmin
from mipyme_backup.admin.task_context import context_of as task_context_of
from mipyme_backup.admin.tasks import SCRIPT, sees_tasks
from mipyme_backup.errors import BackupError
from mipyme_backup.models import BackupHealth
from mipyme_backup.policy.checklist import Action
from mipyme_backup.translation import translated

ACTIONS: tuple[Action, ...] = ("ticked", "cleared", "began")
VERBS = ("backup", "verify", "drill")
"""What the page has buttons for."""


@admin.register(BackupHealth)
class BackupHealthAdmin(ReadOnlyAdmin):
    """One page in place of a list of rows. Who may change it ticks off the checklist."""

    template = "admin/mipyme_backup/health.html"

    class Media:
        css = STYLES
        js = (SCRIPT,)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return admin.ModelAdmin.has_change_permission(self, request, obj)

    def get_urls(self) -> list[URLPattern]:
        name = "mipyme_backup_backuphealth"
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name=f"{name}_changelist"),
            path("checklist/", view(self.checklist_view), name=f"{name}_checklist"),
            path("ask/", view(self.ask_view), name=f"{name}_ask"),
        ]

    @method_decorator(require_safe)
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": _("Backup health"),
            "opts": self.opts,
            "media": self.media,
            "may_change": self.has_change_permission(request),
            **self._shown(request),
            **self._buttons(request),
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.template, context)

    @method_decorator([csrf_protect, require_POST])
    def checklist_view(self, request: HttpRequest) -> HttpResponse:
        """Tick off a line, take that back, or begin a fresh checklist; then show the page."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        for action in ACTIONS:
            if action in request.POST:
                self._mark(request, action, request.POST[action])
                break
        return HttpResponseRedirect(f"{self._page()}#checklist")

    @method_decorator([csrf_protect, require_POST])
    def ask_view(self, request: HttpRequest) -> HttpResponse:
        """Ask a worker for a backup, a verification or a drill of the newest one."""
        verb = request.POST.get("verb", "")
        if verb not in VERBS:
            raise PermissionDenied
        label = request.POST.get("label", "").strip()
        options = {"label": label} if verb == "backup" and label else {}
        return asking.ask(request, self.admin_site, verb, back=self._page(), options=options)

    def _page(self) -> str:
        return reverse(
            "admin:mipyme_backup_backuphealth_changelist", current_app=self.admin_site.name
        )

    def _buttons(self, request: HttpRequest) -> dict[str, Any]:
        verbs = [verb for verb in VERBS if asking.may(request, verb)]
        return {
            "verbs": verbs,
            "takes_tasks": api.takes_tasks(),
            "commands": [by_hand.command(verb) for verb in verbs],
            "label_length": api.LABEL_LENGTH,
        }

    def _shown(self, request: HttpRequest) -> dict[str, Any]:
        def page(model: str, pk: int) -> str | None:
            return address_for(request, model, pk, self.admin_site.name)

        try:
            overview = api.overview()
            tasks = overview.past.tasks if sees_tasks(request) else ()
            shown = [task_context_of(task, request, self.admin_site.name) for task in tasks]
            return {**context_of(overview, page), "tasks": shown}
        except BackupError as error:
            return {"failure": translated(error.message), "advice": translated(error.hint)}

    def _mark(self, request: HttpRequest, action: Action, line: str) -> None:
        try:
            by = cast("Any", request.user).get_username()
            line = "" if action == "began" else line
            if not api.mark_checklist(action=action, line=line, by=by):
                messages.info(request, _("Somebody has done that already."))
        except BackupError as error:
            messages.error(request, f"{translated(error.message)} {translated(error.hint)}")
