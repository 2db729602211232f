"""What manifests say, as the catalog has it: of a run at its end, and of all that there are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping

from django.db import transaction

from mipyme_backup.catalog.guards import Guarded, optional
from mipyme_backup.errors import BackupError
from mipyme_backup.manifest import Manifest
from mipyme_backup.models import Backup, Copy
from mipyme_backup.policy.left_out import unreadable_count
from mipyme_backup.results import Found


class Manifests(Guarded):
    """The cache of the manifests."""

    @optional
    def finish(
        self, manifest: Manifest, sha256: str, copies: Mapping[str, BackupError | None]
    ) -> None:
        _record(manifest, sha256, {name: error is None for name, error in copies.items()}, None)
        for name, error in copies.items():
            if error is not None:
                Copy.objects.filter(backup__backup_id=manifest.id, destination=name).update(
                    error=str(error)
                )

    @optional
    def sync(self, found: Mapping[str, Iterable[Found]], using: str = "default") -> None:
        """Make the catalog say what the destinations hold; runs without a manifest stay.

        `found` is by destination: of one that is not in it nothing new is known. A pin that lies
        beside a backup counts where the catalog did not know the backup.
        """
        with transaction.atomic(using=using):
            known = frozenset(Backup.objects.using(using).values_list("backup_id", flat=True))
            for destination, items in found.items():
                held = {item.manifest.id: item for item in items if item.manifest is not None}
                were = (Copy.Status.COMPLETE, Copy.Status.DAMAGED)
                copies = Copy.objects.using(using).filter(destination=destination, status__in=were)
                copies.exclude(backup__backup_id__in=held).update(status=Copy.Status.MISSING)
                for item in held.values():
                    assert item.manifest is not None
                    _record(item.manifest, item.sha256, {destination: True}, using)
                pinned = {item_id for item_id, item in held.items() if item.pinned} - known
                Backup.objects.using(using).filter(backup_id__in=pinned).update(pinned=True)


def _record(manifest: Manifest, sha256: str, copies: Mapping[str, bool], using: str | None) -> None:
    whole = all(copies.values()) and not unreadable_count(manifest.facts)
    values = {
        "project": manifest.project,
        "name": manifest.name,
        "kind": manifest.kind,
        "label": manifest.label,
        "slot": manifest.slot,
        "sequence": manifest.sequence,
        "whole": manifest.whole,
        "status": Backup.Status.COMPLETE if whole else Backup.Status.PARTIAL,
        "started_at": manifest.started_at,
        "finished_at": manifest.finished_at,
        "raw_size": manifest.raw_size,
        "stored_size": manifest.stored_size,
        "sha256": sha256,
        "sources": [source.name for source in manifest.sources],
        "warnings": list(manifest.warnings),
        "manifest": json.loads(json.dumps(dataclasses.asdict(manifest), default=str)),
    }
    backup, _created = Backup.objects.using(using).update_or_create(
        backup_id=manifest.id, defaults=values
    )
    for destination, good in copies.items():
        status = Copy.Status.COMPLETE if good else Copy.Status.FAILED
        copy, created = Copy.objects.using(using).get_or_create(
            backup=backup, destination=destination, defaults={"status": status}
        )
        # That a manifest can be read does not make a damaged copy good: verification does.
        if not created and copy.status != Copy.Status.DAMAGED:
            copy.status, copy.error = status, ""
            copy.save(using=using)
    failed = Copy.objects.using(using).filter(backup=backup, status=Copy.Status.FAILED)
    if failed.exists():
        Backup.objects.using(using).filter(pk=backup.pk).update(status=Backup.Status.PARTIAL)
