"""What a source is, and the view and the artifacts that pass between it and a backup."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

from mipyme_backup.errors import RestoreError, StateError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import CHUNK, Reader

OWN_APP = "mipyme_backup"
"""The catalog is a cache of the manifests: never part of what is saved."""

LONGEST_NAME = 200
HASH_DIGITS = 10

Facts = Mapping[str, Any]
"""What an artifact says about its content, as plain JSON values, for the manifest.

What could not be saved is told of any source by the same keys, see `policy.left_out`:
``unreadable`` counts what was there and could not be read (then the backup is partial),
``left_out`` what cannot be stored, ``missing`` what rows name and was not there. The packs that it
needs are ``packs``.
"""

Condition = Literal["used", "emptied", "bare", "missing", "unknown"]
"""``missing``: the server, or the folder, has no such database. ``bare``: it has none of the
project's tables, and no migration was applied. ``emptied``: none of those that held rows has any.
``unknown``: it cannot be asked, or is of no engine that can be."""

ServerLock = Callable[[int, str], AbstractContextManager[str | None]]
"""Tries an advisory lock: see `lock.ServerLock`."""


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

    All of the alias but ASCII letters, digits, ``_`` and ``-`` is percent-encoded; see `fitting`.
    """
    escaped = quote(alias, safe="", errors="surrogatepass")
    return f"database.{fitting(escaped.replace('.', '%2E').replace('~', '%7E'))}.{suffix}"


def fitting(name: str) -> str:
    """Return an escaped `name` so short that a file can have it, with what is put behind it.

    One that must be cut carries a hash of the whole one, behind a ``~``, which none has itself.
    """
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:HASH_DIGITS]
    return f"{name[: LONGEST_NAME - HASH_DIGITS - 1]}~{digest}"


class Snapshot(Protocol):
    """One consistent view of one database, open until it is closed."""

    alias: str

    def artifact(self) -> Artifact:
        """Return the dump of the database as of this snapshot."""

    def reading(self) -> AbstractContextManager[str]:
        """Register, in this thread, a Django alias whose ORM reads this very snapshot."""

    def row_counts(self) -> Mapping[str, int]:
        """Return the rows by table that were counted so far; nothing is counted for that."""

    def check(self) -> None:
        """Raise `SourceBusyError` when somebody has waited too long behind our locks."""

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class View:
    """What a source reads: the open snapshots by alias, and what the last backup has of it.

    `previous` opens the artifact of this name of the last backup (None where there is none),
    `known_packs` are the ids of the packs that are still good. `expected_files` are those that
    `Source.named_files` found.
    """

    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    previous: Callable[[str], Reader | None] = lambda _name: None
    known_packs: frozenset[str] = frozenset()
    expected_files: Iterable[Any] = ()


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a backup says of one artifact: its facts, and its raw size in bytes."""

    facts: Facts = field(default_factory=dict)
    raw_size: int = 0


Contents = Mapping[str, Saved]
"""What a backup holds of one source, by the names of the artifacts."""

Openers = Mapping[str, Callable[[], Reader]]
"""What opens the artifacts of one source by their names, and as ``pool/<pack id>`` each pack that
their facts name under ``packs``."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a restore goes to: over what is live, or to the places that the operator named.

    `in_place` is for a role that may not create databases.
    """

    to_database: str | None = None
    to_directory: Path | None = None
    in_place: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredIn:
    """Which storages of the project keep the files of a source, as plain values.

    `aliases` of ``STORAGES`` with the folder in which each lies ("" for all of it), `fields` by
    ``app.Model.field`` with what stands before the names of their rows. Of those `in_context` only
    the end of a path is known.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    in_context: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Restorable:
    """A target, the artifacts that it is loaded from, and the facts that it is checked against."""

    target: Target
    artifacts: Sequence[str]
    facts: Facts = field(default_factory=dict)


