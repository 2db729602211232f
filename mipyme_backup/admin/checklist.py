"""What was done to the disaster checklist, by whom and when: evidence that nobody edits."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from mipyme_backup.admin import marks
from mipyme_backup.admin.read_only import ReadOnlyAdmin
from mipyme_backup.models import ChecklistEntry


@admin.register(ChecklistEntry)
class ChecklistEntryAdmin(ReadOnlyAdmin):
    list_display = ("when", "by", "action", "line")
    list_filter = ("action", "at")
    search_fields = ("line", "by")
    date_hierarchy = "at"
    fields = ("when", "by", "action", "line", "project")

    @admin.display(description=_("when"), ordering="at")
    def when(self, entry: ChecklistEntry) -> str:
        return marks.moment(entry.at)
