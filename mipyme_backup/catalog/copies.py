"""Copies of backups: what verifications found, what was pruned, and what should be there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mipyme_backup.catalog.guards import Guarded, optional, otherwise
from mipyme_backup.catalog.selection import ours
from mipyme_backup.messages import Message
from mipyme_backup.models import Backup, Copy
from mipyme_backup.policy.retention import Run
from mipyme_backup.results import Level, Verified


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the catalog says of the past: the newest run, and the copies that should be there.

    `copies` are the backups' names by id, by destination; `damaged` are pairs of backup id and
    destination, `pinned` backup ids.
    """

    newest: Run | None
    copies: Mapping[str, Mapping[str, str]]
    damaged: frozenset[tuple[str, str]]
    pinned: frozenset[str]


class Copies(Guarded):
    """The rows of the copies."""

    @optional
    def verified(self, results: Iterable[Verified], level: Level) -> None:
        """Note what a verification at `level` found; of a copy that was pruned meanwhile, nothing.

        Stored bytes that are right do not lift damage that was found in their content.
        """
        for result in results:
            if result.unreadable is not None:
                continue
            copies = Copy.objects.filter(
                backup__backup_id=result.id, destination=result.destination
            ).exclude(status=Copy.Status.PRUNED)
            if not result.problems and level == "stored":
                copies = copies.exclude(status=Copy.Status.DAMAGED, damage_level="content")
            copies.update(
                status=Copy.Status.DAMAGED if result.problems else Copy.Status.COMPLETE,
                damage_level=level if result.problems else "",
                error="\n".join(result.problems),
                verified_at=datetime.now(UTC),
            )

    @otherwise(dict)
    def verified_at(self) -> dict[tuple[str, str], datetime]:
        """Return when each copy was last verified, by backup id and destination.

        Empty where the catalog cannot be read.
        """
        copies = Copy.objects.filter(verified_at__isnull=False)
        return {
            (backup_id, destination): moment
            for backup_id, destination, moment in copies.values_list(
                "backup__backup_id", "destination", "verified_at"
            )
            if moment is not None
        }

    @otherwise(frozenset)
    def damaged_copies(self) -> frozenset[tuple[str, str]]:
        """Return (backup id, destination) of the copies that a verification found damaged.

        Empty where the catalog cannot be read.
        """
        damaged = Copy.objects.filter(status=Copy.Status.DAMAGED)
        return frozenset(damaged.values_list("backup__backup_id", "destination"))

    @otherwise(lambda: None)
    def known(self, project: str, now: datetime) -> Known | None:
        """Return what a prune of `project` goes by; None where the catalog cannot be read."""
        runs = Backup.objects.filter(ours(project), started_at__lte=now)
        newest = runs.order_by("-started_at", "-pk")
        run = newest.values("name", "status").first()
        there = Copy.objects.filter(
            status__in=(Copy.Status.COMPLETE, Copy.Status.DAMAGED),
            backup__project=project,
        )
        copies: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for destination, backup_id, name in there.values_list(
            "destination", "backup__backup_id", "backup__name"
        ):
            copies[destination][backup_id] = name
        pinned = Backup.objects.filter(pinned=True).values_list("backup_id", flat=True)
        return Known(
            newest=Run(**run) if run else None,
            copies=copies,
            damaged=self.damaged_copies(),
            pinned=frozenset(pinned),
        )

    @optional
    def pruned(self, backup_id: str, destination: str, reason: Message) -> None:
        """Note that a copy was deleted on purpose, and why."""
        Copy.objects.filter(backup__backup_id=backup_id, destination=destination).update(
            status=Copy.Status.PRUNED, error=str(reason)
        )

    @otherwise(bool)
    def was_pruned(self, backup_id: str) -> bool:
        """Say whether a backup was pruned, and is whole nowhere else; False where nobody knows."""
        copies = Copy.objects.filter(backup__backup_id=backup_id)
        others = copies.exclude(status__in=(Copy.Status.PRUNED, Copy.Status.FAILED))
        return copies.filter(status=Copy.Status.PRUNED).exists() and not others.exists()
