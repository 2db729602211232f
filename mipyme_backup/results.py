"""What the operations return and the catalog keeps: frozen records, known to both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mipyme_backup.drills.job import Step
from mipyme_backup.errors import BackupError
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message
from mipyme_backup.policy.left_out import unreadable_count
from mipyme_backup.policy.origin import databases_of
from mipyme_backup.policy.retention import Decision
from mipyme_backup.translation import said, translated

Level = Literal["stored", "content"]
Action = Literal["keep", "delete", "locked", "failed"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A backup as one destination holds it; `error` in place of an unreadable `manifest`.

    `pinned` is what a listing showed: False where there was none.
    """

    destination: str
    name: str
    pinned: bool = False
    manifest: Manifest | None = None
    sha256: str = ""
    error: BackupError | None = None


@dataclass(frozen=True, kw_only=True)
class BackupResult:
    """One backup as a caller sees it; sizes in bytes, `sha256` that of the manifest.

    `summaries` say by source how much it holds, where the source can say.
    """

    manifest: Manifest
    sha256: str
    copies: Mapping[str, BackupError | None] = field(default_factory=dict)
    summaries: Mapping[str, Message | None] = field(default_factory=dict)

    @property
    def failed(self) -> frozenset[str]:
        """The destinations that lack a copy."""
        return frozenset(name for name, error in self.copies.items() if error)

    @property
    def status(self) -> str:
        return "partial" if self.failed or unreadable_count(self.manifest.facts) else "complete"

    @property
    def warnings(self) -> Sequence[str]:
        """What a person should know, in English."""
        return self.manifest.warnings

    def to_dict(self) -> dict[str, Any]:
        return {
            **described(self.manifest, self.sha256),
            "warnings": [said(warning) for warning in self.manifest.warnings],
            "status": self.status,
            "pinned": False,
            "copies": [
                {
                    "destination": name,
                    "status": "failed" if error else "complete",
                    "error": translated(error.message) if error else None,
                }
                for name, error in self.copies.items()
            ],
        }


def described(manifest: Manifest, sha256: str) -> dict[str, Any]:
    """Return what a manifest says of a backup, as the JSON of ``list_backups``."""
    return {
        "id": manifest.id,
        "name": manifest.name,
        "kind": manifest.kind,
        "label": manifest.label,
        "started_at": manifest.started_at.isoformat(),
        "finished_at": manifest.finished_at.isoformat(),
        "raw_size": manifest.raw_size,
        "stored_size": manifest.stored_size,
        "sha256": sha256,
        "host": manifest.host,
        "databases": said_databases(manifest.facts),
        "sources": [source.name for source in manifest.sources],
        "warnings": list(manifest.warnings),
    }


def said_databases(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    """Return the databases of a backup by source as plain values, from the sources' facts."""
    return {name: dataclasses.asdict(one) for name, one in databases_of(sources).items()}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found of one backup on one destination; no problems means that it is good.

    `away` says that the destination could not be listed, or went away; then there is no `id`.
    The recovery program has no `id` either, and is told of where it was changed. Where its content
    is `unreadable` here, for want of a key or a tool, or of one that lived to its end, nothing is
    known of it.
    """

    id: str
    name: str
    destination: str
    problems: tuple[str, ...]
    away: bool = False
    unreadable: BackupError | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "destination": self.destination,
            "ok": not self.problems,
            "problems": [said(problem) for problem in self.problems],
        }


@dataclass(frozen=True, kw_only=True)
class RestoreResult:
    """What was done, or (status ``planned``) would be; `seconds` and `downtime` are measured.

    `left_out` are the sources of the backup that are not restored. A planned restore has no `id`
    yet. `stays` are the sources that an undo leaves as they are.
    `other_origin` is what speaks against the backup being of what it replaces.
    """

    id: str
    status: str
    backup_id: str
    backup_name: str
    plan: tuple[Message, ...] = ()
    safety_backup: str | None = None
    replaced: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    other_origin: tuple[Message, ...] = ()
    seconds: float = 0.0
    downtime_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status,
            "backup": {"id": self.backup_id, "name": self.backup_name},
            "plan": [translated(line) for line in self.plan],
            "safety_backup": self.safety_backup,
            "replaced": dict(self.replaced),
            "left_out": list(self.left_out),
            "stays": [*self.stays],
            "other_origin": [translated(line) for line in self.other_origin],
            "seconds": round(self.seconds, 3),
            "downtime_seconds": round(self.downtime_seconds, 3),
        }


@dataclass(frozen=True, kw_only=True)
class DrillResult:
    """What a drill found; `seconds` is from its start to the last assertion.

    `reports` are the files that tell of it.
    """

    id: str
    backup_id: str
    backup_name: str
    destination: str
    started_at: datetime
    finished_at: datetime
    seconds: float
    rto_seconds: float
    steps: tuple[Step, ...]
    reports: tuple[Path, ...] = ()

    @property
    def passed(self) -> bool:
        return all(step.ok for step in self.steps)

    @property
    def within_rto(self) -> bool:
        return self.seconds <= self.rto_seconds

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "backup": {"id": self.backup_id, "name": self.backup_name},
            "destination": self.destination,
            "passed": self.passed,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "rto_seconds": self.rto_seconds,
            "within_rto": self.within_rto,
            "steps": [
                {**step.to_dict(), "problems": [said(problem) for problem in step.problems]}
                for step in self.steps
            ],
            "reports": [str(path) for path in self.reports],
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one copy, or (in a dry run) would; `size` in bytes, without shared packs.

    ``locked`` means that it was to be deleted, and the destination keeps it; ``failed`` that the
    destination failed before.
    """

    decision: Decision
    action: Action
    size: int
    age_days: float | None

    def to_dict(self) -> dict[str, Any]:
        copy = self.decision.copy
        return {
            "id": copy.id,
            "name": copy.name,
            "kind": copy.kind,
            "finished_at": copy.finished_at.isoformat() if copy.finished_at else None,
            "age_days": None if self.age_days is None else round(self.age_days, 2),
            "size": self.size,
            "action": self.action,
            "reason": str(self.decision.reason),
        }


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """One destination: `freed` in bytes; `waiting` folders belong to nobody, for too short a time.

    With an `error` nothing more than what is said was deleted there, and why.
    """

    destination: str
    outcomes: tuple[Outcome, ...] = ()
    freed: int = 0
    waiting: int = 0
    error: BackupError | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "destination": self.destination,
            "error": translated(self.error.message) if self.error else None,
            "freed": self.freed,
            "waiting": self.waiting,
            "backups": [outcome.to_dict() for outcome in self.outcomes],
        }


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """What was pruned, or (`dry_run`) would be, by destination."""

    dry_run: bool
    destinations: tuple[Pruned, ...]

    @property
    def failed(self) -> bool:
        return any(pruned.error for pruned in self.destinations)

    def to_dict(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "freed": sum(pruned.freed for pruned in self.destinations),
            "destinations": [pruned.to_dict() for pruned in self.destinations],
        }
