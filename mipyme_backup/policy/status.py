"""What is wrong with the backups, how badly, and what to do about it. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.status_facts import (
    DAMAGED,
    BackupFacts,
    DestinationFacts,
    Facts,
    Policy,
    newest_of,
)

Level = Literal["ok", "warning", "critical"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "critical")

CLOCK_SKEW = timedelta(minutes=5)
"""How far two clocks may be apart before a backup counts as one from the future."""

NAMES_SHOWN = 3

COPY_TEXTS = {
    "failed": _("Copying the newest backup, %(name)s, to %(destination)s failed: %(reason)s"),
    "pending": _("The newest backup, %(name)s, is not on %(destination)s yet."),
    "missing": _("The newest backup, %(name)s, has no copy on %(destination)s."),
    "damaged": _("The newest backup, %(name)s, is damaged on %(destination)s: %(reason)s"),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to mend, or at level ``ok`` something to know.

    `id` is stable: the rule's name and, where it is about one, a colon and the destination.
    """

    id: str
    level: Level
    message: Message
    hint: Message


def findings(policy: Policy, facts: Facts, now: datetime) -> list[Finding]:
    """Return what the rules find, the worst first, else in the order of the rules."""
    found = [finding for rule in RULES for finding in rule(policy, facts, now)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level), reverse=True)


def level_of(found: Sequence[Finding]) -> Level:
    """Return the highest level, ``ok`` where nothing was found."""
    return max((finding.level for finding in found), key=LEVELS.index, default="ok")


