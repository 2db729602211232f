"""What a source is, and the view and the artifacts that pass between it and a backup."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from mipyme_backup.errors import StateError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader

Facts = Mapping[str, Any]
"""What an artifact says about its content, as plain JSON values, for the manifest."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One stream that a source yields.

    `name` is its file name before compression and encryption (``database.default.dump``).
    `open` starts the reading; `facts` and `warnings` are asked after it was read to the end.
    `check` reads the raw stream to its end and raises DamagedError for what is wrong with it.
    `pool` is the pack id of an artifact that several backups share, else None. The next backup
    on this host reads what is `read_again`.
    """

    name: str
    open: Callable[[], Reader]
    check: Callable[[Reader], None]
    facts: Callable[[], Facts] = dict
    warnings: Callable[[], Sequence[Message]] = tuple
    pool: str | None = None
    size_hint: int | None = None
    read_again: bool = False


def artifact_name(alias: str, suffix: str) -> str:
    """Return the file name of a database's artifact: ``database.<alias>.<suffix>``.

    All of the alias but ASCII letters, digits, ``_`` and ``-`` is percent-encoded.
    """
    escaped = quote(alias, safe="", errors="surrogatepass")
    return f"database.{escaped.replace('.', '%2E').replace('~', '%7E')}.{suffix}"


class Snapshot(Protocol):
    """One consistent view of one database, open until it is closed."""

    alias: str

    def artifact(self) -> Artifact:
        """Return the dump of the database as of this snapshot."""

    def reading(self) -> AbstractContextManager[str]:
        """Register, in this thread, a Django alias whose ORM reads this very snapshot."""

    def check(self) -> None:
        """Raise `SourceBusyError` when somebody has waited too long behind our locks."""

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class View:
    """What a source reads: the open snapshots by alias, and the media index of the last backup.

    `previous_media` yields the raw bytes of the last ``media.index.jsonl`` on a call (None where
    there is none), `known_packs` are the ids of the packs that are still good.
    """

    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    previous_media: Callable[[], Reader | None] = lambda: None
    known_packs: frozenset[str] = frozenset()
    expected_files: Iterable[str] = ()


class Source(ABC):
    """Something that is saved: it yields artifacts, one after the other, out of one view."""

    name: str
    needs_snapshot = False

    def split(self) -> list[Source]:
        """Return the sources that this entry of the settings stands for."""
        return [self]

    def preflight(self) -> Iterator[Message]:
        """Yield what is doubtful; raise `PreflightError` for what makes saving impossible."""
        return iter(())

    def is_absent(self, view: View) -> bool:
        """Say whether the project has nothing of the kind, so that there is nothing to save."""
        return False

    @abstractmethod
    def artifacts(self, view: View) -> Iterator[Artifact]:
        """Yield the artifacts; each is read to its end before the next is asked for."""


def require_own(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise StateError where a target's `state` names other places than `own`.

    A journal is no order: `own` is made anew, from the settings and the restore's id.
    """
    for key, expected in own.items():
        if state.get(key) != expected:
            raise StateError(
                _(
                    "The restore %(id)s in the journal is ignored: its %(key)s is %(found)s, and"
                    " by the settings it is %(expected)s."
                ),
                hint=_(
                    "If the settings changed since that restore, set them back until"
                    " KEEP_REPLACED_HOURS are over; else move its file out of STATE_DIR."
                ),
                id=state.get("restore_id"),
                key=key,
                found=state.get(key),
                expected=expected,
            )


class Target(ABC):
    """Where an artifact is restored to: loaded beside the live data, checked, then swapped in.

    `state` is plain JSON and is all that a later process needs to finish, roll back or undo:
    `restored_target(state)` of the source's module makes the same target again. Every method
    may be called again after a crash at any point. What was swapped `for_good` cannot be undone,
    so it is swapped last.
    """

    state: dict[str, Any]
    for_good = False

    @abstractmethod
    def plan(self) -> list[Message]:
        """Say what will happen and what only an administrator can do; raise what forbids it."""

    @abstractmethod
    def has_live(self) -> bool:
        """Say whether there is live data that a restore would replace."""

    @abstractmethod
    def load(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        """Load the artifacts (by name) beside the live data."""

    @abstractmethod
    def check(self, facts: Facts) -> list[Message]:
        """Compare what was loaded with the manifest's facts; return every difference."""

    def side_settings(self) -> dict[str, Any] | None:
        """Return the ``DATABASES`` entry of what was loaded beside, None for no database."""
        return None

    def swap_has_begun(self) -> bool:
        """Say whether the swap has changed anything live that was not swapped back.

        Asked after a crash: where no target's has, the restore is rolled back, for the site may
        have gone on with what is live since.
        """
        return True

    @abstractmethod
    def swap(self) -> float:
        """Put what was loaded in the place of the live data; return the seconds of downtime."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what was loaded beside; live data stays as it is."""

    @abstractmethod
    def undo(self) -> None:
        """Swap what was replaced back in."""

    @abstractmethod
    def remove_replaced(self) -> None:
        """Remove what was replaced."""
