"""Whatever happens to a stored file is found, and refused before live data is touched.

One stored file is changed at a time (two, where they are exchanged), and put back afterwards.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import services
from tests.e2e.inspector import Content, Inspector, Refused, inspecting
from tests.e2e.project import Project, postgresql_project, sqlite_project

SAMPLE = 40
FULL = 1000
RESTORED = 20
"""One trial in so many is restored as well: that takes a second."""
REFUSALS = {("damaged", 6), ("no_backup", 4), ("key_missing", 4)}
SMALL_VOLUMES = 64 * 1024


@dataclass(kw_only=True)
class Store:
    """A project with two backups, and live data that is in neither of them."""

    project: Project
    inspector: Inspector
    names: dict[str, str]
    live: Content

    def files(self) -> dict[str, list[Path]]:
        """Return the stored files by what they are: manifests, each artifact, packs."""
        groups: dict[str, list[Path]] = {}
        for path in sorted(self.project.backups.rglob("*")):
            if path.is_file() and ".state" not in path.parts and path.name != "recover.py":
                kind = "pack" if "pool" in path.parts else path.name.partition(".")[0]
                groups.setdefault(kind, []).append(path)
        return groups


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("corruption")
    if request.param == "sqlite":
        with sqlite_project(folder, VOLUME_SIZE=SMALL_VOLUMES) as project:
            with inspecting(project) as inspector:
                yield _filled(project, inspector)
        return
    with services.postgresql() as server:
        with postgresql_project(folder, server, VOLUME_SIZE=SMALL_VOLUMES) as project:
            with inspecting(project) as inspector:
                yield _filled(project, inspector)


def test_damage_is_found_and_refused(
    store: Store, torture_random: random.Random, tell: Callable[[str], None]
) -> None:
    assert_all_found(store, SAMPLE, torture_random, tell)


@pytest.mark.torture
def test_every_damage_is_found_and_refused(
    store: Store,
    torture_random: random.Random,
    tell: Callable[[str], None],
    scaled: Callable[[int, int], int],
) -> None:
    assert_all_found(store, scaled(FULL, SAMPLE), torture_random, tell)


def test_untouched_backups_are_good_and_restored(store: Store) -> None:
    assert store.inspector.verify(list(store.names.values())) == []
    for identifier in store.names.values():
        store.inspector.restore(identifier, plan=True)


def assert_all_found(
    store: Store, trials: int, chance: random.Random, tell: Callable[[str], None]
) -> None:
    counts: Counter[str] = Counter()
    problems: list[str] = []
    while counts.total() < trials:
        damage = Damage(store, chance)
        try:
            what = damage.inflict()
            if what is None:
                continue
            counts[what] += 1
            label = f"{what} of {', '.join(path.name for path in damage.paths)}"
            found = _problems(store, damage, chance, restored=counts.total() % RESTORED == 1)
            problems += [f"{label}: {problem}" for problem in found]
        finally:
            damage.mend()
    tell(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    assert not problems, "\n".join(problems)
    assert store.inspector.verify(list(store.names.values())) == []


class Damage:
    """One accident to the stored files; `paths` are those that it touched."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self._chance = chance
        self._groups = store.files()
        self._before: dict[Path, bytes] = {}

    @property
    def paths(self) -> list[Path]:
        return list(self._before)

    def inflict(self) -> str | None:
        """Do it; return its name, or None where nothing came to be different."""
        kinds: dict[str, Callable[[Path], None]] = {
            "flip": self._flip,
            "truncation": self._truncate,
            "extension": self._extend,
            "swap": self._swap,
            "deletion": self._delete,
            "zeros": self._zeros,
        }
        what = self._chance.choice(sorted(kinds))
        kinds[what](self._pick())
        return what if any(_content(p) != data for p, data in self._before.items()) else None

    def mend(self) -> None:
        for path, data in self._before.items():
            path.unlink(missing_ok=True)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)

    def original(self, path: Path) -> bytes:
        return self._before[path] if path in self._before else path.read_bytes()

    def _pick(self) -> Path:
        """Choose what kind of file first: else nearly all would be volumes of one artifact."""
        path = self._chance.choice(self._groups[self._chance.choice(sorted(self._groups))])
        self._before[path] = path.read_bytes()
        return path

    def _flip(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        for _flip in range(self._chance.choice([1, 1, 1, 8])):
            data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
        path.write_bytes(data)

    def _truncate(self, path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: self._chance.choice([0, len(data) - 1, len(data) // 2])])

    def _extend(self, path: Path) -> None:
        more = self._chance.choice([b"\0", b"\n", b" ", self._chance.randbytes(600)])
        path.write_bytes(path.read_bytes() + more)

    def _swap(self, path: Path) -> None:
        other = self._pick()
        ours, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(ours)

    def _delete(self, path: Path) -> None:
        if self._chance.random() < 0.2:  # a whole folder, as a hand slips
            for sibling in path.parent.iterdir():
                self._before[sibling] = sibling.read_bytes()
            shutil.rmtree(path.parent)
        else:
            path.unlink()

    def _zeros(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        start = self._chance.randrange(len(data))
        end = min(len(data), start + self._chance.choice([1, 512, 4096]))
        data[start:end] = bytes(end - start)
        path.write_bytes(data)


def _problems(
    store: Store, damage: Damage, chance: random.Random, *, restored: bool
) -> Iterator[str]:
    with_manifest = [path for path in damage.paths if path.name == "manifest.json"]
    for identifier in {i for path in damage.paths for i in _needing(store, damage, path)}:
        outcome = _verified(store, identifier)
        if outcome is None:
            yield f"verify finds nothing in {identifier}"
        elif outcome not in REFUSALS:
            yield f"verify ends with {outcome}"
    for path in with_manifest:
        outcome = _refused(store, _needing(store, damage, path)[0], plan=True)
        if outcome not in REFUSALS:
            yield f"a plan ends with {outcome}"
    if restored:
        yield from _restore_problems(store, damage, chance)


def _restore_problems(store: Store, damage: Damage, chance: random.Random) -> Iterator[str]:
    path = chance.choice(damage.paths)
    only = ["fixtures"] if path.name.startswith("fixtures") else []
    for identifier in _needing(store, damage, path):
        outcome = _refused(store, identifier, only=only, safety_backup=False)
        if outcome not in REFUSALS:
            yield f"a restore of {identifier} ends with {outcome}"
    if store.inspector.content() != store.live:
        yield "a refused restore changed live data"
    beside = [*store.project.root.glob(".mipyme_backup_*")]
    beside += (store.project.root.parent / "data").glob("*.restoring_*")
    if beside:
        yield f"a refused restore left {beside}"


def _needing(store: Store, damage: Damage, path: Path) -> list[str]:
    """Return the ids of the backups that needed the file, by the manifests as they were."""
    folder, name = path.relative_to(store.project.backups).parts[:2]
    if folder != "pool":
        return [store.names[folder]]
    return [
        identifier
        for backup, identifier in store.names.items()
        if name.encode() in damage.original(store.project.backups / backup / "manifest.json")
    ]


def _verified(store: Store, identifier: str) -> tuple[str, int] | None:
    """Return the refusal, ("damaged", 6) for problems that were found, or None."""
    try:
        return ("damaged", 6) if store.inspector.verify([identifier]) else None
    except Refused as refused:
        return refused.code, refused.exit_status


def _refused(store: Store, identifier: str, **options: object) -> tuple[str, int] | None:
    try:
        store.inspector.restore(identifier, **options)
    except Refused as refused:
        return refused.code, refused.exit_status
    return None


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _filled(project: Project, inspector: Inspector) -> Store:
    project.populate()
    first = project.backup()
    project.execute("DELETE FROM zoo_transfer")
    (project.media / "newer").write_bytes(os.urandom(150_000))
    second = project.backup()
    # Nothing that is live may stand in for what is damaged.
    shutil.rmtree(project.media)
    project.media.mkdir()
    (project.media / "live").write_text("live")
    project.execute("INSERT INTO zoo_tag (slug) VALUES ('live')")
    names = {report["name"]: report["id"] for report in (first, second)}
    return Store(project=project, inspector=inspector, names=names, live=inspector.content())
