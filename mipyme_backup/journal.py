"""The journal of a restore: what a later process needs to finish it, roll it back, or undo it.

One record for the database and the media together, because they are swapped together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, TypedDict, cast, get_args

from mipyme_backup.errors import RestoreError, StateError
from mipyme_backup.messages import _
from mipyme_backup.state import NOT_WRITTEN, State

Phase = Literal["loading", "swapping", "done", "undoing", "undone"]
FOLDER = "restores"
RESTORE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Restore(TypedDict):
    """One restore. `targets` are the states of its targets, `finished_at` an ISO time in UTC.

    `elsewhere` says that it replaces nothing; `merges` are the databases into which fixtures are
    merged, last of all.
    """

    id: str
    backup: str
    phase: Phase
    elsewhere: bool
    merges: list[str]
    targets: list[dict[str, Any]]
    safety_backup: str | None
    finished_at: str | None


class Entry(_Restore, total=False):
    """A restore, or a `drill`: one that is never swapped in.

    `stays` are the places in `targets` of those that an undo leaves as they are; where an earlier
    version began the undo, nothing tells.
    """

    drill: bool
    stays: list[int]


class Journal:
    """The restores that `state` remembers: one record for each, named by the restore's id.

    What it says is checked before it counts, here for its form, and by the targets for the names
    in it, which must follow from the settings and the restore's id.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    @staticmethod
    def loading(drill_id: str, backup_id: str, targets: list[dict[str, Any]]) -> Entry:
        """Return the entry of a drill: whoever finds it has only to remove its targets."""
        return {
            "id": drill_id,
            "backup": backup_id,
            "phase": "loading",
            "elsewhere": True,
            "merges": [],
            "targets": targets,
            "safety_backup": None,
            "finished_at": None,
            "drill": True,
        }

    def write(self, entry: Entry) -> None:
        """Keep `entry` on disk, synced, in place of the one with the same id.

        Raises RestoreError, and the one before stays, when that cannot be done.
        """
        try:
            self._state.write(_name(entry["id"]), entry)
        except OSError as error:
            raise RestoreError(
                _("The restore journal %(file)s cannot be written: %(reason)s"),
                hint=_("STATE_DIR needs some room, and must be ours to write."),
                file=self._state.folder / _name(entry["id"]),
                reason=error.strerror or error,
            ) from error

    def remove(self, entry: Entry) -> None:
        """Forget the restore."""
        self._state.remove(_name(entry["id"]))

    def entries(self) -> list[Entry]:
        """Return every restore that counts, oldest first; see `ignored` for the others."""
        return [entry for entry in self._read() if not isinstance(entry, StateError)]

    def ignored(self) -> list[StateError]:
        """Return what is wrong with each record that does not count."""
        return [entry for entry in self._read() if isinstance(entry, StateError)]

    def not_ours(self, entry: Entry) -> StateError:
        """Return the error for an entry whose targets nobody here has written."""
        return self.attributed(self._state.bad(_name(entry["id"]), NOT_WRITTEN), entry)

    @staticmethod
    def attributed(error: StateError, entry: Entry) -> StateError:
        """Return `error` as one of this entry's record."""
        error.record, error.finished = _name(entry["id"]), entry["finished_at"] is not None
        return error

    def unfinished(self) -> list[Entry]:
        """Return the restores that a process left in the middle."""
        return [entry for entry in self.entries() if entry["finished_at"] is None]

    def newest_done(self) -> Entry | None:
        """Return the last restore that was finished, None where there is none to undo."""
        done = [entry for entry in self.entries() if entry["phase"] == "done"]
        return done[-1] if done else None

    def _read(self) -> Iterator[Entry | StateError]:
        try:
            names = self._state.names(FOLDER)
        except StateError as error:
            yield error
            return
        for name in names:
            try:
                entry = self._state.recall(name, _checked)
                if entry is not None and _name(entry["id"]) == name:
                    yield entry
                elif entry is not None:
                    yield self._state.bad(name, _("it is the record of another restore"))
            except StateError as error:
                yield error


def _name(restore_id: str) -> str:
    return f"{FOLDER}/{restore_id}.json"


def _checked(record: Any) -> Entry:
    """Return the entry; raises ValueError, TypeError or KeyError where the record is none."""
    entry: dict[str, Any] = {key: record[key] for key in Entry.__required_keys__}
    entry["drill"] = record.get("drill", False)
    if "stays" in record:
        entry["stays"] = record["stays"]
    states, finished = entry["targets"], entry["finished_at"]
    safety = "" if entry["safety_backup"] is None else entry["safety_backup"]
    _require(all(isinstance(entry[key], list) for key in ("merges", "targets")))
    _require(all(isinstance(entry[key], bool) for key in ("elsewhere", "drill")))
    texts = [entry["id"], entry["backup"], safety, *entry["merges"]]
    _require(all(isinstance(text, str) for text in texts))
    _require(RESTORE_ID.fullmatch(entry["id"]) is not None)
    _require(entry["phase"] in get_args(Phase))
    _require((finished is not None) == (entry["phase"] in {"done", "undone"}))
    _require(finished is None or datetime.fromisoformat(finished).tzinfo is not None)
    # What replaces nothing is forgotten once it is in its place, and a drill never gets there.
    _require(not entry["elsewhere"] or entry["phase"] in {"loading", "swapping"})
    _require(all(isinstance(state, dict) for state in states))
    stays = entry.get("stays", [])
    _require(isinstance(stays, list))
    _require(all(type(number) is int and 0 <= number < len(states) for number in stays))
    _require(all(state["restore_id"] == entry["id"] for state in states))
    return cast("Entry", entry)


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError("no entry")
