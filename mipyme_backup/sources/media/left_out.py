"""What a run could not save as it is, counted by reason, for the manifest's warnings."""

from __future__ import annotations

from enum import Enum

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.media.names import SHOWN_NAMES, shown


class Reason(Enum):
    """Why a file is not saved as it is now; the value is the warning."""

    LINK = _("%(count)d links lead out of the media folder, and are saved as links: %(names)s")
    NOWHERE = _("%(count)d links lead nowhere, and are saved as links: %(names)s")
    UNTRUSTED = _(
        "%(count)d links belong to another user than what they lead to, so that root does not"
        " follow them, and are saved as links: %(names)s"
    )
    LOOP = _("%(count)d links lead in a circle, and are not followed: %(names)s")
    SPECIAL = _("%(count)d media entries are no files (pipes, sockets, devices): %(names)s")
    UNREADABLE = _("%(count)d media files could not be read: %(names)s")
    UNREADABLE_FOLDER = _("%(count)d media folders could not be read: %(names)s")
    VANISHED = _("%(count)d media files vanished while they were read: %(names)s")
    CHANGED = _("%(count)d media files changed each time they were read: %(names)s")
    MOVING = _("%(count)d media files changed while they were read, and may be torn: %(names)s")
    ROTTEN = _(
        "%(count)d media files have another content than in the last backup, though neither time"
        " nor inode says that they were written to (check the disk): %(names)s"
    )
    TOO_DEEP = _("%(count)d media folders are nested too deeply, and are left out: %(names)s")
    UNFOLLOWED = _("%(count)d links in the storage are not followed, and left out: %(names)s")
    NAME = _("%(count)d objects have names that no file can have, and are left out: %(names)s")
    GONE = _(
        "%(count)d media files that the database names are missing; this backup keeps the last"
        " saved version of each (to restore them: restore --latest --only media): %(names)s"
    )
    MISSING = _("%(count)d media files that the database names do not exist: %(names)s")
    UNSAVED = _("%(count)d media files that the database names could not be saved: %(names)s")


OUTWARD = (Reason.LINK, Reason.UNTRUSTED)
"""Why what a link leads to is not saved, although it is there."""

NO_RIGHTS = (Reason.UNREADABLE, Reason.UNREADABLE_FOLDER)
"""Why something that exists could not be read."""


class LeftOut:
    """Counts by reason, with the first few names of each; a million of them take no memory."""

    def __init__(self) -> None:
        self._counts: dict[Enum, int] = {}
        self._names: dict[Enum, list[str]] = {}

    def add(self, reason: Enum, path: bytes) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        names = self._names.setdefault(reason, [])
        if len(names) < SHOWN_NAMES:
            names.append(shown(path))

    def count(self, *reasons: Enum) -> int:
        """Return how many were left out for one of `reasons`."""
        return sum(self._counts.get(reason, 0) for reason in reasons)

    def messages(self) -> list[Message]:
        """Return one message for each reason that occurred."""
        return [
            Message(reason.value, {"count": count, "names": listed(self._names[reason], count)})
            for reason, count in self._counts.items()
        ]


def listed(names: list[str], count: int) -> str:
    """Return the first of `count` names as one text."""
    return ", ".join(names) + (", …" if count > len(names) else "")
