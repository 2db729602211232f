"""Which channels the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mipyme_backup.monitoring.https import Client
from mipyme_backup.monitoring.mail import Mail, admins
from mipyme_backup.monitoring.notifications import Channel
from mipyme_backup.monitoring.webhooks import Webhook


def channels_of(alerts: Mapping[str, Any]) -> list[Channel]:
    """Return the channels of `ALERTS`: one for all mails, and one for each webhook."""
    recipients = admins() if alerts["recipients"] is None else alerts["recipients"]
    mail: list[Channel] = [Mail(recipients)] if recipients else []
    client = Client()
    return [*mail, *(Webhook(url, client) for url in dict.fromkeys(alerts["webhooks"]))]
