"""The rules about the newest backups: is there a good one, how old is it, is it whole?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding, age_text
from mipyme_backup.policy.status_facts import BackupFacts, Facts, Policy, is_ahead, newest_of


def no_backup(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if facts.newest_good() is None:
        yield Finding(
            id="no_backup",
            level="critical",
            message=Message(_("There is no good backup that holds everything.")),
            hint=Message(_("Take one: manage.py backup")),
        )


def damaged(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest
    if newest is not None and newest.copies and not newest.good:
        yield Finding(
            id="newest_damaged",
            level="critical",
            message=Message(
                _("The newest backup, %(name)s, has no good copy any more: %(copies)s"),
                {
                    "name": newest.name,
                    "copies": _states(newest),
                },
            ),
            hint=Message(
                _("Take another: manage.py backup. Then look at the disks, and who writes there.")
            ),
        )


def hidden(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """Neither a destination nor the catalog tells of a backup that this host remembers."""
    newest = facts.newest
    seen = newest.sequence if newest else 0
    need_key = len({name for one in facts.destinations for name in one.need_key})
    if seen >= facts.highest_known:
        return
    params = {"seen": seen, "known": facts.highest_known, "count": need_key}
    if need_key:
        yield Finding(
            id="newest_hidden",
            level="warning",
            message=Message(
                _(
                    "The newest backup that this key opens is number %(seen)d; number %(known)d was"
                    " made, and may be one of %(count)d that need another key."
                ),
                params,
            ),
            hint=Message(
                _(
                    "Take one with the present key: manage.py backup. Or name the old key in"
                    " ENCRYPTION, and check again."
                )
            ),
        )
    else:
        yield Finding(
            id="newest_hidden",
            level="warning",
            message=Message(
                _("The newest backup in sight is number %(seen)d; number %(known)d was made."),
                params,
            ),
            hint=Message(
                _(
                    "Where no destination is away, somebody has removed what is newer: look who"
                    " can write there. Then: manage.py backup"
                )
            ),
        )


def old(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest = facts.newest_dated(now)
    if newest is not None and policy.is_too_old(newest.finished_at, now):
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


def future(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """Where no other is there, nobody knows whether there is a backup that is new enough."""
    newest = newest_of(item for item in facts.good if is_ahead(item.finished_at, now))
    if newest is not None:
        yield Finding(
            id="backup_from_future",
            level="warning" if facts.newest_dated(now) else "critical",
            message=Message(
                _("The backup %(name)s is dated %(ahead)s ahead of now: its age is not known."),
                {"name": newest.name, "ahead": age_text(newest.finished_at - now)},
            ),
            hint=Message(
                _(
                    "Set the clock of this machine, and keep it right with NTP. Then take another"
                    " backup: manage.py backup"
                )
            ),
        )


def small(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
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


def _states(backup: BackupFacts) -> Message:
    """Return the copies with their states, each of which is a word to be translated."""
    params: dict[str, object] = {}
    for number, (name, copy) in enumerate(backup.copies.items()):
        params |= {f"name{number}": name, f"status{number}": Message(copy.status)}
    names = [f"%(name{n})s: %(status{n})s" for n in range(len(backup.copies))]
    return Message(", ".join(names), params)
