"""How long a restore would take: by the last that was measured, else by cautious rates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from mipyme_backup.policy.status_facts import BackupFacts, RestoreFacts

DATA_RATE = 20 * 10**6
MEDIA_RATE = 50 * 10**6
"""Bytes a second; decision 18 tells where they come from, and how to measure one's own."""

MOST_GROWTH = 2
"""So much larger than what was measured may it be: small ones measure how programs start."""

FASTEST = 10**9
"""Bytes a second beyond which a measurement is none: its start was noted late."""


def predict(
    newest: BackupFacts, backups: Iterable[BackupFacts], measured: Iterable[RestoreFacts]
) -> timedelta:
    """Return how long a restore of `newest` would take, databases and media.

    `measured` are restores of any of the `backups`; the last that is large enough counts.
    """
    sizes = {backup.name: backup.raw_size for backup in backups}
    for restore in sorted(measured, key=lambda item: item.finished_at, reverse=True):
        size = sizes.get(restore.backup_name, 0)
        plausible = 0 < size < FASTEST * restore.seconds
        if plausible and newest.raw_size <= MOST_GROWTH * size:
            return timedelta(seconds=restore.seconds * newest.raw_size / size)
    return timedelta(seconds=newest.data_size / DATA_RATE + newest.media_size / MEDIA_RATE)
