"""Drills: the report of each, with room for what was found and what was done about it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from mipyme_backup import api
from mipyme_backup.admin import marks
from mipyme_backup.admin.read_only import RunAdmin
from mipyme_backup.errors import ConfigurationError
from mipyme_backup.models import Drill
from mipyme_backup.operations import drill_report


@admin.register(Drill)
class DrillAdmin(RunAdmin):
    """Whoever may change a drill writes its notes, and nothing else."""

    list_display = ("drill_id", "result", "began", "measured", "noted", "backup_name")
    list_filter = ("passed", "started_at")
    search_fields = ("drill_id", "backup_name", "backup_id", "destination", "notes")
    date_hierarchy = "started_at"
    fieldsets = (
        (None, {"fields": ("result", "of", "destination")}),
        (_("When"), {"fields": ("began", "ended", "measured", "against_rto")}),
        (_("Notes"), {"fields": ("notes",)}),
    )
    readonly_fields = (
        "result",
        "of",
        "destination",
        "began",
        "ended",
        "measured",
        "against_rto",
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return admin.ModelAdmin.has_change_permission(self, request, obj)

    def save_model(
        self, request: HttpRequest, obj: Drill, form: forms.ModelForm[Any], change: bool
    ) -> None:
        api.note_drill(drill_id=obj.drill_id, notes=obj.notes)

    def page_of(self, request: HttpRequest, row: Drill) -> dict[str, Any]:
        return _report(row)

    @admin.display(description=_("result"), ordering="passed")
    def result(self, drill: Drill) -> SafeString:
        if drill.passed:
            return marks.mark(marks.GOOD, _("passed"))
        return marks.mark(marks.BAD, _("failed"))

    @admin.display(description=_("backup"))
    def of(self, drill: Drill) -> SafeString:
        return self.link_to_backup(drill.backup_id, drill.backup_name)

    @admin.display(description=_("RTO"))
    def against_rto(self, drill: Drill) -> SafeString | str:
        """Say whether it came back in the time that the settings ask for now."""
        try:
            rto = api.objectives().rto.total_seconds()
        except ConfigurationError:
            return marks.NOTHING
        if drill.seconds <= rto:
            return marks.mark(marks.GOOD, _("within %(rto)s") % {"rto": marks.duration(rto)})
        return marks.mark(marks.DOUBTFUL, _("longer than %(rto)s") % {"rto": marks.duration(rto)})

    @admin.display(description=_("duration"), ordering="seconds")
    def measured(self, run: Drill) -> str:
        return marks.duration(run.seconds)

    @admin.display(description=_("notes"))
    def noted(self, drill: Drill) -> str:
        return marks.yes_or_no(bool(drill.notes))


def _report(drill: Drill) -> dict[str, Any]:
    """Return the steps and the policy's questions with their answers, in the reader's language."""
    rows, answers = drill_report.evidence(drill.steps)
    return {
        "steps": [
            {
                "title": row["title"],
                "seconds": marks.duration(row["seconds"]),
                "mark": _good_or_bad(row["ok"]),
                "problems": marks.lines(row["problems"]) if row["problems"] else "",
            }
            for row in rows
        ],
        "answers": [
            {
                "question": answer["question"],
                "mark": marks.mark(marks.NEUTRAL, _("not tried"))
                if answer["ok"] is None
                else _good_or_bad(answer["ok"]),
            }
            for answer in answers
        ],
    }


def _good_or_bad(ok: bool) -> SafeString:
    return marks.mark(marks.GOOD, _("good")) if ok else marks.mark(marks.BAD, _("problem"))
