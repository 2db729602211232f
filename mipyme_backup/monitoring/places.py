"""Where the copies are: the destinations as the last look saw them, and what each holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mipyme_backup.catalog.reading import RunDetails
from mipyme_backup.monitoring.last_look import LastLook


@dataclass(frozen=True, kw_only=True)
class Place:
    """A destination as the last look saw it; `seen` is False where it was not looked at.

    `free` and `total` are in bytes, None where they mean nothing.
    """

    name: str
    configured: bool
    seen: bool = False
    where: str = ""
    remote: bool = False
    reachable: bool = False
    writable: bool | None = None
    error: str = ""
    free: int | None = None
    total: int | None = None
    backups: int | None = None
    low: bool = False

    @property
    def share_free(self) -> float | None:
        return self.free / self.total if self.free is not None and self.total else None


@dataclass(frozen=True, kw_only=True)
class CopyCell:
    """The copy of a backup on a destination; `status` is empty where there never was one."""

    destination: str
    status: str
    error: str


@dataclass(frozen=True, kw_only=True)
class CopiesRow:
    """One of the newest backups, with a cell for each of the places."""

    run: RunDetails
    cells: Sequence[CopyCell]


def copies_of(destinations: Sequence[str], newest: Sequence[RunDetails]) -> list[CopiesRow]:
    """Return a row for each of the newest backups, with those destinations first that are set."""
    names = dict.fromkeys([*destinations, *(name for run in newest for name in run.copies)])
    return [
        CopiesRow(run=run, cells=[_cell(name, run.copies.get(name)) for name in names])
        for run in newest
    ]


def places_of(
    destinations: Sequence[str], look: LastLook, copies: Iterable[CopiesRow]
) -> list[Place]:
    """Return the destinations that are set, then those that only hold copies."""
    seen: Mapping[str, Mapping[str, Any]] = look.facts.get("destinations", {})
    held = [cell.destination for row in copies for cell in row.cells]
    names = dict.fromkeys([*destinations, *held])
    found = {finding.id for finding in look.findings}
    return [
        _place(name, name in destinations, seen.get(name), f"disk_low:{name}" in found)
        for name in names
    ]


def _cell(destination: str, copy: tuple[str, str] | None) -> CopyCell:
    status, error = copy or ("", "")
    return CopyCell(destination=destination, status=status, error=error)


def _place(name: str, configured: bool, seen: Mapping[str, Any] | None, low: bool) -> Place:
    if seen is None:
        return Place(name=name, configured=configured)
    return Place(
        name=name,
        configured=configured,
        seen=True,
        where=seen["place"],
        remote=seen["remote"],
        reachable=seen["reachable"],
        writable=seen["writable"],
        error=seen["error"] or "",
        free=seen["free_bytes"],
        total=seen["total_bytes"],
        backups=seen["backups"] if seen["reachable"] else None,
        low=low,
    )
