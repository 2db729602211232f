"""Backups and their copies: lists to search, and a page for each with all that is known."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from mipyme_backup.admin import asking, marks
from mipyme_backup.admin.contents import contents_rows
from mipyme_backup.admin.read_only import ReadOnlyAdmin, RunAdmin
from mipyme_backup.catalog import needed
from mipyme_backup.catalog.reading import manifest_before
from mipyme_backup.errors import CatalogError
from mipyme_backup.models import Backup, Copy
from mipyme_backup.monitoring.contents import (
    StoredPart,
    packs_of,
    row_differences,
    rows_of,
    saved_contents,
)

VERBS = ("verify", "drill", "pin", "unpin", "plan")
"""What may be asked for a whole backup; ``complete`` is asked for a copy."""

RESENT = (Copy.Status.FAILED, Copy.Status.MISSING, Copy.Status.DAMAGED, Copy.Status.PENDING)
"""The copies that can be sent again from a good one."""

MOST_ROWS = 500
"""How many volumes, packs or tables a page shows; the manifest has them all."""


@admin.register(Backup)
class BackupAdmin(RunAdmin):
    """Each run, with what it saved, where its copies are, and what changed since the one before."""

    list_display = ("name", "state", "held", "began", "stored")
    list_filter = (
        "status",
        "kind",
        "pinned",
        ("copies__destination", admin.AllValuesFieldListFilter),
    )
    search_fields = ("name", "label", "backup_id", "sha256", "error")
    date_hierarchy = "started_at"
    fieldsets = (
        (None, {"fields": ("name", "kind", "state", "label", "problem", "warned")}),
        (_("When"), {"fields": ("stands_for", "began", "ended", "took")}),
        (
            _("What"),
            {
                "fields": (
                    ("data", "stored"),
                    "everything",
                    "kept",
                    "backup_id",
                    "sequence",
                    "manifest_hash",
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Backup]:
        return Backup.objects.defer("manifest").prefetch_related("copies")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.ask_view)
        return [
            path("<int:pk>/ask/", view, name="mipyme_backup_backup_ask"),
            *super().get_urls(),
        ]

    @method_decorator([csrf_protect, require_POST])
    def ask_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask a worker for what concerns one backup, or one of its copies."""
        name = request.POST.get("complete", "")
        verb = "complete" if name else request.POST.get("verb", "")
        if verb not in (*VERBS, "complete") or not self.has_view_permission(request):
            raise PermissionDenied
        backup = self.get_object(request, str(pk))
        if backup is None:
            raise Http404
        if name and not backup.copies.filter(destination=name).exists():
            raise Http404
        return asking.ask(
            request,
            self.admin_site,
            verb,
            back=reverse(
                "admin:mipyme_backup_backup_change", args=[pk], current_app=self.admin_site.name
            ),
            backup=asking.Named(id=backup.backup_id, name=backup.name),
            options={"destination": name} if name else {},
        )

    def page_of(self, request: HttpRequest, row: Backup) -> dict[str, Any]:
        return {**_page_of(row), "verbs": _verbs(row, request)}

    @admin.display(description=_("status"), ordering="status")
    def state(self, backup: Backup) -> SafeString:
        return marks.status(backup.status, backup.get_status_display())

    @admin.display(description=_("holds every source"))
    def everything(self, backup: Backup) -> str:
        return marks.yes_or_no(backup.whole)

    @admin.display(description=_("pinned"))
    def kept(self, backup: Backup) -> str:
        return marks.yes_or_no(backup.pinned)

    @admin.display(description=_("stands for"))
    def stands_for(self, backup: Backup) -> str:
        return marks.moment(backup.slot)

    @admin.display(description=_("size"), ordering="raw_size")
    def data(self, backup: Backup) -> str:
        return marks.size(backup.raw_size or None)

    @admin.display(description=_("stored size"), ordering="stored_size")
    def stored(self, backup: Backup) -> str:
        return marks.size(backup.stored_size or None)

    @admin.display(description=_("copies"))
    def held(self, backup: Backup) -> SafeString | str:
        found = [copy.status for copy in backup.copies.all()]
        kept = [status for status in found if status != Copy.Status.PRUNED]
        if not kept:
            return marks.mark(marks.NEUTRAL, Copy.Status.PRUNED.label) if found else marks.NOTHING
        good = kept.count(Copy.Status.COMPLETE)
        tone = marks.GOOD if good == len(kept) else marks.DOUBTFUL if good else marks.BAD
        return marks.mark(tone, _("%(good)d of %(all)d") % {"good": good, "all": len(kept)})

    @admin.display(description=_("error"))
    def problem(self, backup: Backup) -> str:
        return backup.error or marks.NOTHING

    @admin.display(description=_("warnings"))
    def warned(self, backup: Backup) -> SafeString | str:
        return marks.lines(backup.warnings)

    @admin.display(description=_("SHA-256 of the manifest"))
    def manifest_hash(self, backup: Backup) -> SafeString | str:
        return marks.fingerprint(backup.sha256)


