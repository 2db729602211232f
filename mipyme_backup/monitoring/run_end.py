"""The check that ends a run: the kept look is never behind what the run has done.

Folders of this machine are looked at. Of a remote destination nothing is asked again: what the run
made of it is in the catalog, and what a listing alone can show is as the last whole look found it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mipyme_backup.catalog import Known
from mipyme_backup.destinations import Destination
from mipyme_backup.errors import BackupError
from mipyme_backup.messages import Message
from mipyme_backup.monitoring import last_look as last_looks
from mipyme_backup.monitoring.facts import Look
from mipyme_backup.monitoring.status import Status, take
from mipyme_backup.operations.project import Project
from mipyme_backup.policy.finding import LEVELS, Finding
from mipyme_backup.policy.status_facts import DestinationFacts, Policy

SECONDS = 10.0
"""How long the folders of this machine may take; a hung mount must not hold up what is done."""

SEEN_BY_A_LISTING = (
    "clock_skewed",
    "destination_unreachable",
    "destination_unwritable",
    "foreign_objects",
    "old_key_needed",
    "recovery_program_changed",
    "unreadable",
)
REFUTED = ("destination_unreachable", "destination_unwritable")
"""What a copy that was just made there shows to be over."""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """The remote destinations by name, and the findings that are kept of them."""

    looks: Mapping[str, Look]
    findings: Mapping[str, Finding]


def check(
    project: Project,
    policy: Policy,
    *,
    schedule: Mapping[str, str | None],
    host: str,
    proven: Collection[str] = (),
    now: datetime | None = None,
) -> Status:
    """Check after a run, and keep what was seen; `proven` destinations have just taken a copy.

    Raises CatalogError where there is no catalog to keep it in.
    """
    remembered = _remembered(project, proven)
    seen = take(
        project,
        policy,
        schedule=schedule,
        host=host,
        seconds=SECONDS,
        now=now,
        remembered=remembered.looks,
    )
    found = {item.id: item for item in seen.findings}
    for name in remembered.looks:
        for rule in SEEN_BY_A_LISTING:
            found.pop(f"{rule}:{name}", None)
    found |= remembered.findings
    ordered = sorted(found.values(), key=lambda item: LEVELS.index(item.level), reverse=True)
    seen = replace(seen, findings=ordered)
    last_looks.keep(project.catalog, seen)
    return seen


def _remembered(project: Project, proven: Collection[str]) -> Remembered:
    last = last_looks.kept(project.catalog, project.name)
    known = project.catalog.known(project.name, datetime.now(UTC))
    looks: dict[str, Look] = {}
    findings: dict[str, Finding] = {}
    for name, destination in project.destinations.items():
        if not _is_remote(destination):
            continue
        facts = last.facts["destinations"].get(name) if last else None
        looks[name] = Look(facts=_facts(name, destination, facts, known, name in proven))
        ids = {f"{rule}:{name}" for rule in SEEN_BY_A_LISTING}
        if name in proven:
            ids -= {f"{rule}:{name}" for rule in REFUTED}
        findings |= {item.id: item for item in (last.findings if last else ()) if item.id in ids}
    return Remembered(looks=looks, findings=findings)


def _is_remote(destination: Destination) -> bool:
    try:
        return destination.remote
    except BackupError:
        return True  # its settings are wrong: only the run itself says how


def _facts(
    name: str,
    destination: Destination,
    last: Mapping[str, Any] | None,
    known: Known | None,
    proven: bool,
) -> DestinationFacts:
    """Return what is known of a remote destination without asking it."""
    held = len(known.copies.get(name, {})) if known is not None else 0
    if last is None:
        try:
            place = destination.describe()
        except BackupError:
            place = "-"
        return DestinationFacts(name=name, place=place, remote=True, reachable=True, backups=held)
    skew = last["clock_ahead_seconds"]
    error = None if proven or last["error"] is None else Message(last["error"])
    return DestinationFacts(
        name=name,
        place=last["place"],
        remote=True,
        reachable=proven or last["reachable"],
        writable=True if proven else last["writable"],
        may_delete=last["may_delete"],
        skew=None if skew is None else timedelta(seconds=skew),
        error=error,
        free=last["free_bytes"],
        total=last["total_bytes"],
        backups=held,
        highest_sequence=last["highest_sequence"],
        unreadable=last["unreadable"],
        need_key=last["need_key"],
        foreign=last["foreign"],
    )
