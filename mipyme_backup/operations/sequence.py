"""The number of a backup: what is newest must not depend on a clock, nor on who is away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mipyme_backup.errors import KeyMissingError
from mipyme_backup.manifest import LARGEST_SEQUENCE, Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Holdings
from mipyme_backup.results import Found

LAST_GIVEN = "sequence"
LAST_MADE = "made"
NEWEST = "newest"
BELIEVED = LARGEST_SEQUENCE // 2
"""A larger number is planted: there must be room for those that we give after it."""


def next_sequence(project: Project, held: Mapping[str, Holdings]) -> int:
    """Return a number above that of every backup we can see, and of every one we made.

    The last one given is kept in `STATE_DIR`: the destination that holds the newest backups may
    be away just now, or their key. Call it with the lock held.
    """
    number = 1 + max(project.recall(LAST_GIVEN, _number, 0), _highest(held))
    project.remember(LAST_GIVEN, number)
    return number


def made_elsewhere(project: Project, held: Mapping[str, Holdings]) -> bool:
    """Say whether another host has made a backup since this one made its last.

    Two that made one at the same time have given it the same number.
    """
    number, backup_id = project.recall(LAST_MADE, _made, (0, ""))
    return any(m.sequence >= number and m.id != backup_id for m in _believed(held))


def note_newest(project: Project, manifest: Manifest) -> None:
    """Remember a backup that was committed, so that one who hides it is found out."""
    project.remember(LAST_MADE, [manifest.sequence, manifest.id])
    if _counts(manifest):
        project.remember(NEWEST, manifest.sequence)


def newest_known(project: Project) -> int:
    """Return the number of the newest backup that `STATE_DIR` or the catalog remembers.

    On a bare host that is 0.
    """
    known = project.recall(NEWEST, _number, 0)
    return max(known, project.catalog.newest_sequence(project.name))


def hidden_newest(project: Project, found: Iterable[Found]) -> list[Message]:
    """Warn where a newer backup was made here than any that is `found`.

    Safety backups do not count, nor those of a part: they come and go.
    """
    known, listed = newest_known(project), [*found]
    seen = max((m.sequence for item in listed if (m := item.manifest) and _counts(m)), default=0)
    if seen >= known:
        return []
    need_key = {item.name for item in listed if isinstance(item.error, KeyMissingError)}
    if need_key:
        text = _(
            "The newest backup that this key opens is number %(seen)d, and number %(known)d was"
            " made: it may be one of %(count)d that need another key. ENCRYPTION can name that in"
            " old_passphrase_files."
        )
        return [Message(text, {"seen": seen, "known": known, "count": len(need_key)})]
    text = _(
        "The newest backup that can be seen is number %(seen)d, and number %(known)d was made:"
        " somebody may have removed what is newer, or a destination that has it is away."
    )
    return [Message(text, {"seen": seen, "known": known})]


def _highest(held: Mapping[str, Holdings]) -> int:
    return max((manifest.sequence for manifest in _believed(held)), default=0)


def _believed(held: Mapping[str, Holdings]) -> list[Manifest]:
    found = [item.manifest for one in held.values() for item in one.backups if item.manifest]
    return [manifest for manifest in found if manifest.sequence <= BELIEVED]


def _counts(manifest: Manifest) -> bool:
    return manifest.whole and manifest.kind != "safety"


def _number(record: Any) -> int:
    if type(record) is not int or not 0 <= record <= LARGEST_SEQUENCE:
        raise ValueError(record)
    return record


def _made(record: Any) -> tuple[int, str]:
    number, backup_id = record
    if not isinstance(backup_id, str):
        raise TypeError(backup_id)
    return _number(number), backup_id
