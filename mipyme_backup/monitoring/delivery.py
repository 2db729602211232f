"""What becomes of a message: whatever goes wrong with it is told, and stops nobody."""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mipyme_backup.errors import AlertError
from mipyme_backup.translation import said

logger = logging.getLogger("mipyme_backup")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of a message: `event` is empty where the channel had nothing to be told."""

    channel: str
    event: str = ""
    raised: Sequence[str] = ()
    cleared: Sequence[str] = ()
    error: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.error)

    def to_dict(self) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "event": self.event or None,
            "sent": bool(self.event) and not self.failed,
            "raised": list(self.raised),
            "cleared": list(self.cleared),
            "error": said(self.error) or None,
        }


def attempted(channel: str, event: str, send: Callable[[], None]) -> Delivery:
    """Send, and return what became of it; what fails is a warning in the log, and no error."""
    try:
        send()
    except Exception as error:  # noqa: BLE001 - whatever a backend raises, no channel stops others
        reason = _reason(error)
        logger.warning("An alert (%s) to %s has not arrived: %s", event, channel, reason)
        return Delivery(channel=channel, event=event, error=reason)
    return Delivery(channel=channel, event=event)


def _reason(error: Exception) -> str:
    """Return why it failed; the text of a foreign error may hold a key or a URL."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    if isinstance(error, AlertError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__
