"""Facts for the rules of the status, where all is well but for what a test changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mipyme_backup.policy.status import findings
from mipyme_backup.policy.status_facts import (
    BackupFacts,
    CopyFacts,
    DestinationFacts,
    Facts,
    Policy,
)

NOW = datetime(2025, 1, 10, 3, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
POLICY = Policy(max_age=timedelta(hours=25), min_size=1024, min_free_disk=0.10)


def destination(name: str, **changes: Any) -> DestinationFacts:
    given_facts = {"remote": name != "local", "reachable": True, "writable": True, **changes}
    return DestinationFacts(name=name, place=f"/{name}", **given_facts)


def backup(sequence: int = 9, age: timedelta = HOUR, **changes: Any) -> BackupFacts:
    """A good backup on both destinations; `copies` are statuses by destination."""
    copies = changes.pop("copies", {"local": "complete", "offsite": "complete"})
    values = {
        "id": f"{sequence:016x}",
        "name": f"mipyme_backup_{sequence}",
        "kind": "daily",
        "whole": True,
        "stored_size": 10**6,
        "snapshot_at": NOW - age - timedelta(minutes=5),
        "finished_at": NOW - age,
        **changes,
    }
    return BackupFacts(
        sequence=sequence,
        copies={name: CopyFacts(status=status, error="why") for name, status in copies.items()},
        **values,
    )


def facts(*backups: BackupFacts, **changes: Any) -> Facts:
    """What is seen where all is well, with these backups in place of one good one."""
    values = {
        "destinations": [destination("local"), destination("offsite")],
        "backups": backups or [backup()],
        "encryption": "gpg",
        "key_fingerprint": "0123456789abcdef",
        "opens": True,
        **changes,
    }
    return Facts(**values)


def found(seen: Facts, policy: Policy = POLICY) -> dict[str, str]:
    """Return the levels of the findings by their ids."""
    return {finding.id: finding.level for finding in findings(policy, seen, NOW)}
