"""What one message says, to whomever it goes: the one JSON shape, and the parts of a mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mipyme_backup.monitoring.status import Status, told_finding
from mipyme_backup.policy.alerting import Cleared, Decision
from mipyme_backup.policy.status import Finding
from mipyme_backup.translation import said

VERSION = 1

Event = Literal["raised", "cleared", "digest", "test"]


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A message: what is new, what has ended, and the `status` that it was seen in."""

    event: Event
    status: Status
    raised: Sequence[Finding] = ()
    cleared: Sequence[Cleared] = ()

    @classmethod
    def of(cls, status: Status, decision: Decision) -> Notice:
        """Return the one message that says all that was decided."""
        event: Event = "digest"
        if decision.raised:
            event = "raised"
        elif decision.cleared:
            event = "cleared"
        return cls(event=event, status=status, raised=decision.raised, cleared=decision.cleared)

    @property
    def problems(self) -> list[Finding]:
        """All that is wrong, the worst first."""
        return [finding for finding in self.status.findings if finding.level != "ok"]

    def to_dict(self) -> dict[str, Any]:
        """Return what a webhook is sent; docs/howto/alerts.md describes it."""
        status = self.status
        return {
            "version": VERSION,
            "event": self.event,
            "project": status.project,
            "host": status.host,
            "at": status.at.isoformat(),
            "level": status.level,
            "raised": [told_finding(finding) for finding in self.raised],
            "cleared": [
                {
                    "id": item.id,
                    "level": item.level,
                    "message": said(item.text),
                    "since": item.since.isoformat(),
                }
                for item in self.cleared
            ],
            "findings": [told_finding(finding) for finding in self.problems],
        }
