"""What was done to the disaster checklist, by whom and when: evidence that nobody edits."""

from __future__ import annotations

from django.contrib import admin

from mipyme_backup.admin.read_only import ReadOnlyAdmin
from mipyme_backup.models import ChecklistEntry


@admin.register(ChecklistEntry)
class ChecklistEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "by", "action", "line")
    list_filter = ("action", "at")
    search_fields = ("line", "by")
    date_hierarchy = "at"
    fields = ("at", "by", "action", "line", "project")
