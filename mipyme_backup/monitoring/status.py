"""The state of the backups: facts, what the policy finds in them, and the level of it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from mipyme_backup.monitoring.facts import Look, gather
from mipyme_backup.monitoring.slots import failing_jobs, missed_slots, silence
from mipyme_backup.operations.project import Project
from mipyme_backup.policy.status import Finding, Level, findings, level_of
from mipyme_backup.policy.status_facts import (
    BackupFacts,
    DestinationFacts,
    DrillFacts,
    Facts,
    Policy,
    RestoreFacts,
    RunFacts,
)
from mipyme_backup.translation import said, translated


@dataclass(frozen=True, kw_only=True)
class Status:
    """How the backups of a project were at the moment `at`."""

    project: str
    host: str
    at: datetime
    facts: Facts
    findings: Sequence[Finding]

    @property
    def level(self) -> Level:
        return level_of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "findings": [told_finding(finding) for finding in self.findings],
            "facts": told_facts(self.facts_document()),
        }

    def facts_document(self) -> dict[str, Any]:
        """Return the facts as JSON values, to be kept: errors are in English."""
        facts = self.facts
        return {
            "project": self.project,
            "host": self.host,
            "at": self.at.isoformat(),
            "newest_good": self._backup(facts.newest_good()),
            "last_run": _run(facts.last_run),
            "running": _run(facts.running),
            "encryption": facts.encryption,
            "key_fingerprint": facts.key_fingerprint,
            "opens_own_backups": facts.opens,
            "catalog": facts.catalog,
            "highest_known": facts.highest_known,
            "schedule_silent": facts.silence is not None,
            "missed_slots": [
                {"kind": missed.kind, "slot": missed.slot.isoformat()} for missed in facts.missed
            ],
            "key_expires": facts.key_expires.isoformat() if facts.key_expires else None,
            "predicted_restore_seconds": (
                round(facts.predicted_restore.total_seconds(), 1)
                if facts.predicted_restore is not None
                else None
            ),
            "last_restore": _timed(facts.last_restore),
            "last_drill": _drill(facts.last_drill),
            "destinations": {item.name: self._destination(item) for item in facts.destinations},
        }

    def _destination(self, facts: DestinationFacts) -> dict[str, Any]:
        return {
            "place": facts.place,
            "remote": facts.remote,
            "reachable": facts.reachable,
            "writable": facts.writable,
            "may_delete": facts.may_delete,
            "clock_ahead_seconds": (
                None if facts.skew is None else round(facts.skew.total_seconds())
            ),
            "error": None if facts.error is None else str(facts.error),
            "free_bytes": facts.free,
            "total_bytes": facts.total,
            "backups": facts.backups,
            "unreadable": list(facts.unreadable),
            "need_key": list(facts.need_key),
            "foreign": facts.foreign,
            "highest_sequence": facts.highest_sequence,
            "newest_good": self._backup(self.facts.newest_good(facts.name)),
        }

    def _backup(self, backup: BackupFacts | None) -> dict[str, Any] | None:
        if backup is None:
            return None
        return {
            "id": backup.id,
            "name": backup.name,
            "kind": backup.kind,
            "snapshot_at": backup.snapshot_at.isoformat(),
            "finished_at": backup.finished_at.isoformat(),
            "age_seconds": round((self.at - backup.finished_at).total_seconds()),
            "stored_size": backup.stored_size,
            "copies": {name: copy.status for name, copy in backup.copies.items()},
        }


def take(
    project: Project,
    policy: Policy,
    *,
    schedule: Mapping[str, str | None],
    host: str,
    seconds: float,
    now: datetime | None = None,
    remembered: Mapping[str, Look] | None = None,
) -> Status:
    """Look at all of the project's destinations for `seconds` at most, and judge what is seen.

    `schedule` has cron expressions by job. Destinations that are `remembered` are not asked.
    """
    facts = gather(project, seconds=seconds, remembered=remembered)
    at = now or datetime.now(UTC)
    zone = timezone.get_default_timezone()
    facts = replace(
        facts,
        missed=[*missed_slots(project, schedule, at, zone)],
        failing=[*failing_jobs(project, schedule)],
        silence=silence(project, schedule, at, zone, catalog=facts.catalog),
    )
    return Status(
        project=project.name, host=host, at=at, facts=facts, findings=findings(policy, facts, at)
    )


def told_finding(finding: Finding) -> dict[str, str]:
    """Return the finding as JSON values, in the active language."""
    return {
        "id": finding.id,
        "level": finding.level,
        "message": translated(finding.message),
        "hint": translated(finding.hint),
    }


def told_facts(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts with their errors in the active language."""
    run = document["last_run"]
    return {
        **document,
        "last_run": run and {**run, "error": run["error"] and said(run["error"])},
        "destinations": {
            name: {**item, "error": item["error"] and said(item["error"])}
            for name, item in document["destinations"].items()
        },
    }


def _run(run: RunFacts | None) -> Mapping[str, Any] | None:
    if run is None:
        return None
    return {
        "name": run.name,
        "status": run.status,
        "started_at": run.started_at.isoformat(),
        "error": run.error or None,
    }


def _timed(restore: RestoreFacts | DrillFacts | None) -> dict[str, Any] | None:
    if restore is None:
        return None
    return {
        "backup": restore.backup_name,
        "finished_at": restore.finished_at.isoformat(),
        "seconds": round(restore.seconds, 1),
    }


def _drill(drill: DrillFacts | None) -> dict[str, Any] | None:
    timed = _timed(drill)
    return {**timed, "passed": drill.passed} if drill and timed else None
