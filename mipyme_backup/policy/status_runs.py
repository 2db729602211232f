"""The rules about the runs of backups: did they come, and how did they end?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding, age_text
from mipyme_backup.policy.status_facts import Facts, Policy


def last_run(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
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


def endless_run(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
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
