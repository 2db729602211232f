"""What is wrong with the backups, how badly, and what to do about it. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mipyme_backup.policy import (
    status_backups,
    status_content,
    status_databases,
    status_destinations,
    status_host,
    status_proof,
    status_runs,
)
from mipyme_backup.policy.finding import LEVELS, Finding, Level, Rule, age_text
from mipyme_backup.policy.status_facts import Facts, Policy

__all__ = ["LEVELS", "RULES", "Finding", "Level", "age_text", "findings", "level_of"]

RULES: tuple[Rule, ...] = (
    status_databases.lost,
    status_databases.rows_gone,
    status_backups.no_backup,
    status_backups.damaged,
    status_backups.hidden,
    status_backups.old,
    status_destinations.away,
    status_destinations.copies,
    status_destinations.behind,
    status_destinations.need_key,
    status_destinations.unreadable,
    status_destinations.program_changed,
    status_destinations.foreign,
    status_destinations.all_here,
    status_runs.missed,
    status_runs.silent,
    status_runs.last_run,
    status_runs.endless_run,
    status_runs.failing,
    status_destinations.full,
    status_destinations.skewed,
    status_backups.small,
    status_content.left_out,
    status_content.files_missing,
    status_content.shrunk,
    status_backups.future,
    status_proof.verify_overdue,
    status_proof.drill_failed,
    status_proof.drill_overdue,
    status_proof.rto_at_risk,
    status_host.key_expiring,
    status_host.unencrypted,
    status_host.state_ignored,
    status_host.state_misplaced,
    status_host.unremoved,
    status_host.no_catalog,
    status_host.review_overdue,
    status_host.cannot_open,
)


def findings(policy: Policy, facts: Facts, now: datetime) -> list[Finding]:
    """Return what the rules find, the worst first, else in the order of the rules."""
    found = [finding for rule in RULES for finding in rule(policy, facts, now)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level), reverse=True)


def level_of(found: Sequence[Finding]) -> Level:
    """Return the highest level, ``ok`` where nothing was found."""
    return max((finding.level for finding in found), key=LEVELS.index, default="ok")
