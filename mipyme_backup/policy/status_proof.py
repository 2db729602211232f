"""The rules about what shows that the backups can be restored: verifications, drills, the time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding, age_text
from mipyme_backup.policy.status_facts import Facts, Policy, is_ahead, newest_first

VERIFY_WITHIN = timedelta(days=8)
"""A week, in which the schedule reads every stored byte once, and a day of grace."""

DRILL_EVERY = timedelta(days=36)
"""From a month's first Sunday to the next are 35 days at the most, and a day of grace."""

LOOKED_AT = 3
"""How many copies of a destination are looked at: those that a restore would take first."""


def verify_overdue(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    if policy.verify_within is None or not facts.catalog:
        return
    limit = now - policy.verify_within
    for destination in facts.destinations:
        held = [
            backup.copies[destination.name]
            for backup in newest_first(facts.good)
            if backup.is_good_on(destination.name)
            and (backup.finished_at < limit or is_ahead(backup.finished_at, now))
        ][:LOOKED_AT]
        late = [
            copy
            for copy in held
            if copy.verified_at is None
            or copy.verified_at < limit
            or is_ahead(copy.verified_at, now)
        ]
        if destination.reachable and late:
            yield Finding(
                id=f"verify_overdue:{destination.name}",
                level="warning",
                message=Message(
                    _(
                        "Of the newest backups on %(name)s that are older than %(limit)s, %(count)d"
                        " were not verified in that time."
                    ),
                    {
                        "name": destination.name,
                        "limit": age_text(policy.verify_within),
                        "count": len(late),
                    },
                ),
                hint=Message(
                    _("Verify them: manage.py verify_backups --all --destination %(name)s"),
                    {"name": destination.name},
                ),
            )


def drill_failed(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    drill = facts.last_drill
    if drill is not None and not drill.passed:
        yield Finding(
            id="drill_failed",
            level="warning",
            message=Message(
                _("The last restore drill, of %(name)s, failed %(age)s ago."),
                {"name": drill.backup_name, "age": age_text(now - drill.finished_at)},
            ),
            hint=Message(
                _("Read its report, mend what failed, then rehearse again: manage.py restore_drill")
            ),
        )


def drill_overdue(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    """A host that cannot open its backups cannot rehearse; a new installation need not yet."""
    good = newest_first(item for item in facts.good if not is_ahead(item.finished_at, now))
    if policy.drill_every is None or not facts.opens or not facts.catalog or not good:
        return
    drill = facts.last_drill
    if drill is not None and is_ahead(drill.finished_at, now):
        drill = None  # nobody knows when it was
    since = drill.finished_at if drill is not None else good[-1].finished_at
    if now - since > policy.drill_every:
        text = _("The last restore drill was %(age)s ago; one is asked for every %(limit)s.")
        if drill is None:
            text = _("No restore was ever rehearsed; a drill is asked for every %(limit)s.")
        yield Finding(
            id="drill_overdue",
            level="warning",
            message=Message(
                text, {"age": age_text(now - since), "limit": age_text(policy.drill_every)}
            ),
            hint=Message(_("Rehearse one: manage.py restore_drill. Then look at the schedule.")),
        )


def rto_at_risk(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    newest, predicted = facts.newest_good(), facts.predicted_restore
    if policy.rto is None or newest is None or predicted is None or predicted <= policy.rto:
        return
    yield Finding(
        id="rto_at_risk",
        level="warning",
        message=Message(
            _("A restore of %(name)s may take %(expected)s; the RTO is %(limit)s."),
            {
                "name": newest.name,
                "expected": age_text(predicted),
                "limit": age_text(policy.rto),
            },
        ),
        hint=Message(
            _(
                "Measure it: manage.py restore_drill. Where it is so, save less, take faster disks,"
                " or agree on a longer RTO."
            )
        ),
    )
