"""The heartbeat: a service that expects a ping, and tells people when none comes.

The URLs are those of Healthchecks: the one given for a success, and below it ``/start`` and
``/fail`` (https://healthchecks.io/docs/http_api/).
"""

from __future__ import annotations

from typing import Literal, get_args

from mipyme_backup import https_urls
from mipyme_backup.monitoring.delivery import Delivery, attempted
from mipyme_backup.monitoring.https import Client

Event = Literal["start", "success", "fail"]
EVENTS: tuple[Event, ...] = get_args(Event)
ENDINGS = {"start": "/start", "success": "", "fail": "/fail"}
TEXT_SIZE = 10_000


def ping(url: str, event: Event, text: str = "", *, client: Client | None = None) -> Delivery:
    """Tell of `event`, with a `text` that holds no secret; never raises for what goes wrong."""

    def post() -> None:
        body = text.encode(errors="replace")[:TEXT_SIZE]
        target = https_urls.with_ending(url, ENDINGS[event]) if ENDINGS[event] else url
        (client or Client()).post(target, body, "text/plain; charset=utf-8")

    return attempted("heartbeat", event, post)
