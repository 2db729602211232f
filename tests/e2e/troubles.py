"""What befalls an unattended host, and what its people must hear of it: worked out beforehand.

A `Plan` says when what goes wrong. `foretold` works out from it, and from what the documentation
promises (docs/howto/schedule.md, docs/reference/findings.md, docs/howto/alerts.md), which message
each channel gets at which moment. It shares no code with the application.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
CHANNELS = ("mail", "webhook")
DESTINATIONS = ("near", "far")
DRILLS = "0 4 1 */2 *"
"""Too seldom: a drill is overdue for the last three weeks of every second month."""

Span = tuple[datetime, datetime]


def within(spans: Iterable[Span], now: datetime) -> bool:
    return any(begin <= now < end for begin, end in spans)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A byte of the newest backup flips on these destinations before the wake-up `at`.

    Somebody mends it before the wake-up `mended`, or nobody.
    """

    at: datetime
    destinations: tuple[str, ...]
    mended: datetime | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When the host wakes, which is not while it is `off`, and when what goes wrong.

    `away` is by destination, `deaf` by channel. In the wake-ups `killed` the process is killed
    in the middle of the daily backup. `review` is the day of the policy's review, and when it was
    done; `key` when the key expires, and when it is prolonged, None without encryption.
    """

    zone: ZoneInfo
    wakes: Sequence[datetime]
    off: Sequence[Span]
    away: Mapping[str, Sequence[Span]]
    deaf: Mapping[str, Sequence[Span]]
    low_disk: Sequence[Span] = ()
    damages: Sequence[Damage] = ()
    killed: frozenset[datetime] = frozenset()
    review: tuple[date, datetime] | None = None
    key: tuple[datetime, datetime] | None = None


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a channel is told in the wake-up `at`; neither is a report."""

    at: datetime
    begun: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class Foretold:
    """The messages by channel, and which jobs fail in which wake-up."""

    messages: dict[str, list[Message]]
    failures: dict[datetime, set[str]]


def foretold(plan: Plan) -> Foretold:
    world = _World(plan)
    for now in plan.wakes:
        world.live(now)
    return Foretold(
        messages={name: listener.messages for name, listener in world.listeners.items()},
        failures=world.failures,
    )


@dataclass(kw_only=True)
class _Backup:
    """A backup: `copies` are complete, failed or damaged, by destination; `read` when verified."""

    made: datetime
    copies: dict[str, str]
    flipped: set[str] = field(default_factory=set)
    read: dict[str, datetime] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return "complete" in self.copies.values()


@dataclass(kw_only=True)
class _Job:
    """The newest slot that was tried; `before` failed for earlier slots since one was done."""

    slot: datetime
    done: bool = True
    failed: int = 0
    before: int = 0
    at: datetime | None = None

    @property
    def in_a_row(self) -> int:
        return 0 if self.done else self.failed + self.before

    def is_due(self, slot: datetime, now: datetime) -> bool:
        """Tried again after 15 minutes, 30, 60 …, at most four hours, give or take a minute."""
        if slot > self.slot:
            return True
        if self.done or self.at is None:
            return False
        pause = min(timedelta(minutes=15 << (self.failed - 1)), 4 * HOUR)
        return now >= self.at + pause - MINUTE


class _Slots:
    """The moments at which each job is to run, by the calendar on the wall."""

    def __init__(self, zone: ZoneInfo, start: datetime, end: datetime) -> None:
        first, last = (start - 70 * DAY).date(), (end + DAY).date()
        days = [first + number * DAY for number in range((last - first).days)]
        months = [day for day in days if day.day == 1]
        at = {
            "daily": (2, 0, days),
            "monthly": (3, 0, months),
            "verify": (4, 30, days),
            "prune": (5, 0, days),
            "drill": (4, 0, [day for day in months if day.month % 2]),
        }
        self._moments = {
            job: [
                datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(UTC)
                for day in on
            ]
            for job, (hour, minute, on) in at.items()
        }

    def last(self, job: str, now: datetime) -> datetime:
        if job == "status":
            return now.replace(minute=0, second=0, microsecond=0)
        moments = self._moments[job]
        return moments[bisect_right(moments, now) - 1]

    def between(self, job: str, after: datetime, until: datetime) -> bool:
        return after < self.last(job, until)


