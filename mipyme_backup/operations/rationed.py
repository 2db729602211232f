"""Work that messages ask for: anyone who reaches the broker can send as many as they like."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from mipyme_backup.errors import TooSoonError
from mipyme_backup.messages import _
from mipyme_backup.operations.scheduled import is_exhausted, run_once
from mipyme_backup.schedule import Due

COMMANDS = {
    "backup": "backup",
    "complete": "backup --complete ID",
    "verify": "verify_backups",
    "prune": "prune_backups",
    "status": "backup_status",
    "drill": "restore_drill",
}
"""What an operator runs for what a message may ask for."""

T = TypeVar("T")


def run(
    state_dir: Path,
    verb: str,
    once_in: timedelta,
    attempts: int,
    work: Callable[[], T],
    now: datetime,
) -> T:
    """Return what `work` does for a message, once in each stretch of `once_in`.

    Each stretch is a slot of a job of its own. Raises TooSoonError where it is done already, goes
    on, or has failed too often to be tried again yet, and what keeps it from being done.
    """
    seconds = once_in.total_seconds()
    slot = datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
    due, made = Due(job=f"message_{verb}", slot=slot), list[T]()
    if not is_exhausted(state_dir, due, attempts, now):
        outcome = run_once(state_dir, due, lambda _slot: made.append(work()))
        if outcome.error is not None:
            raise outcome.error
    if made:
        return made[0]
    raise TooSoonError(
        _("A message asked for %(verb)s before: that is done once in %(minutes)d minutes."),
        hint=_("To have it done now, run %(command)s on the server."),
        verb=verb,
        minutes=seconds / 60,
        command=f"python manage.py {COMMANDS[verb]}",
    )