@admin.register(Copy)
class CopyAdmin(ReadOnlyAdmin):
    """Each copy of each backup, and what the last verification found."""

    list_display = ("of", "state", "destination", "checked", "problem")
    list_filter = (
        "status",
        ("destination", admin.AllValuesFieldListFilter),
        "backup__kind",
        "verified_at",
    )
    search_fields = ("backup__name", "backup__backup_id", "destination", "error")
    date_hierarchy = "backup__started_at"
    ordering = ("-backup__started_at", "destination")
    fields = ("of_page", "destination", "state", "checked", "damage_level", "problem")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Copy]:
        return Copy.objects.select_related("backup").defer("backup__manifest")

    @admin.display(description=_("backup"), ordering="backup__started_at")
    def of(self, copy: Copy) -> str:
        return copy.backup.name

    @admin.display(description=_("backup"))
    def of_page(self, copy: Copy) -> SafeString:
        return self.link_to_backup(copy.backup.backup_id, copy.backup.name)

    @admin.display(description=_("status"), ordering="status")
    def state(self, copy: Copy) -> SafeString:
        return marks.status(copy.status, copy.get_status_display())

    @admin.display(description=_("verified"), ordering="verified_at")
    def checked(self, copy: Copy) -> str:
        return marks.moment(copy.verified_at)

    @admin.display(description=_("error"))
    def problem(self, copy: Copy) -> str:
        return copy.error or marks.NOTHING


def _verbs(backup: Backup, request: HttpRequest) -> frozenset[str]:
    """Return what may be asked for this backup: nothing of one that is not there, or not ours."""
    there = [copy for copy in backup.copies.all() if copy.status != Copy.Status.PRUNED]
    if not backup.manifest or not there or not asking.is_ours(backup.project):
        return frozenset()
    senseless = {"pin" if backup.pinned else "unpin"}
    if all(copy.status not in RESENT for copy in there):
        senseless.add("complete")
    return asking.verbs_of(request) - senseless


def _page_of(backup: Backup) -> dict[str, Any]:
    manifest = backup.manifest
    contents, packs = saved_contents(manifest), packs_of(manifest)
    return {
        "contents": contents_rows(contents),
        "copies": [
            {
                "destination": copy.destination,
                "mark": marks.status(copy.status, copy.get_status_display()),
                "verified": marks.moment(copy.verified_at),
                "error": copy.error,
                "resent": copy.status in RESENT,
            }
            for copy in backup.copies.all()
        ],
        "parts": _rows([part for content in contents for part in content.parts]),
        "packs": _rows(packs),
        "most_rows": MOST_ROWS,
        "facts": _facts(manifest),
        "manifest": marks.document(manifest) if manifest else "",
        **_differences(backup),
    }


def _rows(parts: list[StoredPart]) -> list[dict[str, Any]]:
    """Return a row for each volume, up to `MOST_ROWS` of them."""
    rows = [
        {
            "part": part.name,
            "path": path,
            "size": marks.size(size),
            "sha256": marks.fingerprint(sha256),
        }
        for part in parts
        for path, size, sha256 in part.volumes
    ]
    return rows[:MOST_ROWS]


def _facts(manifest: dict[str, Any]) -> list[tuple[Any, str]]:
    versions = manifest.get("versions", {})
    facts = [
        (_("Project"), manifest.get("project")),
        (_("Server"), manifest.get("host")),
        (_("Versions"), ", ".join(f"{name} {version}" for name, version in versions.items())),
        (_("Compression"), manifest.get("compression")),
        (_("Encryption"), manifest.get("encryption")),
        (_("Key"), manifest.get("key_fingerprint")),
        (_("Stored format"), manifest.get("format")),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _differences(backup: Backup) -> dict[str, Any]:
    """Return how the rows differ from the whole backup before; nothing of one without rows."""
    rows = rows_of(backup.manifest)
    if not rows:
        return {}
    try:
        with needed():
            before = manifest_before(backup)
    except CatalogError:
        return {}
    if before is None:
        return {"tables": len(rows)}
    found = row_differences(rows_of(before[1]), rows)
    return {
        "tables": len(rows),
        "before": before[0],
        "differences": [
            {
                "table": item.table,
                "before": marks.count(item.before),
                "after": marks.count(item.after),
                "change": marks.change(item.change),
            }
            for item in found[:MOST_ROWS]
        ],
    }