def age_text(age: timedelta) -> str:
    """Return a length of time for people, in units that are written alike in most languages."""
    hours, seconds = divmod(round(age.total_seconds()), 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"
    if hours and seconds >= 60:
        return f"{hours} h {seconds // 60} min"
    return f"{hours} h" if hours else f"{seconds // 60} min"


def _no_backup(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if facts.newest_good() is None:
        yield Finding(
            id="no_backup",
            level="critical",
            message=Message(_("There is no good backup that holds everything.")),
            hint=Message(_("Take one: manage.py backup")),
        )


def _old(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = newest_of(item for item in _good(facts) if not _is_from_future(item, now))
    if newest is not None and now - newest.finished_at > policy.max_age:
        yield Finding(
            id="backup_old",
            level="critical",
            message=Message(
                _("The newest good backup, %(name)s, is %(age)s old; %(limit)s are allowed."),
                {
                    "name": newest.name,
                    "age": age_text(now - newest.finished_at),
                    "limit": age_text(policy.max_age),
                },
            ),
            hint=Message(
                _("Take one: manage.py backup. Then look at the schedule: why did none come?")
            ),
        )


def _future(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = newest_of(item for item in _good(facts) if _is_from_future(item, now))
    if newest is not None:
        yield Finding(
            id="backup_from_future",
            level="warning",
            message=Message(
                _("The backup %(name)s is dated %(ahead)s ahead of now: its age is not known."),
                {"name": newest.name, "ahead": age_text(newest.finished_at - now)},
            ),
            hint=Message(_("Set the clock of this machine, and keep it right with NTP.")),
        )


def _damaged(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest
    if newest is not None and newest.copies and not newest.good:
        yield Finding(
            id="newest_damaged",
            level="critical",
            message=Message(
                _("The newest backup, %(name)s, has no good copy any more: %(copies)s"),
                {
                    "name": newest.name,
                    "copies": ", ".join(f"{n}: {c.status}" for n, c in newest.copies.items()),
                },
            ),
            hint=Message(
                _("Take another: manage.py backup. Then look at the disks, and who writes there.")
            ),
        )


def _hidden(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """Neither a destination nor the catalog tells of a backup that this host remembers."""
    newest = facts.newest
    seen = newest.sequence if newest else 0
    if seen < facts.highest_known:
        yield Finding(
            id="newest_hidden",
            level="warning",
            message=Message(
                _("The newest backup in sight is number %(seen)d; number %(known)d was made."),
                {"seen": seen, "known": facts.highest_known},
            ),
            hint=Message(
                _(
                    "Where no destination is away, somebody has removed what is newer: look who"
                    " can write there. Then: manage.py backup"
                )
            ),
        )


def _copies(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest_good()
    for destination in _reachable(facts):
        copy = newest.copies.get(destination.name) if newest else None
        if newest is None or copy is None or copy.status not in COPY_TEXTS:
            continue  # complete, or pruned on purpose
        reason = {"reason": copy.error.partition("\n")[0] or "-"}
        yield Finding(
            id=f"copy_{copy.status}:{destination.name}",
            level="warning",
            message=Message(
                COPY_TEXTS[copy.status],
                {"name": newest.name, "destination": destination.name, **reason},
            ),
            hint=_mend(newest, destination)
            if copy.status == DAMAGED
            else _complete(newest, destination),
        )


def _behind(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """Where another destination has what is asked for, and nobody meant to send it here."""
    newest = facts.newest_good()
    if newest is None or now - newest.finished_at > policy.max_age:
        return
    for destination in _reachable(facts):
        if destination.name in newest.copies:
            continue
        held = facts.newest_good(destination.name)
        if held is None:
            yield Finding(
                id=f"destination_empty:{destination.name}",
                level="warning",
                message=Message(
                    _("The destination %(name)s holds no good backup."), {"name": destination.name}
                ),
                hint=_complete(newest, destination),
            )
        elif now - held.finished_at > policy.max_age:
            yield Finding(
                id=f"destination_old:{destination.name}",
                level="warning",
                message=Message(
                    _("The newest good backup on %(destination)s, %(name)s, is %(age)s old."),
                    {
                        "destination": destination.name,
                        "name": held.name,
                        "age": age_text(now - held.finished_at),
                    },
                ),
                hint=_complete(newest, destination),
            )


def _away(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    away = [item for item in facts.destinations if not item.reachable or item.writable is False]
    for destination in away:
        unwritable = destination.reachable
        text = _("The destination %(name)s cannot be reached: %(reason)s")
        if unwritable:
            text = _("The destination %(name)s takes no backups: %(reason)s")
        kind = "unwritable" if unwritable else "unreachable"
        yield Finding(
            id=f"destination_{kind}:{destination.name}",
            level="critical" if len(away) == len(facts.destinations) else "warning",
            message=Message(text, {"name": destination.name, "reason": destination.error or "-"}),
            hint=destination.hint
            if destination.hint.text
            else Message(_("Look at it, and at its entry in DESTINATIONS.")),
        )


def _unreadable(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for destination in facts.destinations:
        names = destination.unreadable
        if names:
            shown = [*names[:NAMES_SHOWN], "…"] if len(names) > NAMES_SHOWN else names
            yield Finding(
                id=f"unreadable:{destination.name}",
                level="warning",
                message=Message(
                    _(
                        "%(destination)s holds what cannot be read as a backup (%(count)d:"
                        " %(names)s): %(reason)s"
                    ),
                    {
                        "count": len(names),
                        "destination": destination.name,
                        "names": ", ".join(shown),
                        "reason": destination.unreadable_reason,
                    },
                ),
                hint=Message(
                    _(
                        "Where it was made with another key, name that in ENCRYPTION; else look"
                        " at the disk."
                    )
                ),
            )


def _last_run(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    run = facts.last_run
    if run is not None and run.status in {"failed", "abandoned"}:
        reason = run.error.partition("\n")[0] or "-"
        failed = run.status == "failed"
        yield Finding(
            id=f"last_run_{run.status}",
            level="warning",
            message=Message(
                _("The last run, %(name)s, failed: %(reason)s")
                if failed
                else _("The last run, %(name)s, was killed before its end."),
                {"name": run.name, "reason": reason},
            ),
            hint=Message(_("Mend what it says, then: manage.py backup"))
            if failed
            else Message(_("Look why (memory, a restart, a time limit), then: manage.py backup")),
        )


def _endless_run(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    run = facts.running
    if run is not None and now - run.started_at > policy.max_age:
        yield Finding(
            id="run_endless",
            level="warning",
            message=Message(
                _("The run %(name)s began %(age)s ago and has not ended."),
                {"name": run.name, "age": age_text(now - run.started_at)},
            ),
            hint=Message(_("Look whether its process is alive; the next run tidies up after it.")),
        )


def _unencrypted(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if facts.encryption is None:
        yield Finding(
            id="not_encrypted",
            level="warning",
            message=Message(_("Backups are not encrypted: who finds one, reads it.")),
            hint=Message(_("Set ENCRYPTION in MIPYME_BACKUP to a passphrase file.")),
        )


def _cannot_open(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if not facts.opens:
        yield Finding(
            id="cannot_open",
            level="ok",
            message=Message(
                _("This host cannot open its own backups: they are encrypted to public keys.")
            ),
            hint=Message(
                _("Verifying content, drills and restores need a host that has the secret key.")
            ),
        )


def _full(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for destination in facts.destinations:
        free, total = destination.free, destination.total
        if destination.remote or free is None or not total:
            continue
        if free / total < policy.min_free_disk:
            yield Finding(
                id=f"disk_low:{destination.name}",
                level="warning",
                message=Message(
                    _("The disk of %(name)s has %(share)d %% free; %(limit)d %% are asked for."),
                    {
                        "name": destination.name,
                        "share": 100 * free // total,
                        "limit": round(100 * policy.min_free_disk),
                    },
                ),
                hint=Message(_("Free some space there, or give the backups a larger disk.")),
            )


def _small(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest
    if newest is not None and newest.stored_size < policy.min_size:
        yield Finding(
            id="backup_small",
            level="warning",
            message=Message(
                _("The newest backup, %(name)s, has %(size)d bytes only; %(limit)d are asked for."),
                {"name": newest.name, "size": newest.stored_size, "limit": policy.min_size},
            ),
            hint=Message(_("Look whether the database and the media are what they should be.")),
        )


def _no_catalog(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if not facts.catalog:
        yield Finding(
            id="no_catalog",
            level="warning",
            message=Message(
                _("The catalog cannot be read: how runs ended and what was verified is not known.")
            ),
            hint=Message(_("manage.py migrate, then: manage.py list_backups --sync")),
        )


Rule = Callable[[Policy, Facts, datetime], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    _no_backup,
    _damaged,
    _hidden,
    _old,
    _away,
    _copies,
    _behind,
    _unreadable,
    _last_run,
    _endless_run,
    _full,
    _small,
    _future,
    _unencrypted,
    _no_catalog,
    _cannot_open,
)


def _good(facts: Facts) -> list[BackupFacts]:
    return [backup for backup in facts.backups if backup.counts and backup.good]


def _is_from_future(backup: BackupFacts, now: datetime) -> bool:
    return backup.finished_at > now + CLOCK_SKEW


def _reachable(facts: Facts) -> list[DestinationFacts]:
    return [destination for destination in facts.destinations if destination.reachable]


def _complete(backup: BackupFacts, destination: DestinationFacts) -> Message:
    return Message(
        _("Complete that copy: manage.py backup --complete %(id)s --destination %(name)s"),
        {"id": backup.id[:8], "name": destination.name},
    )


def _mend(backup: BackupFacts, destination: DestinationFacts) -> Message:
    return Message(
        _(
            "Mend that copy: manage.py backup --complete %(id)s --destination %(name)s, then"
            " manage.py verify_backups %(id)s"
        ),
        {"id": backup.id[:8], "name": destination.name},
    )
