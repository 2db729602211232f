"""Backups: to take, complete, verify, list, pin and prune them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mipyme_backup import conf
from mipyme_backup.api.given import Silent
from mipyme_backup.api.watching import ends_with_check
from mipyme_backup.errors import UsageError
from mipyme_backup.messages import Message, _
from mipyme_backup.operations import backup as backup_operation
from mipyme_backup.operations import pins
from mipyme_backup.operations import prune as prune_operation
from mipyme_backup.operations import verify as verify_operation
from mipyme_backup.operations.choosing import all_backups, listings
from mipyme_backup.operations.listing import rows_of
from mipyme_backup.operations.pins import PinResult
from mipyme_backup.operations.project import Progress
from mipyme_backup.parts import build_project
from mipyme_backup.results import BackupResult, Level, PruneResult, Verified
from mipyme_backup.translation import said

KINDS = ("manual", "daily", "monthly", "pre_deploy")
LABEL_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One backup as ``list_backups`` shows it."""

    row: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        copies = [
            {**copy, "error": said(copy["error"] or "") or None} for copy in self.row["copies"]
        ]
        return {
            **self.row,
            "warnings": [said(warning) for warning in self.row["warnings"]],
            "copies": copies,
        }


def backup(
    *,
    kind: str = "manual",
    only: Sequence[str] = (),
    destinations: Sequence[str] = (),
    label: str = "",
    slot: datetime | None = None,
    allow_empty: bool = False,
    wait: bool = False,
    progress: Progress | None = None,
) -> BackupResult:
    """Take a backup. `slot` is the moment it stands for; `wait` waits for the lock.

    Raises RestoreFirstError where the project's tables are gone and backups hold them, unless with
    `allow_empty`; what is saved then is nothing that a restore takes by itself.
    """
    if kind not in KINDS:
        raise UsageError(
            _("There is no kind %(kind)s."),
            hint=_("Kinds: %(known)s"),
            kind=kind,
            known=", ".join(KINDS),
        )
    if len(label) > LABEL_LENGTH or not label.isprintable():
        raise UsageError(
            _("The label must be one line of at most %(limit)d characters."), limit=LABEL_LENGTH
        )
    request = backup_operation.Request(
        kind=kind,
        only=only,
        destinations=destinations,
        label=label,
        slot=slot,
        allow_empty=allow_empty,
    )
    project = build_project()
    with ends_with_check(project) as proven:
        result = backup_operation.run(project, request, progress or Silent(), wait=wait)
        proven.update(result.copies.keys() - result.failed)
    return result


def complete(
    *,
    identifier: str,
    destinations: Sequence[str] = (),
    progress: Progress | None = None,
) -> BackupResult:
    """Complete the copies of a backup on the `destinations`, without any on all that lack it.

    Only what a destination lacks, or holds damaged, is sent, from a copy that is good.
    """
    project = build_project()
    with ends_with_check(project) as proven:
        result = backup_operation.complete(project, identifier, destinations, progress or Silent())
        proven.update(result.copies.keys() - result.failed)
    return result


def verify(
    *,
    identifiers: Sequence[str] = (),
    latest: bool = False,
    destination: str | None = None,
    level: Level = "stored",
    progress: Progress | None = None,
) -> list[Verified]:
    """Verify the named backups, the latest, or (without either) all."""
    project = build_project()
    with ends_with_check(project):
        return verify_operation.run(
            project,
            identifiers=identifiers,
            latest=latest,
            destination=destination,
            level=level,
            progress=progress or Silent(),
        )


def prune(
    *,
    destinations: Sequence[str] = (),
    dry_run: bool = False,
    wait: bool = False,
    progress: Progress | None = None,
) -> PruneResult:
    """Delete what the retention of each destination lets go; with `dry_run` only say what.

    `wait` waits for the lock.
    """
    project = build_project()
    with contextlib.nullcontext() if dry_run else ends_with_check(project):
        return prune_operation.run(
            project,
            destinations=destinations,
            dry_run=dry_run,
            wait=wait,
            progress=progress or Silent(),
        )


def pin(*, identifier: str, pinned: bool = True) -> PinResult:
    """Pin a backup, so that no prune deletes it; without `pinned` take the pin away."""
    return pins.pin(build_project(), identifier, pinned=pinned)


def backups(*, destination: str | None = None, sync: bool = False) -> list[Listed]:
    """Return the backups, newest first: from the catalog, or from the destinations themselves.

    The destinations are read where one is named, where `sync` asks for it (which rebuilds the
    catalog from them), and where the catalog cannot be read or is empty.
    """
    project = build_project()
    if sync:
        project.catalog.sync(listings(project, [*project.destinations]))
    rows = None if destination else project.catalog.rows()
    if not rows:
        rows = rows_of(all_backups(project, destination))
    return [Listed(row=row) for row in rows]


def guards_migrations() -> bool:
    """Say whether ``migrate`` is to take a backup before it may lose data."""
    return conf.load().migrate_guard


def preflight() -> list[Message]:
    """Return what is doubtful about backing up here; raises what makes it impossible.

    Looks at the tools, the key and the databases, and writes nothing.
    """
    project = build_project()
    return backup_operation.preflight(project, [*project.sources.values()])
