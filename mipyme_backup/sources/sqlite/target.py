"""Where an SQLite database is restored to."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from mipyme_backup.errors import PreflightError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import CHUNK, Reader
from mipyme_backup.sources.base import Facts, Target, artifact_name, require_own
from mipyme_backup.sources.sqlite import files
from mipyme_backup.sources.sqlite.exchange import Exchange

BUSY_TIMEOUT = 30.0


class SQLiteTarget(Target):
    """A file beside the live one, whose content is later put into the live one.

    ``<live>.restoring_<id>`` is what was loaded, or what an undo took out again;
    ``<live>.before_<id>`` is what was replaced.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self._live = Path(state["live"])
        self._side = files.beside(self._live, f".restoring_{state['restore_id']}")
        self._before = Path(state["before"])

    @classmethod
    def prepare(
        cls,
        *,
        alias: str,
        settings_dict: Mapping[str, Any],
        restore_id: str,
        to_database: str | None = None,
        raw_size: int = 0,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> SQLiteTarget:
        """Return a target for the database of `alias`, or for a new file `to_database`.

        `raw_size` is the size of the artifact in bytes, for the plan; `busy_timeout` is how many
        seconds the cut-over waits for others to let go of the live file.
        """
        if to_database is None and files.in_memory(settings_dict["NAME"]):
            raise RestoreError(
                _("the database %(alias)s lives in memory: there is nothing to restore into"),
                hint=_("Set NAME to a file, or name one with --to-database."),
                alias=alias,
            )
        live = Path(to_database).resolve() if to_database else files.live_path(settings_dict)
        return cls(
            {
                "type": "sqlite",
                "alias": alias,
                "engine": settings_dict["ENGINE"],
                "time_zone": settings_dict.get("TIME_ZONE"),
                "live": str(live),
                "before": str(files.beside(live, f".before_{restore_id}")),
                "new_file": to_database is not None,
                "restore_id": restore_id,
                "raw_size": raw_size,
                "busy_timeout": busy_timeout,
                "wal": False,
            }
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SQLiteTarget:
        """Return the target that `state` came from."""
        return cls(state)

    @classmethod
    def check_state(
        cls, state: dict[str, Any], settings_dict: Mapping[str, Any], *, elsewhere: bool
    ) -> None:
        """Raise StateError where a journal's `state` names other files than ours."""
        own = cls.prepare(
            alias=state["alias"],
            settings_dict=settings_dict,
            restore_id=state["restore_id"],
            to_database=str(state["live"]) if elsewhere else None,
            raw_size=int(state["raw_size"]),
            busy_timeout=float(state["busy_timeout"]),
        )
        require_own(state, {**own.state, "wal": bool(state["wal"])})

    def plan(self) -> list[Message]:
        folder = self._live.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PreflightError(
                _("the folder %(folder)s of the database %(alias)s cannot be written"),
                hint=_("SQLite's journals need it: create it, or give this user the right."),
                folder=folder,
                alias=self.state["alias"],
            )
        if self._live.exists() and not self._live.is_file():
            raise RestoreError(
                _("%(path)s is no regular file"),
                hint=_("Check NAME in DATABASES, or name another file."),
                path=self._live,
            )
        if self.state["new_file"] and self._live.exists() and not self._before.exists():
            raise RestoreError(
                _("%(path)s exists already"),
                hint=_("Name a file that does not exist."),
                path=self._live,
            )
        needed = self._check_space()
        text = _(
            "%(alias)s: load into %(side)s, then put its content into %(live)s, which holds nothing"
            " now; takes up to %(needed)d bytes"
        )
        if self.has_live():
            text = _(
                "%(alias)s: load into %(side)s, then put its content into %(live)s;"
                " the old content stays in %(before)s; takes up to %(needed)d bytes"
            )
        params = {
            "alias": self.state["alias"],
            "side": self._side,
            "live": self._live,
            "before": self._before,
            "needed": needed,
        }
        return [Message(text, params)]

    @property
    def alias(self) -> str:
        return str(self.state["alias"])

    def kept_at(self) -> str:
        return str(self.state["before"])

    def claims(self) -> frozenset[str]:
        return frozenset(map(str, (self._live, self._side, self._before)))

    def has_live(self) -> bool:
        return _holds_tables(self._live)

    def has_replaced(self) -> bool:
        return _holds_tables(self._before)

    def load(self, artifacts: Mapping[str, Callable[[], Reader]]) -> None:
        name = artifact_name(self.state["alias"], "sqlite3")
        if name not in artifacts:
            raise RestoreError(
                _("the backup holds no %(name)s"),
                hint=_("Choose a backup that holds this database."),
                name=name,
            )
        self.discard()
        try:
            self._write_side(artifacts[name])
            self._settle()
        except sqlite3.Error as error:
            self.discard()
            raise files.explained(error, self._side, RestoreError) from error
        except OSError as error:
            self.discard()
            raise RestoreError(
                _("%(path)s cannot be written: %(reason)s"),
                hint=_("Check the permissions and the free space of %(folder)s."),
                path=self._side,
                folder=self._side.parent,
                reason=error.strerror,
            ) from error
        except BaseException:
            self.discard()
            raise

    def check(self, facts: Facts) -> list[Message]:
        self.state["wal"] = facts.get("journal_mode") == "wal"
        try:
            with closing(files.connect_as_django(self.state["engine"], self._side)) as side:
                if problem := files.damage(side, "integrity_check"):
                    return [Message(_("SQLite finds damage: %(problem)s"), {"problem": problem})]
                return [*_violations(side, facts), *_differences(side, facts)]
        except sqlite3.Error as error:
            raise files.explained(error, self._side, RestoreError) from error

    def side_settings(self) -> dict[str, Any]:
        return files.django_entry(self.state["engine"], str(self._side), self.state["time_zone"])

    def swap_has_begun(self) -> bool:
        return self._swapping().is_in()

    def swap(self) -> float:
        return self._swapping().run()

    def discard(self) -> None:
        self._swapping().take_back()
        files.remove(self._side)
        for path in (self._side, self._before):
            files.remove(files.sidecar(path, ".tmp"))

    def undo(self) -> None:
        """Put the replaced content back; what was restored, and written since, is kept beside."""
        self._undoing().run()

    def remove_replaced(self) -> None:
        self._swapping().remove_traces()
        self._undoing().remove_traces()
        files.remove(self._before)
        self.discard()

    def _swapping(self) -> Exchange:
        return self._exchange(self._side, self._before, "restored", wal=self.state["wal"])

    def _undoing(self) -> Exchange:
        return self._exchange(self._before, self._side, "undone")

    def _exchange(
        self, incoming: Path, outgoing: Path, word: str, *, wal: bool = False
    ) -> Exchange:
        return Exchange(
            live=self._live,
            incoming=incoming,
            outgoing=outgoing,
            marker=f"mipyme_backup_{word}_{self.state['restore_id']}",
            busy_timeout=self.state["busy_timeout"],
            wal=wal,
        )

    def _check_space(self) -> int:
        """Return the bytes that the restore takes at its height; raise where they are missing.

        The side file, the old content, a journal of either the old pages or the new ones, and
        what the live file grows by.
        """
        new = self.state["raw_size"]
        old = self._live.stat().st_size if self._live.exists() else 0
        needed = new if not old else new + old + max(new, old) + max(new - old, 0)
        free = shutil.disk_usage(self._live.parent).free
        if free < needed:
            raise PreflightError(
                _("%(folder)s has %(free)d bytes free, the restore needs %(needed)d"),
                hint=_("Free space there, or restore into a file elsewhere with --to-database."),
                folder=self._live.parent,
                free=free,
                needed=needed,
            )
        return int(needed)

    def _write_side(self, opened: Callable[[], Reader]) -> None:
        files.create_private(self._side)
        reader = opened()
        try:
            with self._side.open("wb") as side:
                while data := reader.read(CHUNK):
                    side.write(data)
                side.flush()
                os.fsync(side.fileno())
        finally:
            reader.close()
        files.sync(self._side.parent)

    def _settle(self) -> None:
        """Leave one file without journals, whatever mode the artifact was in."""
        with closing(files.connect(self._side, timeout=0)) as side:
            side.execute("PRAGMA journal_mode = DELETE")
            files.tables(side)


def _holds_tables(path: Path) -> bool:
    """Say whether a file has any table; yes, where it is there and does not tell."""
    if not path.exists() or not path.stat().st_size:
        return False
    try:
        with closing(files.connect(path, timeout=BUSY_TIMEOUT)) as connection:
            return bool(files.tables(connection))
    except sqlite3.Error:
        return True


def _violations(side: sqlite3.Connection, facts: Facts) -> list[Message]:
    """Foreign keys that lead nowhere count as a difference only beyond those that were saved."""
    saved = facts.get("foreign_key_violations")
    found = files.foreign_key_violations(side)
    if saved is None or found is None or found <= saved:
        return []
    return [
        Message(
            _("%(found)d rows refer to rows that do not exist, when saved it was %(saved)d"),
            {"found": found, "saved": saved},
        )
    ]


def _differences(side: sqlite3.Connection, facts: Facts) -> list[Message]:
    saved: Mapping[str, int] = facts.get("tables", {})
    found = files.row_counts(side)
    without_rows = set(facts.get("without_rows", ()))
    differences = []
    for name in sorted(saved.keys() | found.keys()):
        if name not in found:
            differences.append(Message(_("table %(table)s is missing"), {"table": name}))
        elif name not in saved:
            text = _("table %(table)s was not in the database that was saved")
            differences.append(Message(text, {"table": name}))
        elif found[name] != saved[name] and name not in without_rows:
            text = _("table %(table)s has %(found)d rows, %(saved)d were saved")
            params = {"table": name, "found": found[name], "saved": saved[name]}
            differences.append(Message(text, params))
    return differences
