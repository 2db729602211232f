"""What the functions of the api take as given."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from django.conf import settings

from mipyme_backup.messages import Message


class Silent:
    """Progress for callers who do not look."""

    def step(self, message: Message, total: int | None = None) -> None:
        """Ignore it."""

    def advance(self, size: int) -> None:
        """Ignore it."""


def zone() -> ZoneInfo:
    """Return the time zone of the project, by which days and slots go."""
    return ZoneInfo(settings.TIME_ZONE)
