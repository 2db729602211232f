"""What the catalog knows of the past, as the status judges it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from mipyme_backup.catalog.guards import Guarded, otherwise
from mipyme_backup.catalog.selection import MADE, is_current, ours
from mipyme_backup.manifest import media_bytes, row_counts
from mipyme_backup.models import Backup, Drill, Restore
from mipyme_backup.policy.left_out import lacks, missing_files
from mipyme_backup.policy.status_facts import (
    BackupFacts,
    CopyFacts,
    DrillFacts,
    RestoreFacts,
    RunFacts,
)


class Facts(Guarded):
    """What happened last: backups, runs, restores, drills."""

    @otherwise(lambda: None)
    def recorded(self, project: str, limit: int) -> list[BackupFacts] | None:
        """Return the newest backups that count, with their copies; None where that cannot be."""
        backups = Backup.objects.filter(ours(project), status__in=MADE, whole=True)
        newest = backups.exclude(kind=Backup.Kind.SAFETY).order_by("-sequence", "-started_at")
        return [_facts(backup) for backup in newest.prefetch_related("copies")[:limit]]

    @otherwise(lambda: None)
    def last_run(self, project: str, *, running: bool) -> RunFacts | None:
        """Return the last run of a backup that counts: one that is running, or one that has ended.

        None where there is none, or where the catalog cannot be read.
        """
        runs = Backup.objects.filter(ours(project), whole=True).exclude(kind=Backup.Kind.SAFETY)
        chosen = runs.filter if running else runs.exclude
        run = chosen(status=Backup.Status.RUNNING).order_by("-started_at").first()
        if run is None:
            return None
        return RunFacts(
            name=run.name, status=run.status, started_at=run.started_at, error=run.error
        )

    @otherwise(lambda: None)
    def last_restore(self, is_optional: Callable[[str], bool]) -> RestoreFacts | None:
        """Return the last restore of a whole backup that succeeded, and how long it took.

        A source that `is_optional` need not have been restored. None where there is none among
        the last few, or the catalog cannot be read.
        """
        done = Restore.objects.filter(status=Restore.Status.COMPLETE)
        for restore in done.exclude(finished_at=None).order_by("-finished_at")[:10]:
            backup = Backup.objects.filter(backup_id=restore.backup_id, whole=True).first()
            if backup is None:
                continue
            lacking = set(backup.sources) - set(restore.sources)
            if not all(map(is_optional, lacking)):
                continue
            assert restore.finished_at is not None
            return RestoreFacts(
                finished_at=restore.finished_at,
                backup_name=backup.name,
                seconds=(restore.finished_at - restore.started_at).total_seconds(),
            )
        return None

    @otherwise(lambda: None)
    def last_drill(self) -> DrillFacts | None:
        """Return the last drill; None where there is none, or the catalog cannot be read."""
        drills = Drill.objects.order_by("-finished_at", "-pk")
        drill = drills.first() if is_current(Drill, "default") else None
        if drill is None:
            return None
        return DrillFacts(
            finished_at=drill.finished_at,
            passed=drill.passed,
            backup_name=drill.backup_name,
            seconds=drill.seconds,
        )


def _facts(backup: Backup) -> BackupFacts:
    snapshot = backup.manifest.get("snapshot_at")
    sources = backup.manifest.get("sources", ())
    saved = [(source["name"], source["facts"]) for source in sources]
    return BackupFacts(
        id=backup.backup_id,
        name=backup.name,
        kind=backup.kind,
        whole=backup.whole,
        sequence=backup.sequence,
        snapshot_at=datetime.fromisoformat(snapshot) if snapshot else backup.started_at,
        finished_at=backup.finished_at or backup.started_at,
        stored_size=backup.stored_size,
        copies={
            copy.destination: CopyFacts(
                status=copy.status, error=copy.error, verified_at=copy.verified_at
            )
            for copy in backup.copies.all()
        },
        data_size=sum(a["raw_size"] for source in sources for a in source["artifacts"]),
        media_size=media_bytes(saved),
        rows=row_counts(saved),
        lacks=lacks(saved),
        missing=missing_files(saved),
    )