class Source(ABC):
    """Something that is saved: it yields artifacts, one after the other, out of one view.

    `name` is the key of its entry in ``SOURCES``; a part that `split` returns adds ``:`` and a
    name of its own. Operations know a source by what it says here, and by nothing else: one that
    a project writes is saved, verified, restored, undone and rehearsed like ours.

    With `needs_snapshot` it reads while the snapshots are open. `alias` is the database of
    ``DATABASES`` that it saves. Only what is `restored_by_default` is restored without being
    named; what is `held_elsewhere` is in another source as well. Targets of a lower
    `restore_order` are swapped first. `place_option` is the option of ``restore`` that gives it a
    place beside the live data.
    """

    name: str
    needs_snapshot = False
    alias: str | None = None
    restored_by_default = True
    held_elsewhere = False
    restore_order = 0
    place_option: Literal["--to-database", "--to-media"] | None = None

    @property
    def stored_in(self) -> StoredIn | None:
        """Which storages keep the files that are saved here; None for what is in no storage."""
        return None

    def split(self) -> list[Source]:
        """Return the sources that this entry of the settings stands for."""
        return [self]

    def part(self, name: str) -> Source | None:
        """Return the source called `name`, also where it is not saved any more; None for none."""
        return next((part for part in self.split() if part.name == name), None)

    def preflight(self) -> Iterator[Message]:
        """Yield what is doubtful; raise `PreflightError` for what makes saving impossible."""
        return iter(())

    def is_absent(self, view: View) -> bool:
        """Say whether the project has nothing of the kind, so that there is nothing to save."""
        return False

    def named_files(self, snapshots: Mapping[str, Snapshot]) -> Iterable[Any]:
        """Return the files that rows expect here, in any form that can be kept in memory.

        Asked while the snapshots are open, of a source that reads later.
        """
        return ()

    @abstractmethod
    def artifacts(self, view: View) -> Iterator[Artifact]:
        """Yield the artifacts; each is read to its end before the next is asked for."""

    def open_snapshot(self, *, work_dir: Path, without_rows: frozenset[str]) -> Snapshot:
        """Open one consistent view of the database `alias`, without the rows of these tables."""
        raise NotImplementedError(f"{self.name} saves no database")

    def condition(self, *, held: Collection[str] = ()) -> Condition:
        """Return how the database `alias` is; `held` are tables that had rows."""
        return "unknown"

    def stands_for(self, alias: str) -> bool:
        """Say whether the database `alias` of ``DATABASES`` is the one that is saved here."""
        return alias == self.alias

    def server_locks(self) -> list[ServerLock]:
        """Return what keeps the runs of other hosts away, on each server that they share."""
        return []

    def check_content(self, artifact: str, openers: Openers, facts: Facts, work: Path) -> None:
        """Read a stored artifact to its end; raises DamagedError for what is wrong with it.

        `work` is a private folder for what does not fit into memory.
        """
        with contextlib.closing(openers[artifact]()) as reader:
            while reader.read(CHUNK):
                pass

    def targets(
        self, restore_id: str, contents: Contents, where: Where
    ) -> Sequence[Restorable] | None:
        """Return where it goes back to; None where this source cannot be restored.

        There is no target where there is neither anything saved nor a place for it.
        Raises RestoreError for a backup that does not fit what is here.
        """
        return None

    def drill_target(self, drill_id: str, contents: Contents, folder: Path) -> Restorable | None:
        """Return where a drill restores it to; None where that cannot be rehearsed.

        `folder` is empty, for this source alone, and removed afterwards.
        """
        return None

    def stored_files(self, openers: Openers) -> Iterator[tuple[bytes, str]]:
        """Yield path and SHA-256 of each file that a restore writes; none for what has no files."""
        return iter(())

    def restored_target(self, state: dict[str, Any], *, elsewhere: bool) -> Target:
        """Return the target that another process kept in its journal.

        Raises StateError where `state` names other places than follow from the settings (what was
        restored `elsewhere` lies where the operator said), and RestoreError where its place is
        not in the settings any more.
        """
        raise StateError(
            _("The journal has a restore of %(name)s, which cannot be restored."), name=self.name
        )

    def path_elsewhere(self, where: Where) -> Path | None:
        """Return the file or folder of this machine that a restore to `where` would make."""
        return None

    def describe(self, facts: Mapping[str, Facts]) -> Message | None:
        """Say in a few words how much a backup holds of it; `facts` are by artifact."""
        return None

    def origin(self) -> Mapping[str, str]:
        """Return what tells this data from that of another project: its ``name`` and ``place``.

        Empty where nothing does; never raises. A source notes it in its backups, as the fact
        ``origin`` of an artifact; before a restore the names are compared.
        """
        return {}

    def place(self) -> Mapping[str, Any]:
        """Return where its data lies, as plain values for the recovery sheet."""
        return {"kind": self.name}


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
    `restored_target(state)` of the source makes the same target again. It holds the
    ``restore_id``. Every method may be called again after a crash at any point. What was swapped
    `for_good` cannot be undone, so it is swapped last. What `merges` writes into the live data of
    a database: nothing is kept beside, nor in the journal, and the safety backup is that of the
    database. `alias` is the database of ``DATABASES`` that is restored. A restore adds
    ``had_live``: what `has_live` said just before the swap; earlier versions did not.
    """

    state: dict[str, Any]
    for_good = False
    merges = False

    @property
    def alias(self) -> str | None:
        return None

    @abstractmethod
    def plan(self) -> list[Message]:
        """Say what will happen and what only an administrator can do; raise what forbids it."""

    def claims(self) -> frozenset[str]:
        """Return the whole name of each thing that this target makes, renames or removes.

        No two targets of a restore may claim the same: see `require_distinct`.
        """
        return frozenset()

    @abstractmethod
    def has_live(self) -> bool:
        """Say whether there is live data that a restore would replace."""

    @abstractmethod
    def load(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        """Load the artifacts (by name) beside the live data."""

    @abstractmethod
    def check(self, facts: Facts) -> list[Message]:
        """Compare what was loaded with the manifest's facts; return every difference."""

    def remarks(self) -> list[Message]:
        """Return what `load` could not bring back as it was, though all content is there."""
        return []

    def side_settings(self) -> dict[str, Any] | None:
        """Return the ``DATABASES`` entry of what was loaded beside, None for no database."""
        return None

    def kept_at(self) -> str:
        """Return where the live data is kept once it is replaced; "" where it is not."""
        return ""

    def has_replaced(self) -> bool:
        """Say whether the swap replaced live data that is kept, so that `undo` brings it back.

        False where nothing was live: there `undo` would only take away what was restored. Where a
        journal of an earlier version does not tell, this default leaves what is live in its place.
        """
        return not self.for_good and bool(self.state.get("had_live"))

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


def require_distinct(targets: Iterable[Target]) -> None:
    """Raise RestoreError where two of `targets` would make or remove the same thing."""
    claimed: set[str] = set()
    for target in targets:
        if taken := claimed & target.claims():
            raise RestoreError(
                _("Two databases of this restore would both be restored by way of %(name)s."),
                hint=_("Restore them one after the other: --only database:ALIAS"),
                name=min(taken),
            )
        claimed |= target.claims()
