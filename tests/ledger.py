"""A source as a project writes one of its own: a file of lines that some other program keeps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mipyme_backup.errors import DamagedError, RestoreError
from mipyme_backup.messages import Message
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import (
    Artifact,
    Contents,
    Facts,
    Openers,
    Restorable,
    Source,
    Target,
    View,
    Where,
    require_own,
)
from mipyme_backup.streams.digest import drain
from mipyme_backup.testing import BytesReader


class LedgerSource(Source):
    """Saves the file `path`: its lines, each of which begins with ``entry ``."""

    name = "ledger"
    restore_order = -1

    def __init__(self, path: str, suffix: str = "txt") -> None:
        self._path = Path(path)
        self._suffix = suffix

    @property
    def artifact(self) -> str:
        return f"{self.name}.{self._suffix}"

    def artifacts(self, view: View) -> Iterator[Artifact]:
        lines = self._path.read_text().splitlines()
        yield Artifact(
            name=self.artifact,
            open=lambda: self._path.open("rb", buffering=0),
            check=_check,
            facts=lambda: {"lines": len(lines)},
        )

    def check_content(self, artifact: str, openers: Openers, facts: Facts, work: Path) -> None:
        _check(openers[artifact]())

    def targets(self, restore_id: str, contents: Contents, where: Where) -> Sequence[Restorable]:
        return [self._restorable(restore_id, contents, self._path)]

    def drill_target(self, drill_id: str, contents: Contents, folder: Path) -> Restorable:
        return self._restorable(drill_id, contents, folder / "ledger")

    def restored_target(self, state: dict[str, Any], *, elsewhere: bool) -> Target:
        if not elsewhere:
            require_own(state, LedgerTarget.named(self._path, state["restore_id"]))
        return LedgerTarget(state)

    def describe(self, facts: Mapping[str, Facts]) -> Message:
        return Message(
            "%(lines)d lines", {"lines": sum(saved["lines"] for saved in facts.values())}
        )

    def _restorable(self, restore_id: str, contents: Contents, path: Path) -> Restorable:
        return Restorable(
            target=LedgerTarget(LedgerTarget.named(path, restore_id)),
            artifacts=[self.artifact],
            facts=contents[self.artifact].facts,
        )


class LedgerTarget(Target):
    """Puts the file in the place of the live one, which is kept beside."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self._live, self._side = Path(state["live"]), Path(state["side"])
        self._before = Path(state["replaced"])

    @staticmethod
    def named(path: Path, restore_id: str) -> dict[str, Any]:
        return {
            "restore_id": restore_id,
            "live": str(path),
            "side": f"{path}.restoring_{restore_id}",
            "replaced": f"{path}.before_{restore_id}",
        }

    def plan(self) -> list[Message]:
        return [Message("The ledger is put at %(path)s.", {"path": self._live})]

    def has_live(self) -> bool:
        return self._live.exists()

    def kept_at(self) -> str:
        return str(self._before)

    def load(self, artifacts: Openers) -> None:
        (opener,) = artifacts.values()
        with contextlib.closing(opener()) as reader:
            self._side.write_bytes(_all_of(reader))

    def check(self, facts: Facts) -> list[Message]:
        found = len(self._side.read_text().splitlines())
        if found == facts["lines"]:
            return []
        return [Message("the ledger has %(found)d lines", {"found": found})]

    def swap_has_begun(self) -> bool:
        return self._before.exists() or not self._side.exists()

    def swap(self) -> float:
        if self._side.exists():
            if self._live.exists() and not self._before.exists():
                self._live.rename(self._before)
            self._side.rename(self._live)
        return 0.0

    def discard(self) -> None:
        self._side.unlink(missing_ok=True)

    def undo(self) -> None:
        if not self._before.exists():
            raise RestoreError("nothing was replaced")
        os.replace(self._before, self._live)

    def remove_replaced(self) -> None:
        self._before.unlink(missing_ok=True)


def _all_of(reader: Reader) -> bytes:
    return b"".join(iter(lambda: reader.read(1000), b""))


def _check(reader: Reader) -> None:
    with contextlib.closing(reader):
        for line in _all_of(reader).splitlines():
            if not line.startswith(b"entry "):
                raise DamagedError("a line is no entry")


class SavedOnlySource(Source):
    """Saves a text, and says nothing of how it would be restored."""

    name = "saved_only"

    def artifacts(self, view: View) -> Iterator[Artifact]:
        yield Artifact(name=f"{self.name}.txt", open=lambda: BytesReader(b"text"), check=drain)
