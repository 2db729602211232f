"""The last look at the backups, kept in the catalog: for pages and scrapes that may not wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from mipyme_backup.catalog import Catalog
from mipyme_backup.errors import CatalogError
from mipyme_backup.messages import Message, _
from mipyme_backup.monitoring.status import Status, told_facts, told_finding
from mipyme_backup.policy.finding import Finding, Level, age_text
from mipyme_backup.policy.status import level_of
from mipyme_backup.policy.status_facts import CLOCK_SKEW
from mipyme_backup.schedule import slots_between

VERSION = 1

GRACE = timedelta(hours=1)
"""How long after its slot a look may come: a long backup before it in the queue is no fault."""


@dataclass(frozen=True, kw_only=True)
class LastLook:
    """What was seen at the moment `at`, None where nobody has looked or it cannot be known.

    `facts` are those of `Status.to_dict`, empty then. That nobody looks is a critical finding of
    its own.
    """

    at: datetime | None
    findings: Sequence[Finding]
    facts: Mapping[str, Any]

    @property
    def level(self) -> Level:
        return level_of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return it in the shape of `Status.to_dict`."""
        return {
            "level": self.level,
            "findings": [told_finding(finding) for finding in self.findings],
            "facts": told_facts(self.facts) if self.facts else {},
        }


def keep(catalog: Catalog, status: Status) -> None:
    """Keep what a look saw in place of the one before; a catalog that is away is a warning."""
    document = {
        "version": VERSION,
        "findings": [_of_finding(finding) for finding in status.findings],
        "facts": status.facts_document(),
    }
    catalog.keep_look(status.project, status.at, document)


def read(
    catalog: Catalog,
    project: str,
    *,
    expression: str | None,
    max_age: timedelta,
    now: datetime,
    zone: tzinfo,
) -> LastLook:
    """Return the last look at `project`.

    It is too old where a slot of `expression` in `zone` has come since, longer than GRACE ago;
    without an expression, where it is older than `max_age`.
    """
    try:
        document = catalog.last_look(project)
    except CatalogError as error:
        text = _("How the backups are cannot be told: %(reason)s")
        return _nothing("cannot_tell", Message(text, {"reason": error.message}), error.hint)
    kept = _read(document)
    if kept is None:
        text = _("Nobody has looked at the backups yet.")
        return _nothing("never_looked", Message(text), _look_now())
    at, found, facts = kept
    if at > now + CLOCK_SKEW:
        text = _("The last look at the backups is dated %(ahead)s ahead of now.")
        hint = Message(_("Set the clock of this machine, and keep it right with NTP."))
        found.insert(0, _unknown("not_looked", Message(text, {"ahead": age_text(at - now)}), hint))
    elif _is_stale(at, now, expression, max_age, zone):
        text = _("Nobody has looked at the backups for %(age)s.")
        found.insert(0, _unknown("not_looked", Message(text, {"age": age_text(now - at)})))
    return LastLook(at=at, findings=found, facts=facts)


def kept(catalog: Catalog, project: str) -> LastLook | None:
    """Return the last look as it was kept, however old; None where there is none.

    Raises CatalogError where the catalog cannot be read.
    """
    found = _read(catalog.last_look(project))
    if found is None:
        return None
    at, findings, facts = found
    return LastLook(at=at, findings=findings, facts=facts)


def _read(document: Any) -> tuple[datetime, list[Finding], Mapping[str, Any]] | None:
    """Return when the look was, its findings and its facts; None of what no look has kept."""
    try:
        if document["version"] != VERSION:
            return None
        facts = document["facts"]
        at = datetime.fromisoformat(facts["at"])
        found = [_to_finding(entry) for entry in document["findings"]]
        for finding in found:
            told_finding(finding)  # each text fits its parameters
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return (at, found, facts) if at.tzinfo else None


def _is_stale(
    at: datetime, now: datetime, expression: str | None, max_age: timedelta, zone: tzinfo
) -> bool:
    if expression is None:
        return now - at > max_age
    return next(slots_between(expression, at, now - GRACE, zone), None) is not None


def _nothing(name: str, message: Message, hint: Message) -> LastLook:
    return LastLook(at=None, findings=[_unknown(name, message, hint)], facts={})


def _unknown(name: str, message: Message, hint: Message | None = None) -> Finding:
    return Finding(id=name, level="critical", message=message, hint=hint or _look_now())


def _look_now() -> Message:
    return Message(_("Look now: manage.py backup_status. Then look at the schedule."))


def _of_finding(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "level": finding.level,
        "message": _of_message(finding.message),
        "hint": _of_message(finding.hint),
    }


def _to_finding(entry: Mapping[str, Any]) -> Finding:
    return Finding(
        id=entry["id"],
        level=entry["level"],
        message=_to_message(entry["message"]),
        hint=_to_message(entry["hint"]),
    )


def _of_message(message: Message) -> dict[str, Any]:
    """Return the text and its parameters, apart, so that it can be translated when it is read."""
    return {
        "text": message.text,
        "params": {
            name: _of_message(value)
            if isinstance(value, Message)
            else value
            if isinstance(value, int | float)
            else str(value)
            for name, value in message.params.items()
        },
    }


def _to_message(entry: Mapping[str, Any]) -> Message:
    return Message(
        entry["text"],
        {
            name: _to_message(value) if isinstance(value, Mapping) else value
            for name, value in entry["params"].items()
        },
    )
