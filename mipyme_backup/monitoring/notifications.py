"""Tells every channel what it does not know yet, each for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from mipyme_backup import signals
from mipyme_backup.monitoring.delivery import Delivery, attempted
from mipyme_backup.monitoring.notice import Notice
from mipyme_backup.monitoring.status import Status
from mipyme_backup.monitoring.told import Records
from mipyme_backup.policy.alerting import decide
from mipyme_backup.translation import in_project_language


class Channel(Protocol):
    """A way to tell somebody; `key` names its record, and `name` the channel to people."""

    @property
    def key(self) -> str: ...

    @property
    def name(self) -> str: ...

    def send(self, notice: Notice) -> None:
        """Send `notice`; raises where it has not arrived."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a look has seen, and what became of telling it."""

    status: Status
    deliveries: Sequence[Delivery]

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.status.to_dict(),
            "alerts": [delivery.to_dict() for delivery in self.deliveries],
        }


def tell(
    status: Status,
    channels: Sequence[Channel],
    records: Records,
    *,
    digest: str | None,
    sees_all: bool = True,
) -> Watched:
    """Tell each channel what is new to it in `status`, and return what became of that.

    In the language of the project: it is not for who asked.

    The signals are a channel too, without a digest. `sees_all` is False where the look failed.
    """
    with in_project_language():
        _tell(status, _Signals(), records, None, sees_all)
        deliveries = [_tell(status, channel, records, digest, sees_all) for channel in channels]
    return Watched(status=status, deliveries=deliveries)


def test(status: Status, channels: Sequence[Channel]) -> list[Delivery]:
    """Send each channel a message that says it is a test, and return what became of that."""
    notice = Notice(event="test", status=status)
    with in_project_language():
        return [
            attempted(channel.name, "test", partial(channel.send, notice)) for channel in channels
        ]


def _tell(
    status: Status, channel: Channel, records: Records, digest: str | None, sees_all: bool
) -> Delivery:
    with records.locked(channel.key):
        known = records.read(channel.key)
        decision = decide(known, status.findings, digest=digest, now=status.at, sees_all=sees_all)
        if not decision.speaks:
            if decision.record != known:
                records.write(channel.key, decision.record)
            return Delivery(channel=channel.name)
        if decision.owed != known:
            records.write(channel.key, decision.owed)
        notice = Notice.of(status, decision)
        delivery = attempted(channel.name, notice.event, partial(channel.send, notice))
        if not delivery.failed:
            records.write(channel.key, decision.record)
    return Delivery(
        channel=delivery.channel,
        event=delivery.event,
        raised=[finding.id for finding in decision.raised],
        cleared=[item.id for item in decision.cleared],
        error=delivery.error,
    )


class _Signals:
    """The channel of the code that listens; what a receiver raises is logged, and no failure."""

    key = "signals"
    name = "signals"

    def send(self, notice: Notice) -> None:
        for finding in notice.raised:
            signals.finding_raised.send_robust(
                sender=tell, id=finding.id, finding=finding, status=notice.status
            )
        for item in notice.cleared:
            signals.finding_cleared.send_robust(
                sender=tell, id=item.id, finding=item, status=notice.status
            )
