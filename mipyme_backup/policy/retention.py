"""Retention: which copies one destination keeps, which may go, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from mipyme_backup.messages import Message, _

State = Literal["good", "damaged", "unreadable", "foreign"]
READABLE: frozenset[State] = frozenset({"good", "damaged"})


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long a destination keeps what: `days` by kind, and how many good ones at the least."""

    days: Mapping[str, int]
    minimum_good: int


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One backup on one destination, where no two have the same `name`.

    Of an ``unreadable`` one nothing but the name is known; a ``foreign`` one is of another
    project. `sources` are the names of what it holds, `in_use` says that a restore refers to it.
    An `empty` one was made where the project's tables were not there, and is like no other.
    """

    name: str
    state: State
    id: str = ""
    kind: str = ""
    whole: bool = True
    empty: bool = False
    sources: frozenset[str] = frozenset()
    sequence: int = 0
    finished_at: datetime | None = None
    pinned: bool = False
    in_use: bool = False


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether the copy is kept, and why."""

    copy: Copy
    keep: bool
    reason: Message


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a run of a backup ended; `suspect` says why its result is not to be trusted."""

    name: str
    status: str
    suspect: Message | None = None


def held_back(newest: Run | None) -> Message | None:
    """Return why nothing may be pruned anywhere, given the newest run; None where it may be.

    While new backups do not come about as they should, the old ones may be all there is.
    """
    if newest is None or (newest.status in {"complete", "partial"} and newest.suspect is None):
        return None
    texts = {
        "failed": _("The newest run, %(name)s, failed."),
        "abandoned": _("The newest run, %(name)s, was killed before its end."),
        "running": _("The newest run, %(name)s, has not ended yet."),
    }
    if newest.suspect is None:
        return Message(texts.get(newest.status, texts["failed"]), {"name": newest.name})
    params = {"name": newest.name, "reason": newest.suspect}
    return Message(_("The newest backup, %(name)s, is suspect: %(reason)s"), params)


def plan(policy: Policy, copies: Sequence[Copy], now: datetime) -> list[Decision]:
    """Decide on the copies of one destination, in the order given.

    A copy goes only when it is older than its kind's days, and is none of the newest good ones,
    and neither pinned, nor in use, nor dated in the future. What cannot be read, or is not ours,
    stays.
    """
    made_at = _made_at(copies, now)
    newest = _newest(policy.minimum_good, copies, now)
    return [_decide(policy, copy, made_at, newest, now) for copy in copies]


def _decide(
    policy: Policy,
    copy: Copy,
    made_at: Mapping[str, datetime],
    newest: Mapping[str, str],
    now: datetime,
) -> Decision:
    days = policy.days.get(copy.kind)
    params = {"kind": copy.kind, "days": days, "count": policy.minimum_good}
    text = _untouchable(copy, now)
    if text is None and days is None:
        text = _("Nothing says how long a backup of kind %(kind)s is kept.")
    if text is not None or days is None:
        keep = True
    elif not _is_older(made_at[copy.name], days, now):
        keep, text = True, _("Not older than %(days)d days.")
        if _is_older(copy.finished_at, days, now):
            text = _("Not older than %(days)d days: an earlier one has a later date than this.")
    elif copy.name in newest:
        keep, text = True, newest[copy.name]
    else:
        keep, text = False, _("Older than %(days)d days.")
    return Decision(copy=copy, keep=keep, reason=Message(text or "", params))


def _is_older(moment: datetime | None, days: int, now: datetime) -> bool:
    return moment is None or now - moment > timedelta(days=days)


def _untouchable(copy: Copy, now: datetime) -> str | None:
    if copy.state == "unreadable":
        return _("It cannot be read, so nobody knows what it is.")
    if copy.state == "foreign":
        return _("It is of another project.")
    if copy.pinned:
        return _("It is pinned.")
    if copy.in_use:
        return _("A restore that can still be undone refers to it.")
    if _is_ahead(copy, now):
        return _("Its date lies in the future.")
    return None


def _is_ahead(copy: Copy, now: datetime) -> bool:
    return copy.finished_at is None or copy.finished_at > now


def _age(copy: Copy) -> tuple[int, datetime, str]:
    assert copy.finished_at is not None
    return copy.sequence, copy.finished_at, copy.name


def _made_at(copies: Iterable[Copy], now: datetime) -> dict[str, datetime]:
    """Return when each readable copy was made, by its name.

    None is older than one with a lower sequence number: a clock that was set back for a while
    makes no backup old. A date in the future says nothing of any other.
    """
    made_at: dict[str, datetime] = {}
    latest: datetime | None = None
    known = [copy for copy in copies if copy.state in READABLE and not _is_ahead(copy, now)]
    for copy in sorted(known, key=_age):
        assert copy.finished_at is not None
        latest = copy.finished_at if latest is None else max(latest, copy.finished_at)
        made_at[copy.name] = latest
    return made_at


def _newest(count: int, copies: Iterable[Copy], now: datetime) -> dict[str, str]:
    """Return the names of the copies that are kept for being new, however old, and why.

    They are the newest `count` good whole ones that are no safety backups. Where there are fewer,
    whole ones that are damaged fill up their number, and the newest `count` copies of each source
    count as well. The newest whole one is among them in any case: that it is missing would look
    like somebody's attempt to bring back an older state.
    """
    known = [
        copy
        for copy in copies
        if copy.state in READABLE
        and copy.kind != "safety"
        and not copy.empty
        and not _is_ahead(copy, now)
    ]
    ranked = sorted(known, key=lambda copy: (copy.state == "good", *_age(copy)), reverse=True)
    whole = [copy for copy in ranked if copy.whole]
    good = [copy.name for copy in whole if copy.state == "good"][:count]
    others: list[Copy] = []
    if len(good) < count:
        others = whole[:count]
        for source in {source for copy in ranked for source in copy.sources}:
            others += [copy for copy in ranked if source in copy.sources][:count]
    last = max(whole, key=_age, default=None)
    return {
        **({last.name: _("The newest one here, though it is damaged.")} if last else {}),
        **{
            copy.name: _("Fewer than %(count)d good whole ones are here, so this one counts.")
            for copy in others
        },
        **dict.fromkeys(good, _("One of the newest %(count)d good ones here.")),
    }
