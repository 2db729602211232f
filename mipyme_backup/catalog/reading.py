"""What the admin's pages read of the catalog: few queries, and no manifest but those shown.

Call these within `catalog.needed`, which tells of a catalog that cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.db.models import Exists, OuterRef, Subquery
from django.db.models.functions import Coalesce

from mipyme_backup.catalog.selection import MADE, UNDER_WAY, ours
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill, Task
from mipyme_backup.policy.checklist import Action, Entry
from mipyme_backup.policy.status_facts import DrillFacts


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a backup, by its row `pk` in the catalog; `at` is the moment that it stands for."""

    pk: int
    kind: str
    status: str
    whole: bool
    sequence: int
    at: datetime

    @property
    def counts(self) -> bool:
        """Whether there is a backup, and it holds everything."""
        return self.whole and self.kind != Backup.Kind.SAFETY and self.status in MADE


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """More of a run: sizes in bytes; `copies` are (status, error) by destination."""

    pk: int
    backup_id: str
    name: str
    kind: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    raw_size: int
    stored_size: int
    copies: Mapping[str, tuple[str, str]]

    @property
    def seconds(self) -> float | None:
        """How long it took; None of one that goes on."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    @property
    def good(self) -> bool:
        return any(status == Copy.Status.COMPLETE for status, _error in self.copies.values())


@dataclass(frozen=True, kw_only=True)
class PastDrill(DrillFacts):
    """A drill, by its row `pk` in the catalog."""

    pk: int


def runs_since(project: str, since: datetime) -> list[Run]:
    """Return the runs that began since then, the newest first."""
    runs = Backup.objects.filter(ours(project), started_at__gte=since)
    rows = runs.order_by("-started_at", "-pk").values_list(
        "pk", "kind", "status", "whole", "sequence", Coalesce("slot", "started_at")
    )
    return [Run(*row) for row in rows]


def details_of(runs: Collection[int]) -> dict[int, RunDetails]:
    """Return more of these runs, by their `pk`, in no order."""
    backups = Backup.objects.filter(pk__in=runs).defer("manifest").prefetch_related("copies")
    return {
        backup.pk: RunDetails(
            pk=backup.pk,
            backup_id=backup.backup_id,
            name=backup.name,
            kind=backup.kind,
            status=backup.status,
            started_at=backup.started_at,
            finished_at=backup.finished_at,
            raw_size=backup.raw_size,
            stored_size=backup.stored_size,
            copies={copy.destination: (copy.status, copy.error) for copy in backup.copies.all()},
        )
        for backup in backups
    }


def newest_good(project: str) -> int | None:
    """Return the `pk` of the newest backup that counts and has a good copy, however old it is.

    Slow where there are thousands.
    """
    complete = Copy.objects.filter(backup=OuterRef("pk"), status=Copy.Status.COMPLETE)
    good = Backup.objects.filter(ours(project), Exists(complete), whole=True, status__in=MADE)
    newest = good.exclude(kind=Backup.Kind.SAFETY).order_by("-sequence", "-started_at")
    return newest.values_list("pk", flat=True).first()


def manifest_of(run: int) -> Mapping[str, Any]:
    """Return the manifest of a run, by its `pk`."""
    found = Backup.objects.filter(pk=run).values_list("manifest", flat=True).first()
    return found or {}


def last_drill() -> PastDrill | None:
    """Return the last drill, None where there is none."""
    drills = Drill.objects.order_by("-finished_at", "-pk")
    row = drills.values("pk", "finished_at", "passed", "backup_name", "seconds").first()
    return PastDrill(**row) if row else None


def tasks_under_way(project: str, most: int) -> list[Task]:
    """Return the newest of what people asked for and that waits or runs, the oldest first."""
    newest = Task.objects.filter(ours(project), status__in=UNDER_WAY).order_by("-pk")[:most]
    return [*reversed(newest)]


def checklist_entries(project: str) -> list[Entry]:
    """Return what was done to the checklist that counts, the oldest first."""
    entries = ChecklistEntry.objects.filter(project=project)
    began = entries.filter(action=ChecklistEntry.Action.BEGAN).order_by("-pk").values("pk")[:1]
    since = entries.filter(pk__gte=Coalesce(Subquery(began), 0)).order_by("pk")
    return [
        Entry(action=cast("Action", row.action), line=row.line, at=row.at, by=row.by)
        for row in since
    ]


def manifest_before(backup: Backup) -> tuple[str, Mapping[str, Any]] | None:
    """Return the name and manifest of the whole backup before this one; None of the first."""
    earlier = Backup.objects.filter(
        project=backup.project, status__in=MADE, whole=True, started_at__lt=backup.started_at
    )
    return earlier.order_by("-started_at").values_list("name", "manifest").first()
