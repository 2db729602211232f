"""What lies at a destination: what may be ours by its name, and a count of what cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mipyme_backup.destinations.names import MOST_STEPS

FEW = 3
"""So many names of what is foreign are kept; the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object of a destination: `name` is relative and ``/``-separated, `size` in bytes."""

    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What is no object of ours: so many at the least, and the names of the first few."""

    count: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The objects of ours, in order of name; `foreign` is what else was met on the way to them."""

    entries: tuple[Entry, ...] = ()
    foreign: Foreign = field(default_factory=Foreign)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where objects of ours can be: no other folder is gone into, however much lies there.

    `files` are names at the root, `folders` a pattern of those that hold objects, `above` the
    folders at the root that hold such ones, and `stored` a pattern of the files in them. The name
    of each begins with one of `prefixes`, of which none is the beginning of another.
    """

    files: frozenset[str]
    folders: re.Pattern[str]
    above: frozenset[str]
    stored: re.Pattern[str]
    prefixes: tuple[str, ...]

    def leads(self, folder: str) -> bool:
        """Say whether objects of ours may lie below the folder."""
        return folder in self.above or self.folders.fullmatch(folder) is not None

    def holds(self, name: str) -> bool:
        """Say whether an object of ours may be called so."""
        folder, _slash, file = name.rpartition("/")
        if not folder:
            return file in self.files
        return (
            self.folders.fullmatch(folder) is not None and self.stored.fullmatch(file) is not None
        )

    def sorted_out(self, met: Iterable[Entry]) -> Listing:
        """Return what is ours of all that was met; a name that ends in ``/`` is no object's.

        Takes memory for what is ours alone.
        """
        ours: dict[str, Entry] = {}
        count = 0
        names: list[str] = []
        for entry in met:
            if self.holds(entry.name):
                ours[entry.name] = entry
            else:
                count += 1
                if len(names) < FEW:
                    names.append(entry.name)
        return Listing(
            entries=tuple(sorted(ours.values(), key=lambda entry: entry.name)),
            foreign=Foreign(count=count, names=tuple(names)),
        )


def leads_to(prefix: str, folder: str) -> bool:
    """Say whether objects may lie below `folder` whose name begins with `prefix`."""
    return folder.count("/") < MOST_STEPS - 1 and (
        f"{folder}/".startswith(prefix) or prefix.startswith(f"{folder}/")
    )
