"""Each verb of a destination, called from afar, with its outcome checked from close by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mipyme_backup.destinations import Destination, Entry
from mipyme_backup.testing import read_whole

OLD = "backup/old"
LARGE = "backup/large"
DOOMED = "other/doomed"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A destination with objects in it: `far` is reached through a proxy, `near` is not.

    `small` and `large` are files to put; the latter goes in several parts where there are any.
    """

    far: Destination
    near: Destination
    small: Path
    large: Path

    def make_ready(self) -> None:
        """Bring back what the verbs read, and take away what they wrote."""
        wanted = {OLD: self.small, LARGE: self.large, DOOMED: self.small}
        held = {entry.name: entry.size for entry in self.near.entries()}
        for name in held.keys() - wanted.keys():
            self.near.delete(name)
        for name, file in wanted.items():
            if held.get(name) != file.stat().st_size:
                self.near.put(name, file)

    def assert_unharmed(self) -> None:
        """What was stored is whole, and so is what was to be stored or deleted, or it is gone."""
        held = {entry.name for entry in self.far.entries()}
        assert {OLD, LARGE} <= held
        assert held <= {OLD, LARGE, DOOMED, "backup/new", "backup/new large"}
        for name in held:
            file = self.large if name.endswith("large") else self.small
            assert holds(self.near, name, file), name


def holds(destination: Destination, name: str, file: Path) -> bool:
    return read_whole(destination.open(name)) == file.read_bytes()


def check(place: Place) -> None:
    place.far.check()


def put_small(place: Place) -> None:
    place.far.put("backup/new", place.small)
    assert holds(place.near, "backup/new", place.small)


def put_large(place: Place) -> None:
    place.far.put("backup/new large", place.large)
    assert holds(place.near, "backup/new large", place.large)


def vouch(place: Place) -> None:
    place.far.vouches_for(LARGE, place.large)  # or it says that it cannot tell


def read(place: Place) -> None:
    assert holds(place.far, LARGE, place.large)


def size(place: Place) -> None:
    assert place.far.size(OLD) == place.small.stat().st_size


def entries(place: Place) -> None:
    small, large = (file.stat().st_size for file in (place.small, place.large))
    assert list(place.far.entries("backup/")) == [
        Entry(name=LARGE, size=large),
        Entry(name=OLD, size=small),
    ]


def delete(place: Place) -> None:
    place.far.delete(DOOMED)
    assert place.near.size(DOOMED) is None


def sweep(place: Place) -> None:
    place.far.sweep("backup/")


VERBS: dict[str, Callable[[Place], None]] = {
    verb.__name__: verb
    for verb in (
        check,
        put_small,
        put_large,
        vouch,
        read,
        size,
        entries,
        delete,
        sweep,
    )
}
