"""Who must be told what: each problem once, and its end once. Pure: no clock, no I/O.

A record says what one channel was told. It is kept twice around a message: `Decision.owed` before,
so that a problem is not forgotten where the message fails and the problem passes meanwhile, and
`Decision.record` after. What comes between leads to a repeat, never to a loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mipyme_backup.policy.status import LEVELS, Finding, Level

DIGESTS = {"daily": timedelta(days=1), "weekly": timedelta(weeks=1)}
DIGEST_SLACK = timedelta(minutes=30)
"""Looks come hourly, give or take seconds: without it each digest would be an hour later."""

UNREACHABLE = "destination_unreachable"
WITHOUT_CATALOG = ("no_catalog", "database_lost:")
"""How the ids of findings begin that say that the catalog cannot be read."""

TOLD_BY_THE_CATALOG = (
    "copy_",
    "drill_",
    "last_run_",
    "newest_damaged",
    "newest_hidden",
    "rto_at_risk",
    "run_endless",
    "slot_missed",
    "verify_overdue",
)
"""How the ids of findings begin that nobody can make, or take back, without the catalog."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A problem that a channel was told at `level`, or with `owed`, that it has yet to be told.

    `text` is its message as it was then, in English.
    """

    level: Level
    since: datetime
    text: str
    owed: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a channel was told, by the id of the finding, and when it had its last digest."""

    findings: Mapping[str, Told] = field(default_factory=dict)
    digest_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Cleared:
    """The end of a problem."""

    id: str
    level: Level
    since: datetime
    text: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to tell a channel now, and its record before (`owed`) and after (`record`) that."""

    raised: Sequence[Finding]
    cleared: Sequence[Cleared]
    digest: bool
    owed: Record
    record: Record

    @property
    def speaks(self) -> bool:
        return bool(self.raised or self.cleared or self.digest)


def decide(
    known: Record,
    found: Sequence[Finding],
    *,
    digest: str | None,
    now: datetime,
    sees_all: bool = True,
) -> Decision:
    """Return what a channel that knows `known` must be told of what is `found` at `now`.

    `digest` is a key of DIGESTS, or None for none. A finding of level ``ok`` is no problem. A
    problem is told when it is new, or worse than told; one that became less bad is noted only. The
    problems of a destination that cannot be reached have not ended, nor those that a catalog tells
    of which cannot be read: nobody can see them. Without `sees_all` that goes for all problems, and
    there is nothing to make a digest of.
    """
    problems = {finding.id: finding for finding in found if finding.level != "ok"}
    raised = [item for item in problems.values() if _is_news(known.findings.get(item.id), item)]
    absent = {name: told for name, told in known.findings.items() if name not in problems}
    gone = {
        name: told for name, told in absent.items() if sees_all and not _is_hidden(name, problems)
    }
    hidden = {name: told for name, told in absent.items() if name not in gone}
    is_due = sees_all and _is_due(known.digest_at, digest, now)
    told = {item.id: _told(known.findings.get(item.id), item, now) for item in problems.values()}
    owed = {item.id: _owed(known.findings.get(item.id), item, now) for item in problems.values()}
    # Whether its end arrives is not known: should it come back, it is told in any case.
    ended = {name: replace(told, owed=True) for name, told in gone.items()}
    return Decision(
        raised=raised,
        cleared=[
            Cleared(id=name, level=told.level, since=told.since, text=told.text)
            for name, told in gone.items()
        ],
        digest=is_due,
        owed=Record(findings={**ended, **hidden, **owed}, digest_at=known.digest_at),
        record=Record(findings={**hidden, **told}, digest_at=now if is_due else known.digest_at),
    )


def _is_news(told: Told | None, finding: Finding) -> bool:
    return told is None or told.owed or _rank(finding.level) > _rank(told.level)


def _told(before: Told | None, finding: Finding, now: datetime) -> Told:
    since = before.since if before else now
    return Told(level=finding.level, since=since, text=str(finding.message))


def _owed(before: Told | None, finding: Finding, now: datetime) -> Told:
    """Return what is known of the problem as long as its message has not arrived."""
    if before is None:
        return replace(_told(None, finding, now), owed=True)
    if before.owed:
        worst = max(before.level, finding.level, key=_rank)
        return replace(before, level=worst)
    return replace(before, level=min(before.level, finding.level, key=_rank))


def _rank(level: Level) -> int:
    return LEVELS.index(level)


def _is_hidden(name: str, problems: Mapping[str, Finding]) -> bool:
    if any(problem.startswith(WITHOUT_CATALOG) for problem in problems) and name.startswith(
        TOLD_BY_THE_CATALOG
    ):
        return True
    _rule, colon, destination = name.partition(":")
    return bool(colon) and f"{UNREACHABLE}:{destination}" in problems


def _is_due(last: datetime | None, digest: str | None, now: datetime) -> bool:
    """Say whether a digest is due: the first at once, and one after a clock's jump back too."""
    if digest is None:
        return False
    return last is None or last > now or now - last >= DIGESTS[digest] - DIGEST_SLACK
