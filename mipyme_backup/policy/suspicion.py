"""What the newest backup has lost against those before it: half of its size, rows, whole tables."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.own_rows import own_tables
from mipyme_backup.policy.status_facts import BackupFacts, newest_first

LOOKED_BACK = 7
"""How many backups before the newest are looked at: of daily ones a week, with its weekend."""

FEWEST = 3
"""With fewer before it, nothing is usual yet."""

FEWEST_TABLES = 2
"""One table alone may be a queue, which is empty at times; a project has users, too."""

LEAST_ROWS = 100
LEAST_SIZE = 10**6
"""Tables with fewer rows, and backups with fewer raw bytes, halve in the course of a normal day."""

NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Fall:
    """Something that is `now` so large, and was so large `before`: the median of some backups."""

    name: str
    now: int
    before: int

    @property
    def share(self) -> float:
        return 1 - self.now / self.before


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What the backup has lost: raw bytes, rows of tables (the worst first), tables that had any.

    It is `suspect` for the first two. Tables come and go with migrations; where they held much,
    the size tells.
    """

    backup: BackupFacts
    size: Fall | None
    rows: Sequence[Fall]
    vanished: Sequence[str]

    @property
    def suspect(self) -> Message | None:
        """Why no older backup may be deleted on the strength of this one; None where they may."""
        if self.size is not None:
            return size_text(self.size)
        return rows_text(self.rows) if self.rows else None


def loss(max_shrink: float, backups: Iterable[BackupFacts]) -> Loss | None:
    """Compare the newest good backup that counts with up to seven before it.

    `max_shrink` is the share from 0 to 1 that may be lost: with 1 nothing is ever too much. None
    where there are too few to compare with.
    """
    good = newest_first(item for item in backups if item.counts and item.good)
    newest, before = good[:1], good[1 : 1 + LOOKED_BACK]
    if len(before) < FEWEST:
        return None
    return Loss(
        backup=newest[0],
        size=_fall(
            "", newest[0].raw_size, [item.raw_size for item in before], max_shrink, LEAST_SIZE
        ),
        rows=_fallen_tables(newest[0].rows, [item.rows for item in before], max_shrink),
        vanished=_vanished(newest[0].rows, before[0].rows) if max_shrink < 1 else [],
    )


@dataclass(frozen=True, kw_only=True)
class Emptied:
    """A backup in which the `tables` have no rows that had some in the backup `before`."""

    backup: BackupFacts
    before: BackupFacts
    tables: frozenset[str]

    @property
    def suspect(self) -> Message:
        """Why no older backup may be deleted on the strength of this one."""
        text = _("most tables (%(count)d) that had rows in %(before)s have none.")
        return Message(text, {"count": len(self.tables), "before": self.before.name})


def emptied(max_shrink: float, backups: Iterable[BackupFacts]) -> Emptied | None:
    """Find that the newest good backup has no rows in most tables that had some, however few.

    It is held against the newest of up to seven before it that has such rows. Where one older than
    that had none either, rows come and go as the project is used.
    """
    good = newest_first(item for item in backups if item.counts and item.good)
    recent = good[: 1 + LOOKED_BACK]
    for number in range(1, len(recent) if max_shrink < 1 else 0):
        before = recent[number]
        if all(_is_emptied(before, later) for later in recent[:number]):
            if any(_is_emptied(before, older) for older in recent[number + 1 :]):
                return None
            tables = _without_rows(before, recent[0])
            return Emptied(backup=recent[0], before=before, tables=tables)
    return None


def _is_emptied(before: BackupFacts, after: BackupFacts) -> bool:
    if len(own_tables(before.rows)) < FEWEST_TABLES:
        return False
    return 2 * len(_without_rows(before, after)) > len(own_tables(before.rows))


def _without_rows(before: BackupFacts, after: BackupFacts) -> frozenset[str]:
    """Return the tables that are there in both, and lost all of their rows."""
    had = own_tables(before.rows)
    return frozenset(table for table in had if after.rows.get(table) == 0)


def size_text(fall: Fall) -> Message:
    return Message(
        _("it holds %(now)d bytes, and those before it %(before)d."),
        {"now": fall.now, "before": fall.before},
    )


def rows_text(falls: Sequence[Fall]) -> Message:
    shown = ", ".join(f"{fall.name} {fall.before} → {fall.now}" for fall in falls[:NAMES_SHOWN])
    more = ", …" if len(falls) > NAMES_SHOWN else ""
    return Message(_("tables have lost rows: %(tables)s"), {"tables": shown + more})


def _fallen_tables(
    now: Mapping[str, int], before: Sequence[Mapping[str, int]], max_shrink: float
) -> list[Fall]:
    falls = [
        _fall(table, rows, [x[table] for x in before if table in x], max_shrink, LEAST_ROWS)
        for table, rows in now.items()
    ]
    return sorted(filter(None, falls), key=lambda fall: (-fall.share, fall.name))


def _fall(name: str, now: int, before: Sequence[int], max_shrink: float, floor: int) -> Fall | None:
    """Return the fall below what is allowed; `before` is in the order from the newest back.

    What came back from as low within these backups goes up and down as it is used: a queue, the
    sessions.
    """
    if len(before) < FEWEST:
        return None
    median = round(statistics.median(before))
    least = (1 - max_shrink) * median
    low = [value < least for value in before]
    recovered = any(low[i] and not all(low[:i]) for i in range(len(low)))
    if median < floor or now >= least or recovered:
        return None
    return Fall(name=name, now=now, before=median)


def _vanished(now: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """Return the tables that had rows and are gone, the largest first.

    Of tables that differ in digits only, some go as others come: partitions by month or day.
    """
    families = {_family(table) for table in now}
    gone = [t for t, rows in before.items() if rows and t not in now and _family(t) not in families]
    return sorted(gone, key=lambda table: (-before[table], table))


def _family(table: str) -> str:
    return re.sub(r"\d+", "#", table)