class _World:
    """The host, its destinations, and who listens, from one wake-up to the next."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.listeners = {name: _Listener(plan.deaf.get(name, ())) for name in CHANNELS}
        self.failures: dict[datetime, set[str]] = {}
        self._slots = _Slots(plan.zone, plan.wakes[0], plan.wakes[-1])
        self._jobs: dict[str, _Job] = {}
        self._backups: list[_Backup] = []
        self._served: dict[str, datetime] = {}
        self._last_run_failed = False
        self._last_drill: datetime | None = None
        self._damages = {damage.at: damage for damage in plan.damages}
        self._mended = {damage.mended: damage for damage in plan.damages if damage.mended}
        self._hurt: dict[datetime, _Backup] = {}

    def live(self, now: datetime) -> None:
        self._by_hand(now)
        works = {
            "status": self._look,
            "daily": lambda now: self._back_up("daily", now),
            "monthly": lambda now: self._back_up("monthly", now),
            "verify": self._verify,
            "prune": self._prune,
            "drill": self._drill,
        }
        for job in works:
            slot = self._slots.last(job, now)
            if job not in self._jobs and job not in {"daily", "monthly"}:
                self._jobs[job] = _Job(slot=slot)  # a new installation waits for the next one
        due = [job for job in works if self._is_due(job, now)]
        for job in due:
            self._begin(job, now)
            if job == "daily" and now in self.plan.killed:
                self._served["daily"] = self._jobs[
                    "daily"
                ].slot  # it is being made, for all we know
                return
            if works[job](now):
                self._jobs[job] = _Job(slot=self._jobs[job].slot)
            else:
                self.failures.setdefault(now, set()).add(job)
        assert now not in self.plan.killed, "nothing was there to be killed"

    def _is_due(self, job: str, now: datetime) -> bool:
        return job not in self._jobs or self._jobs[job].is_due(self._slots.last(job, now), now)

    def _begin(self, job: str, now: datetime) -> None:
        slot, known = self._slots.last(job, now), self._jobs.get(job)
        failed, before = 1, 0
        if known is not None and known.slot == slot:
            failed, before = known.failed + 1, known.before
        elif known is not None:
            before = known.in_a_row
        self._jobs[job] = _Job(slot=slot, done=False, failed=failed, before=before, at=now)

    def _up(self, now: datetime) -> list[str]:
        return [name for name in DESTINATIONS if not within(self.plan.away.get(name, ()), now)]

    def _by_hand(self, now: datetime) -> None:
        if damage := self._damages.get(now):
            self._hurt[damage.at] = self._backups[-1]
            self._backups[-1].flipped |= {*damage.destinations}
        if damage := self._mended.get(now):
            mended = self._hurt[damage.at]
            mended.flipped.clear()
            for name in DESTINATIONS:
                mended.copies[name] = "complete"
                mended.read[name] = now

    def _back_up(self, kind: str, now: datetime) -> bool:
        up = self._up(now)
        self._last_run_failed = not up
        if not up:
            return False
        copies = {name: "complete" if name in up else "failed" for name in DESTINATIONS}
        for earlier in self._backups:
            for name in up:
                if earlier.copies[name] == "failed" and any(
                    earlier.copies[other] == "complete" for other in up
                ):
                    earlier.copies[name] = "complete"
        self._backups.append(_Backup(made=now, copies=copies))
        self._served[kind] = self._slots.last(kind, now)
        return True

    def _verify(self, now: datetime) -> bool:
        """Read what was not read for six nights, less half a day."""
        up = self._up(now)
        for backup in self._backups:
            for name in up:
                read = backup.read.get(name)
                if backup.copies[name] == "failed" or (read and now - read < 5.5 * DAY):
                    continue
                backup.read[name] = now
                backup.copies[name] = "damaged" if name in backup.flipped else "complete"
        return bool(up)

    def _prune(self, now: datetime) -> bool:
        """Nothing is pruned while backups fail, so nothing fails either."""
        return self._last_run_failed or len(self._up(now)) == len(DESTINATIONS)

    def _drill(self, now: datetime) -> bool:
        if not self._up(now):
            return False
        self._last_drill = now
        return True

    def _look(self, now: datetime) -> bool:
        found = {**dict(self._of_backups(now)), **dict(self._of_runs(now)), **dict(self._else(now))}
        arrived = [listener.look(found, now) for listener in self.listeners.values()]
        return all(arrived)

    def _of_runs(self, now: datetime) -> Iterator[tuple[str, str]]:
        """Yield what is wrong, and how badly."""
        for kind, served in self._served.items():
            if self._slots.between(kind, served, now - HOUR):
                yield f"slot_missed:{kind}", "warning"
        if self._last_run_failed:
            yield "last_run_failed", "warning"
        for job in ("verify", "prune", "drill"):
            if self._jobs[job].in_a_row >= 2:
                yield f"job_failing:{job}", "warning"
        if self._last_drill and now - self._last_drill > 36 * DAY:
            yield "drill_overdue", "warning"

    def _else(self, now: datetime) -> Iterator[tuple[str, str]]:
        plan, up = self.plan, self._up(now)
        yield "copies_here", "warning"
        for name in DESTINATIONS:
            if name not in up:
                yield f"destination_unreachable:{name}", "warning" if up else "critical"
        if within(plan.low_disk, now):
            yield from ((f"disk_low:{name}", "warning") for name in up)
        if plan.key is None:
            yield "not_encrypted", "warning"
        elif plan.key[0] - now <= 30 * DAY and now < plan.key[1]:
            yield "key_expiring", "warning"
        if plan.review is not None and now.date() > plan.review[0] and now < plan.review[1]:
            yield "policy_review_overdue", "warning"

    def _of_backups(self, now: datetime) -> Iterator[tuple[str, str]]:
        good = [backup for backup in reversed(self._backups) if backup.good]
        if not self._backups[-1].good:
            yield "newest_damaged", "critical"
        if now - good[0].made > 25 * HOUR + _set_back(good[0].made, now, self.plan.zone):
            yield "backup_old", "critical"
        for name in self._up(now):
            if good[0].copies[name] != "complete":
                yield f"copy_{good[0].copies[name]}:{name}", "warning"
            held = [backup for backup in good if backup.copies[name] == "complete"]
            older = [backup for backup in held if now - backup.made > 8 * DAY][:3]
            if any(name not in one.read or now - one.read[name] > 8 * DAY for one in older):
                yield f"verify_overdue:{name}", "warning"


def _set_back(then: datetime, now: datetime, zone: ZoneInfo) -> timedelta:
    """Return by how much the clocks on the wall were set back since."""
    offsets = [moment.astimezone(zone).utcoffset() or timedelta() for moment in (then, now)]
    return max(offsets[0] - offsets[1], timedelta())


class _Listener:
    """What one channel knows, and what it is told: each problem once, and its end once."""

    def __init__(self, deaf: Sequence[Span]) -> None:
        self.messages: list[Message] = []
        self._deaf = deaf
        self._known: dict[str, str] = {}
        self._owed: set[str] = set()
        self._reported: datetime | None = None

    def look(self, found: Mapping[str, str], now: datetime) -> bool:
        """Tell what is new; False where that has not arrived."""
        worse = {
            name
            for name, level in found.items()
            if level == "critical" and self._known.get(name) == "warning"
        }
        begun = {name for name in found if name not in self._known} | worse
        begun |= self._owed & found.keys()
        ended = {name for name in self._known if name not in found and not _is_hidden(name, found)}
        report = self._reported is None or now - self._reported >= 7 * DAY - 30 * MINUTE
        if not (begun or ended or report):
            self._known |= found
            return True
        if within(self._deaf, now):
            self._owed |= begun | ended
            self._known |= {name: found[name] for name in begun}
            return False
        self.messages.append(Message(at=now, begun=frozenset(begun), ended=frozenset(ended)))
        self._known = {
            **{name: level for name, level in self._known.items() if name not in ended},
            **found,
        }
        self._owed -= begun | ended
        if report:
            self._reported = now
        return True


def _is_hidden(name: str, found: Mapping[str, str]) -> bool:
    """Of a destination that cannot be reached nothing has ended."""
    return f"destination_unreachable:{name.partition(':')[2]}" in found
