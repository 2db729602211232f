"""Runs of backups: from their start to their end, and what numbers and slots they took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import Max, Min, QuerySet, TextField, Value
from django.db.models.fields.json import KeyTextTransform

from mipyme_backup.catalog.guards import Guarded, optional, otherwise
from mipyme_backup.catalog.selection import MADE, ours
from mipyme_backup.models import Backup, Copy, Restore
from mipyme_backup.results import said_databases
from mipyme_backup.stored_shapes import SOURCES


class Runs(Guarded):
    """The rows of the backups; `manifests` has how a good run ends."""

    @optional
    def start(
        self,
        project: str,
        backup_id: str,
        name: str,
        kind: str,
        label: str,
        slot: datetime | None,
        started_at: datetime,
    ) -> None:
        Backup.objects.create(
            project=project,
            backup_id=backup_id,
            name=name,
            kind=kind,
            label=label,
            slot=slot,
            status=Backup.Status.RUNNING,
            started_at=started_at,
        )

    @optional
    def fail(self, backup_id: str, error: str) -> None:
        Backup.objects.filter(backup_id=backup_id, status=Backup.Status.RUNNING).update(
            status=Backup.Status.FAILED, finished_at=datetime.now(UTC), error=error
        )

    @optional
    def abandon_running(self, ended: Mapping[str, str]) -> None:
        """Mark the runs whose processes died. Call it with the lock held: nothing else runs.

        `ended` are the restores that came to their end all the same, with their status.
        """
        now = datetime.now(UTC)
        Backup.objects.filter(status=Backup.Status.RUNNING).update(
            status=Backup.Status.ABANDONED, finished_at=now
        )
        for restore in Restore.objects.filter(status=Restore.Status.RUNNING):
            restore.status = ended.get(restore.restore_id, Restore.Status.ABANDONED)
            restore.finished_at = now
            restore.save(update_fields=("status", "finished_at"))

    @otherwise(bool)
    def has_running(self) -> bool:
        """Say whether a run is noted as running; False where the catalog cannot be read."""
        models: tuple[type[Backup] | type[Restore], ...] = (Backup, Restore)
        return any(
            model._default_manager.filter(status=model.Status.RUNNING).exists() for model in models
        )

    @otherwise(int)
    def newest_sequence(self, project: str) -> int:
        """Return the highest number of a whole backup that was committed, safety ones apart.

        0 where there is none, or the catalog cannot be read.
        """
        committed = Backup.objects.filter(ours(project), whole=True, status__in=MADE).exclude(
            kind=Backup.Kind.SAFETY
        )
        return int(committed.aggregate(newest=Max("sequence"))["newest"] or 0)

    @otherwise(lambda: None)
    def of_slot(self, project: str, kind: str, slot: datetime) -> str | None:
        """Return the name of the whole backup that was made for the slot; None where there is none.

        None too where the catalog cannot be read.
        """
        backups = Backup.objects.filter(
            ours(project), kind=kind, slot=slot, status__in=MADE, whole=True
        )
        return backups.values_list("name", flat=True).first()

    @otherwise(frozenset)
    def names_of_others(self, project: str, backup_id: str, name: str) -> frozenset[str]:
        """Return the names of other runs that begin with `name`, of failed ones too.

        None of them where the catalog cannot be read.
        """
        others = Backup.objects.filter(ours(project), name__startswith=name)
        return frozenset(others.exclude(backup_id=backup_id).values_list("name", flat=True))

    @otherwise(lambda: ({}, None))
    def slots(self, project: str, now: datetime) -> tuple[dict[str, datetime], datetime | None]:
        """Return the newest slot that each kind has a backup for, and the first that had a run.

        A slot in the future is that of a clock which was wrong, and stands for none. A backup that
        is being made counts. Nothing where the catalog cannot be read.
        """
        runs = Backup.objects.filter(ours(project), whole=True, slot__lte=now)
        status = Backup.Status
        good = runs.filter(status__in=(status.RUNNING, status.COMPLETE, status.PARTIAL))
        newest = good.order_by().values_list("kind").annotate(newest=Max("slot"))
        return dict(newest), runs.aggregate(first=Min("slot"))["first"]

    @optional
    def pin(self, backup_id: str, pinned: bool) -> None:
        Backup.objects.filter(backup_id=backup_id).update(pinned=pinned)

    @otherwise(lambda: None)
    def rows(self) -> list[dict[str, Any]] | None:
        """Return the runs, newest first, as JSON values; None where they cannot be read.

        A backup whose every copy was pruned is history, and left out.
        """
        try:
            with transaction.atomic():
                rows = [_row(backup) for backup in _backups(told=True)]
        except DatabaseError:  # SQLite may hold a text that is no JSON
            rows = [_row(backup) for backup in _backups(told=False)]
        return [row for row in rows if not _is_pruned(row)]


def _backups(*, told: bool) -> QuerySet[Backup]:
    """Return the runs, with what their manifests say of their origin if that is `told`."""
    backups = Backup.objects.defer("manifest").prefetch_related("copies")
    if not told:
        unknown = Value(None, output_field=TextField())
        return backups.annotate(host=unknown, saved=unknown)
    return backups.annotate(
        host=KeyTextTransform("host", "manifest"),
        saved=KeyTextTransform("sources", "manifest"),
    )


def _is_pruned(row: Mapping[str, Any]) -> bool:
    statuses = {copy["status"] for copy in row["copies"]}
    return statuses == {Copy.Status.PRUNED}


def _databases(saved: str | None) -> dict[str, dict[str, str]]:
    """Return the databases that the sources of a manifest, as JSON, say they are of."""
    try:
        sources = SOURCES(json.loads(saved or "[]"))
    except (ValueError, RecursionError):
        return {}
    return said_databases((source["name"], source["facts"]) for source in sources)


def _row(backup: Any) -> dict[str, Any]:
    return {
        "id": backup.backup_id,
        "name": backup.name,
        "kind": backup.kind,
        "label": backup.label,
        "status": backup.status,
        "pinned": backup.pinned,
        "started_at": backup.started_at.isoformat(),
        "finished_at": backup.finished_at.isoformat() if backup.finished_at else None,
        "raw_size": backup.raw_size,
        "stored_size": backup.stored_size,
        "sha256": backup.sha256,
        "host": backup.host or "",
        "databases": _databases(backup.saved),
        "sources": backup.sources,
        "warnings": [*backup.warnings, *filter(None, [backup.error])],
        "copies": [
            {"destination": copy.destination, "status": copy.status, "error": copy.error or None}
            for copy in backup.copies.all()
        ],
    }
