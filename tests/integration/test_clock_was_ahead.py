"""A clock that was ahead when a backup was taken: what it says of time counts for nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import time_machine

from mipyme_backup import api

GENEROUS = 60.0


def take(days: float) -> api.BackupResult:
    """Take the daily backup of a slot so many days from now, as a clock sees it that says so."""
    moment = datetime.now(UTC) + timedelta(days=days)
    with time_machine.travel(moment, tick=True):
        return api.backup(kind="daily", slot=moment.replace(minute=0, second=0, microsecond=0))


def look() -> dict[str, str]:
    return {finding.id: finding.level for finding in api.status(timeout=GENEROUS).findings}


def test_the_only_backup_from_the_future_is_critical(backups: Path) -> None:
    take(400)

    assert look()["backup_from_future"] == "critical"

    api.backup()

    assert look()["backup_from_future"] == "warning"


def test_its_slot_makes_up_for_none_that_was_missed(backups: Path) -> None:
    take(-3)
    take(30)

    found = look()

    assert found["slot_missed:daily"] == "warning"
    assert found["backup_old"] == "critical"


def test_it_prunes_no_other_and_is_kept(backups: Path) -> None:
    old = [take(-days) for days in (400, 300, 200, 100)]
    ahead = take(3000)

    (pruned,) = api.prune(dry_run=True).destinations

    kept = {o.decision.copy.name for o in pruned.outcomes if o.decision.keep}
    assert kept == {made.manifest.name for made in (*old[-3:], ahead)}
