"""The journal of a restore: what a later process needs to finish it, roll it back, or undo it.

One file for the database and the media together, because they are swapped together. It is
written under a temporary name, synced and renamed, so that it is always whole.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.private_files import make_folder, sync_folder, write_file

Phase = Literal["loading", "swapping", "done", "undoing", "undone"]


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
    """A restore, or a `drill`: one that is never swapped in."""

    drill: bool


class Journal:
    """The restores below the folder `state_dir`: one file for each, named by the restore's id."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "restores"

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
        target = self._path(entry["id"])
        try:
            self._replace(target, json.dumps(entry, indent=1))
        except OSError as error:
            raise RestoreError(
                _("The restore journal %(file)s cannot be written: %(reason)s"),
                hint=_("STATE_DIR needs some room, and must be ours to write."),
                file=target,
                reason=error.strerror or error,
            ) from error

    def remove(self, entry: Entry) -> None:
        """Forget the restore."""
        self._path(entry["id"]).unlink(missing_ok=True)
        self._sync()

    def entries(self) -> Iterator[Entry]:
        """Yield every restore, oldest first; raises RestoreError for a file that is damaged."""
        if not self._folder.is_dir():
            return
        files = [*self._folder.glob("*.json")]
        for file in sorted(files, key=lambda path: path.stat().st_mtime_ns):
            try:
                entry = json.loads(file.read_text())
                if not isinstance(entry, dict) or not Entry.__required_keys__ <= entry.keys():
                    raise ValueError("not an entry")
                yield cast("Entry", entry)
            except ValueError as error:
                raise RestoreError(
                    _("The restore journal %(file)s is damaged."),
                    hint=_("Move it away once you have seen that the live data is whole."),
                    file=file,
                ) from error

    def unfinished(self) -> list[Entry]:
        """Return the restores that a process left in the middle."""
        return [entry for entry in self.entries() if entry["finished_at"] is None]

    def newest_done(self) -> Entry | None:
        """Return the last restore that was finished, None where there is none to undo."""
        done = [entry for entry in self.entries() if entry["phase"] == "done"]
        return done[-1] if done else None

    def _path(self, restore_id: str) -> Path:
        return self._folder / f"{restore_id}.json"

    def _replace(self, target: Path, text: str) -> None:
        make_folder(self._folder)
        temporary = target.with_suffix(".tmp")
        try:
            temporary.unlink(missing_ok=True)
            write_file(temporary, text.encode())
            temporary.rename(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._sync()

    def _sync(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            sync_folder(self._folder)
