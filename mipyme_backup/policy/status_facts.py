"""What the rules of `status` look at: the policy, and the facts that `monitoring` gathers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo

from mipyme_backup.messages import Message
from mipyme_backup.policy.left_out import Lack

COMPLETE = "complete"
DAMAGED = "damaged"
NOTHING = Message("")
CLOCK_SKEW = timedelta(minutes=5)
"""How far two clocks may be apart before a moment counts as one from the future."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is asked of the backups: sizes in bytes, `min_free_disk` a share from 0 to 1.

    `max_shrink` is the share that the newest backup may have lost against those before it,
    `review` the day on which the policy itself is to be looked at. None is not asked for. `zone`
    is that of the schedule.
    """

    max_age: timedelta
    min_size: int
    min_free_disk: float
    max_shrink: float = 1.0
    rto: timedelta | None = None
    verify_within: timedelta | None = None
    drill_every: timedelta | None = None
    review: date | None = None
    zone: tzinfo = UTC

    def is_too_old(self, made_at: datetime, now: datetime) -> bool:
        """Say whether what was made then is older than `max_age`, both times being aware."""
        return now - made_at > self.max_age + set_back(made_at, now, self.zone)


def is_ahead(moment: datetime, now: datetime) -> bool:
    """Say whether the moment lies in the future, so that nobody knows when it really was."""
    return moment > now + CLOCK_SKEW


def set_back(since: datetime, now: datetime, zone: tzinfo) -> timedelta:
    """Return by how much the clocks of `zone` were set back since then.

    That hour counts for no age: the schedule asks for a daily backup 25 hours after the one before.
    """
    before, after = (moment.astimezone(zone).utcoffset() for moment in (since, now))
    assert before is not None and after is not None
    return max(before - after, timedelta())


@dataclass(frozen=True, kw_only=True)
class CopyFacts:
    """What is known of a copy: its status as the catalog words it, and the reason.

    `verified_at` is when its stored bytes were last read, None where that is not known.
    """

    status: str
    error: str = ""
    verified_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class BackupFacts:
    """A backup and its `copies` by destination; sizes in bytes, `rows` by table.

    `lacks` is what it could not save, and `missing` how many files rows named that did not exist.
    `media_size` is that of the media's files, `data_size` of all else, both as they are restored.
    `engines` are name and version of each database source's server, where they are known. A
    backup that lacks a source, or is of kind ``safety``, does not `count`.
    """

    id: str
    name: str
    kind: str
    whole: bool
    sequence: int
    snapshot_at: datetime
    finished_at: datetime
    stored_size: int
    copies: Mapping[str, CopyFacts]
    engines: Mapping[str, str] = field(default_factory=dict)
    data_size: int = 0
    media_size: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    lacks: Sequence[Lack] = ()
    missing: int = 0

    @property
    def raw_size(self) -> int:
        return self.data_size + self.media_size

    @property
    def counts(self) -> bool:
        return self.whole and self.kind != "safety"

    @property
    def good(self) -> bool:
        return any(copy.status == COMPLETE for copy in self.copies.values())

    def is_good_on(self, destination: str) -> bool:
        copy = self.copies.get(destination)
        return copy is not None and copy.status == COMPLETE


@dataclass(frozen=True, kw_only=True)
class DestinationFacts:
    """A destination as it showed itself; `free` and `total` in bytes, None where meaningless.

    `error` says why it could not be listed (not `reachable`) or not be written to (`writable`
    is False; None where that was not tried), `hint` what to do. `backups` are those of this
    project, and `unreadable` the names of what lies there with a manifest that cannot be read, the
    first for the reason `unreadable_reason`; those that `need_key` can be read with a key that the
    settings do not name. `foreign` things lie there at the least that no name
    of ours has, the first of them `foreign_names`. `program_changed` says that `recover.py`
    there is of no version that made one of the backups. It is `here` where its disk is one of this
    machine's own. `skew` is how far its clock is ahead of
    ours.
    """

    name: str
    place: str
    remote: bool
    reachable: bool
    writable: bool | None = None
    may_delete: bool | None = None
    skew: timedelta | None = None
    error: Message | None = None
    hint: Message = NOTHING
    free: int | None = None
    total: int | None = None
    backups: int = 0
    highest_sequence: int | None = None
    unreadable: Sequence[str] = ()
    unreadable_reason: Message = NOTHING
    unreadable_hint: Message = NOTHING
    need_key: Sequence[str] = ()
    program_changed: bool = False
    here: bool = False
    foreign: int = 0
    foreign_names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run of a backup as the catalog notes it."""

    name: str
    status: str
    started_at: datetime
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class MissedSlot:
    """A moment of the schedule for which there is no backup of the `kind`."""

    kind: str
    slot: datetime


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Nothing has called the schedule since a moment, or (None) ever, as far as is known."""

    since: datetime | None


@dataclass(frozen=True, kw_only=True)
class FailingJob:
    """A job of the schedule that failed so many times in a row, the last time for this reason."""

    job: str
    failed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RestoreFacts:
    """A restore of databases and media: when it ended, and how long it took."""

    finished_at: datetime
    backup_name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DrillFacts(RestoreFacts):
    """A drill, with its assertions in the `seconds`; it `passed` where all of them held."""

    passed: bool


@dataclass(frozen=True, kw_only=True)
class IgnoredRecord:
    """A record that does not count; `interrupted` where a restore may be unfinished with it."""

    message: Message
    hint: Message
    interrupted: bool = False


@dataclass(frozen=True, kw_only=True)
class MisplacedState:
    """Why `STATE_DIR` is at a wrong place; `restores` where one is unfinished or kept by it."""

    place: str
    reason: str
    restores: bool


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """How a live database is, and whether the newest good backup has tables of it (`held`).

    Its `condition` is ``missing``, ``bare`` (none of the project's tables is there), ``emptied``
    (none of those that have rows in that backup has any), ``used``, or ``unknown``.
    """

    alias: str
    condition: str
    held: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the rules look at.

    `last_run` is the last that has ended, of those that were to make a backup that counts;
    `running` one that has not ended. `catalog` is False where the catalog could not be read.
    `opens` says whether this host can open what it encrypts. `highest_known` is the sequence
    number of the newest backup that counts and that this host remembers, 0 of none.
    `key_expires` is when the first of the keys that encrypt does, None where none ever does.
    `predicted_restore` is for the newest good backup. `ignored` says of each record in `STATE_DIR`
    that does not count what is wrong with it. `unremoved` says by the id of a restore or drill why
    something of it is still there.
    """

    destinations: Sequence[DestinationFacts]
    backups: Sequence[BackupFacts]
    last_run: RunFacts | None = None
    running: RunFacts | None = None
    catalog: bool = True
    encryption: str | None = None
    key_fingerprint: str | None = None
    opens: bool = True
    highest_known: int = 0
    missed: Sequence[MissedSlot] = ()
    failing: Sequence[FailingJob] = ()
    silence: Silence | None = None
    key_expires: datetime | None = None
    last_restore: RestoreFacts | None = None
    last_drill: DrillFacts | None = None
    predicted_restore: timedelta | None = None
    ignored: Sequence[IgnoredRecord] = ()
    misplaced: MisplacedState | None = None
    databases: Sequence[DatabaseFacts] = ()
    unremoved: Mapping[str, str] = field(default_factory=dict)

    @property
    def newest(self) -> BackupFacts | None:
        """The newest backup that counts, good or not."""
        return newest_of(backup for backup in self.backups if backup.counts)

    @property
    def good(self) -> list[BackupFacts]:
        """The good backups that count, in no order."""
        return [backup for backup in self.backups if backup.counts and backup.good]

    def newest_good(self, destination: str | None = None) -> BackupFacts | None:
        """Return the newest good backup that counts: on the destination, or on any."""
        return newest_of(
            backup
            for backup in self.backups
            if backup.counts
            and (backup.good if destination is None else backup.is_good_on(destination))
        )

    def newest_dated(self, now: datetime, destination: str | None = None) -> BackupFacts | None:
        """Return the same of those whose age is known: one from the future may be of any age."""
        return newest_of(
            backup
            for backup in self.good
            if not is_ahead(backup.finished_at, now)
            and (destination is None or backup.is_good_on(destination))
        )


def newest_of(backups: Iterable[BackupFacts]) -> BackupFacts | None:
    """Return the newest; None of none."""
    return next(iter(newest_first(backups)), None)


def newest_first(backups: Iterable[BackupFacts]) -> list[BackupFacts]:
    """Return them in order by their sequence numbers, which no clock can change."""
    return sorted(backups, key=lambda backup: (backup.sequence, backup.snapshot_at), reverse=True)
