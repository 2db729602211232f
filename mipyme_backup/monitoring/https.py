"""An https client for URLs that lead out of our network, and nowhere into it."""

from __future__ import annotations

import ssl
import threading

from mipyme_backup import https_urls
from mipyme_backup.errors import AlertError
from mipyme_backup.messages import _
from mipyme_backup.monitoring.exchange import Exchange

SECONDS = 10.0


class Client:
    """Posts to https URLs, in `seconds` at most with all that belongs to it.

    `context` is the TLS context, of the system's authorities where there is none. `allow_private`
    is for tests, whose servers are on this machine.
    """

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        context: ssl.SSLContext | None = None,
        allow_private: bool = False,
    ) -> None:
        self._seconds = seconds
        self._context = context
        self._allow_private = allow_private

    def post(self, url: str, body: bytes, content_type: str) -> None:
        """Post `body`; raises AlertError unless the answer's status is 2xx.

        What the error says holds nothing of the URL but the host.
        """
        try:
            target = https_urls.parse(url)
        except ValueError as error:
            raise AlertError(_("The URL cannot be used: %(reason)s."), reason=error) from None
        exchange = Exchange(
            target,
            body,
            content_type,
            self._context or ssl.create_default_context(),
            allow_private=self._allow_private,
        )
        # Resolving knows no time limit, and an answer may drip: only from outside is there one.
        thread = threading.Thread(target=exchange.run, name="alert", daemon=True)
        thread.start()
        thread.join(self._seconds)
        late = thread.is_alive()
        exchange.end()
        exchange.judge(self._seconds if late else None)
