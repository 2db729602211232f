"""Asking for a restore: by a plan that was read, with a password, the name and a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import authenticate
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods

from mipyme_backup.admin import asking, by_hand
from mipyme_backup.admin.read_only import STYLES
from mipyme_backup.admin.task_context import context_of, may_go_on
from mipyme_backup.models import Task
from mipyme_backup.translation import said

TEMPLATE = "admin/mipyme_backup/task/restore.html"
SHORTEST_REASON = 10


class RestoreForm(forms.Form):
    """What makes sure that it is the right person, the right backup, and no slip of the hand."""

    name = forms.CharField(
        label=_("Name of the backup, typed"),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    reason = forms.CharField(
        label=_("Reason"),
        min_length=SHORTEST_REASON,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("It is kept with who asked and when, also after the restore."),
    )
    migrate = forms.BooleanField(
        label=_("Run migrate afterwards"),
        required=False,
        help_text=_("Where the plan says that the backup is older than the code."),
    )
    other_origin = forms.BooleanField(
        label=_("Yes, restore it over what is here, although it may be of another project"),
    )
    password = forms.CharField(
        label=_("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, request: HttpRequest, task: Task) -> None:
        super().__init__(request.POST if request.method == "POST" else None, label_suffix="")
        self._request, self._task = request, task
        if not task.result.get("other_origin"):
            del self.fields["other_origin"]

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if name != self._task.backup_name:
            raise forms.ValidationError(
                _("That is not the name of this backup, %(name)s."),
                params={"name": self._task.backup_name},
            )
        return name

    @sensitive_variables("password")
    def clean(self) -> dict[str, Any] | None:
        """Ask for the password last, of who got everything else right."""
        password, user = self.cleaned_data.get("password"), self._request.user
        if password and not self.errors:
            known = authenticate(self._request, username=user.get_username(), password=password)
            if known is None or known.pk != user.pk:
                self.add_error("password", _("That is not your password."))
        return self.cleaned_data


@never_cache
@sensitive_post_parameters("password")
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def restore_view(request: HttpRequest, task: Task, site: admin.AdminSite) -> HttpResponse:
    """Show the plan with the form; sent with everything right, ask a worker for the restore."""
    if "restore" not in asking.verbs_of(request):
        raise PermissionDenied
    page = asking.task_address(task.task_id, site.name) or ""
    if not may_go_on(task, datetime.now(UTC)):
        messages.error(request, gettext("There is no plan here that still holds: make a new one."))
        return HttpResponseRedirect(page)
    form = RestoreForm(request, task)
    if form.is_valid():
        return asking.ask(
            request,
            site,
            "restore",
            back=page,
            backup=asking.Named(id=task.backup_id, name=task.backup_name),
            options={
                name: True for name in ("migrate", "other_origin") if form.cleaned_data.get(name)
            },
            reason=form.cleaned_data["reason"],
        )
    request.current_app = site.name
    context = {
        **site.each_context(request),
        "title": gettext("Restore %(name)s") % {"name": task.backup_name},
        "opts": Task._meta,
        "media": form.media + forms.Media(css={"all": list(STYLES["all"])}),
        "form": form,
        "task": context_of(task, request, site.name),
        "usable_password": cast("Any", request.user).has_usable_password(),
        "other_origin": [said(line) for line in task.result.get("other_origin", ())],
        "command": by_hand.command("restore", task.backup_id),
    }
    return TemplateResponse(request, TEMPLATE, context)
