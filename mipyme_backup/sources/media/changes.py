"""Whether a file is still the one of the last index, so that it need not be read again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mipyme_backup.sources.media.index import FileRecord
from mipyme_backup.sources.media.tree import Entry

SECONDS_OF_A_DAY = 86_400


def _today() -> int:
    return int(time.time()) // SECONDS_OF_A_DAY


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Size and time, change time and inode must be the same, as for restic.

    `ignore_ctime` is for programs that touch every file (hard links, `chmod`), `ignore_inode` for
    network file systems that change inode numbers. A file that was last read `full_read_days` ago
    is read however it looks; `today` is the number of the day since 1970, in UTC. What an index
    of an earlier version does not hold is not compared.
    """

    ignore_ctime: bool = False
    ignore_inode: bool = False
    full_read_days: int | None = None
    today: int = field(default_factory=_today)

    def is_same(self, previous: FileRecord, entry: Entry) -> bool:
        """Return whether nothing says that the file changed since `previous` was written."""
        return (
            not previous.recheck
            and (previous.size, previous.mtime_ns) == (entry.size, entry.mtime_ns)
            and (self.ignore_ctime or _equal(previous.ctime_ns, entry.ctime_ns))
            and (self.ignore_inode or _equal(previous.inode, entry.inode))
        )

    def is_due(self, previous: FileRecord) -> bool:
        """Return whether the file has to be read again, for it was not for so long."""
        if self.full_read_days is None:
            return False
        day = previous.read_day
        return day is None or not 0 <= self.today - day < self.full_read_days

    @property
    def read_day(self) -> int | None:
        """What the record of a file that was read says of the day."""
        return None if self.full_read_days is None else self.today


def _equal(before: int | None, now: int | None) -> bool:
    return before is None or now is None or before == now
