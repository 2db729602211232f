"""The rules about what runs: did the backups come, how did they end, and do the other jobs?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.messages import Message, _
from mipyme_backup.policy.finding import Finding, age_text
from mipyme_backup.policy.status_facts import Facts, Policy


def missed(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for kind in dict.fromkeys(missed.kind for missed in facts.missed):
        slots = [missed.slot for missed in facts.missed if missed.kind == kind]
        yield Finding(
            id=f"slot_missed:{kind}",
            level="warning",
            message=Message(
                _(
                    "No backup was made when the schedule asked for one (%(kind)s, %(count)d"
                    " times), the last time at %(slot)s."
                ),
                {
                    "kind": Message(kind),
                    "count": len(slots),
                    "slot": f"{max(slots):%Y-%m-%d %H:%M %Z}",
                },
            ),
            hint=Message(
                _(
                    "Make up for it: manage.py schedule_backups run-due. Then look why nobody did:"
                    " cron, the worker, or the error of the last run."
                )
            ),
        )


def silent(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    silence = facts.silence
    if silence is None:
        return
    text = _("The schedule has never been called.")
    params: dict[str, object] = {}
    if silence.since is not None:
        text = _("The schedule has not been called for %(age)s, although a job was due.")
        params = {"age": age_text(now - silence.since)}
    yield Finding(
        id="schedule_silent",
        level="warning",
        message=Message(text, params),
        hint=Message(
            _(
                "Have it called every 15 minutes: manage.py schedule_backups install-cron (or"
                " install-beat; in a container, a loop around run-due). If it is to stay off, set"
                " every entry of SCHEDULE to None."
            )
        ),
    )


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


def failing(policy: Policy, facts: Facts, now: datetime) -> Iterator[Finding]:
    for job in facts.failing:
        yield Finding(
            id=f"job_failing:{job.job}",
            level="warning",
            message=Message(
                _("The scheduled job %(job)s failed %(count)d times in a row: %(reason)s"),
                {"job": job.job, "count": job.failed, "reason": job.reason or "-"},
            ),
            hint=Message(_("Mend what it says; the schedule tries again within four hours.")),
        )
