"""The channel of a webhook: one POST of JSON for each message."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import urlsplit

from mipyme_backup.monitoring.https import Client
from mipyme_backup.monitoring.notice import Notice
from mipyme_backup.printable import printable_value


class Webhook:
    """Posts to one URL. That may hold a token: its host is all that is ever shown of it."""

    def __init__(self, url: str, client: Client) -> None:
        self._url = url
        self._client = client
        self.key = f"webhook-{hashlib.sha256(url.encode()).hexdigest()[:32]}"
        self.name = f"webhook {urlsplit(url).hostname}"

    def send(self, notice: Notice) -> None:
        """Post `notice`; raises AlertError unless it was taken."""
        body = json.dumps(printable_value(notice.to_dict()), ensure_ascii=False).encode()
        self._client.post(self._url, body, "application/json")
