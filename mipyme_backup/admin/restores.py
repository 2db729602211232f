"""Restores: what was brought back, when, and how it went."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from mipyme_backup.admin import marks
from mipyme_backup.admin.read_only import RunAdmin
from mipyme_backup.models import Restore


@admin.register(Restore)
class RestoreAdmin(RunAdmin):
    list_display = ("restore_id", "state", "began", "took", "downtime", "backup_name")
    list_filter = ("status", "started_at")
    search_fields = ("restore_id", "backup_name", "backup_id", "safety_backup", "error")
    date_hierarchy = "started_at"
    fieldsets = (
        (None, {"fields": ("restore_id", "of", "saved", "state", "problem")}),
        (_("When"), {"fields": ("began", "ended", "took", "downtime")}),
        (_("What it replaced"), {"fields": ("safety",)}),
    )

    @admin.display(description=_("backup"))
    def of(self, restore: Restore) -> SafeString:
        return self.link_to_backup(restore.backup_id, restore.backup_name)

    @admin.display(description=_("status"), ordering="status")
    def state(self, restore: Restore) -> SafeString:
        return marks.status(restore.status, restore.get_status_display())

    @admin.display(description=_("downtime"), ordering="downtime_seconds")
    def downtime(self, restore: Restore) -> str:
        return marks.duration(restore.downtime_seconds)

    @admin.display(description=_("sources"))
    def saved(self, restore: Restore) -> str:
        return ", ".join(restore.sources) or marks.NOTHING

    @admin.display(description=_("safety backup"))
    def safety(self, restore: Restore) -> str:
        return restore.safety_backup or marks.NOTHING

    @admin.display(description=_("error"))
    def problem(self, restore: Restore) -> str:
        return restore.error or marks.NOTHING
