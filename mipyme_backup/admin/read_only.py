"""What the pages of the catalog share: nobody adds, changes or deletes its rows by hand."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _
from django.views.decorators.clickjacking import xframe_options_deny

from mipyme_backup.admin import marks
from mipyme_backup.admin.addresses import address
from mipyme_backup.models import Backup, Drill, Restore, Task

Run = Backup | Restore | Drill | Task

STYLES = {"all": ("mipyme_backup/admin.css",)}


if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class _LocalDays(ChangeList):
    """A list whose years, months and days to choose from are local ones.

    Without USE_TZ, Django leaves that to the database, which knows but those of UTC.
    """

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        found = super().get_queryset(*args, **kwargs)
        if not settings.USE_TZ:
            setattr(found, "datetimes", partial(_local_datetimes, found))  # noqa: B010
        return found


class ReadOnlyAdmin(_ModelAdmin):
    """Rows to be looked at; `catalog` alone writes them."""

    actions = None
    list_per_page = 50
    show_full_result_count = False

    class Media:
        css = STYLES

    @property
    def urls(self) -> list[URLPattern]:
        """The addresses of its pages, none of which another site may show in a frame."""
        patterns: list[URLPattern] = self.get_urls()
        for pattern in patterns:
            pattern.callback = xframe_options_deny(pattern.callback)
        return patterns

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _LocalDays

    def link_to_backup(self, backup_id: str, name: str) -> SafeString:
        """Return the name of a backup, as a link where the catalog and this admin have it."""
        found = Backup.objects.filter(backup_id=backup_id).values_list("pk", flat=True).first()
        url = address("backup", found, self.admin_site.name) if found is not None else None
        return format_html('<a href="{}">{}</a>', url, name) if url else format_html("{}", name)

    def page_of(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what the page of a row shows beside its fields."""
        return {}

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        shown = {**self.page_of(request, context["original"]), **context}
        return super().render_change_form(request, shown, *args, **kwargs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class RunAdmin(ReadOnlyAdmin):
    """Rows of what began, and ended unless it goes on: backups, restores, drills, tasks."""

    @admin.display(description=_("started"), ordering="started_at")
    def began(self, run: Run) -> str:
        return marks.moment(run.started_at)

    @admin.display(description=_("finished"))
    def ended(self, run: Run) -> str:
        return marks.moment(run.finished_at)

    @admin.display(description=_("duration"))
    def took(self, run: Run) -> str:
        began, ended = run.started_at, run.finished_at
        return marks.duration((ended - began).total_seconds() if began and ended else None)


def _local_datetimes(rows: QuerySet[Any], name: str, kind: str) -> list[datetime]:
    """Return what `QuerySet.datetimes` does: the first moment of each year, month or day."""
    parts = ("year", "month", "day").index(kind) + 1
    moments = rows.order_by().values_list(name, flat=True).exclude(**{name: None})
    first = {(*localtime(at).timetuple()[:parts], 1, 1)[:3] for at in moments}
    return [datetime(year, month, day) for year, month, day in sorted(first)]  # noqa: DTZ001
