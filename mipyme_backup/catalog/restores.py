"""Restores and drills: each is noted, and is no cache of anything."""

from __future__ import annotations

from datetime import UTC, datetime

from mipyme_backup.catalog.guards import Guarded, needed, optional
from mipyme_backup.manifest import Manifest
from mipyme_backup.models import Drill, Restore
from mipyme_backup.results import DrillResult


class Restores(Guarded):
    """The rows of the restores and of the drills."""

    @optional
    def start_restore(self, restore_id: str, manifest: Manifest, sources: list[str]) -> None:
        """Note a restore, unless it is noted already: the swap may have changed the database."""
        Restore.objects.get_or_create(
            restore_id=restore_id,
            defaults={
                "backup_id": manifest.id,
                "backup_name": manifest.name,
                "status": Restore.Status.RUNNING,
                "sources": sources,
                "started_at": datetime.now(UTC),
            },
        )

    @optional
    def end_restore(
        self,
        restore_id: str,
        status: str,
        error: str = "",
        *,
        downtime: float | None = None,
        safety: str | None = None,
    ) -> None:
        Restore.objects.filter(restore_id=restore_id).update(
            status=status,
            error=error,
            finished_at=datetime.now(UTC),
            downtime_seconds=downtime,
            safety_backup=safety or "",
        )

    @optional
    def record_drill(self, result: DrillResult) -> None:
        Drill.objects.create(
            drill_id=result.id,
            backup_id=result.backup_id,
            backup_name=result.backup_name,
            destination=result.destination,
            passed=result.passed,
            started_at=result.started_at,
            finished_at=result.finished_at,
            seconds=result.seconds,
            steps=[step.to_dict() for step in result.steps],
        )

    def note_drill(self, drill_id: str, notes: str) -> None:
        """Keep what was done about a drill's problems; raises CatalogError where that cannot be."""
        with needed():
            Drill.objects.filter(drill_id=drill_id).update(notes=notes)
