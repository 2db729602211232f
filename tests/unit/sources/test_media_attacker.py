"""A user who exchanges folders for links while root saves or restores media gets nothing by it.

The attacker owns the media folder and its parent, and works in a process of its own. Where the
tests do not run as root, it is ourselves, and leaves alone the folders that settings name: we
follow links of our own.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mipyme_backup.errors import BackupError
from mipyme_backup.sources.media import MediaTarget
from tests.unit.sources.forks import NOBODY
from tests.unit.sources.link_swapper import PRIVATE, SECRET, Attack, fingerprint, make_vault
from tests.unit.sources.media_trees import Saved, save, write

ROOT = os.geteuid() == 0
FILES = ("a/one", "a/deep/two", "a/deep/er/three", "b/four", "b/five", "six", "seven")
LIVE = {f"live {name}".encode() for name in FILES}
RESTORED = {f"restored {name}".encode() for name in FILES}
TURNS = 6
RESTORE = "id"
AFTERWARDS = ("undo", "swap", "undo", "discard", "remove_replaced")


class Site:
    """A media folder in a parent that belongs to the attacker, and a vault that does not."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        folder.chmod(0o755)
        self.chance = chance
        self.parent = folder / "site"
        self.media = self.parent / "media"
        self.out = self.parent / "out"
        self.vault = make_vault(folder / "vault", FILES)
        self.untouched = fingerprint(self.vault)

    def renew(self) -> None:
        shutil.rmtree(self.parent, ignore_errors=True)
        for name in FILES:
            write(self.media, name, f"live {name}".encode())
        if ROOT:
            for path in (self.parent, *self.parent.rglob("*")):
                os.chown(path, NOBODY, NOBODY)

    def attack(self, *more: Path) -> contextlib.AbstractContextManager[None]:
        """Exchange what is in the media folder, and `more`, for links into the vault."""
        inside = [self.media / name for name in ("a", "a/deep", "a/deep/er", "b", "a/one", "six")]
        places = [self.media, self.out] if ROOT else []
        return Attack(
            names=[*inside, *places, *more, *more],
            watched=[self.parent, self.media, self.out],
            victims=[self.vault / name for name in ("root", "root/a", "other", "other/a", "empty")],
            seed=str(self.chance.random()),
            as_nobody=ROOT,
        ).under_way()

    def contents(self) -> set[bytes]:
        """Return the contents of all files in the site, wherever they were moved."""
        found = set()
        for folder, _folders, names in os.walk(self.parent):
            for path in (Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    found.add(path.read_bytes())
        return found

    def require_vault_untouched(self) -> None:
        assert fingerprint(self.vault) == self.untouched


@pytest.fixture
def site(workdir: Path, torture_random: random.Random) -> Site:
    return Site(workdir, torture_random)


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """A backup with other contents, to restore."""
    for name in FILES:
        write(tmp_path / "saved", name, f"restored {name}".encode())
    return save(tmp_path / "saved")


def save_under_attack(site: Site, turns: int) -> int:
    """Save the media some times in each turn; return how often there was a backup."""
    backups = 0
    for _turn in range(turns):
        site.renew()
        with site.attack():
            for _again in range(10):
                with contextlib.suppress(BackupError):
                    found = save(site.media)
                    backups += 1
                    assert not any(SECRET in data for data in (found.index, *found.packs.values()))
        site.require_vault_untouched()
    return backups


class Kind:
    """A way to restore, and what its folders are called."""

    def __init__(self, make: Callable[[Site], MediaTarget], own: Sequence[str]) -> None:
        self.make = make
        self.own = own

    def names(self, site: Site) -> list[Path]:
        folder = Path(self.make(site).state["replaced"]).parent
        names = [folder / f".mipyme_backup_{name}_{RESTORE}" for name in self.own]
        return names + [name / below for name in names for below in ("a", "a/deep")]


def beside(site: Site) -> MediaTarget:
    return MediaTarget.prepare(location=site.media, restore_id=RESTORE, inside=False)


def inside(site: Site) -> MediaTarget:
    return MediaTarget.prepare(location=site.media, restore_id=RESTORE, inside=True)


def elsewhere(site: Site) -> MediaTarget:
    return MediaTarget.prepare(location=site.media, restore_id=RESTORE, to_directory=site.out)


FOLDERS = ("restoring", "before", "late")
LISTS = tuple(f"{verb}_{stage}" for verb in ("swap", "undo") for stage in ("leaving", "entering"))
KINDS = {
    "beside": Kind(beside, FOLDERS),
    "inside": Kind(inside, (*FOLDERS, *LISTS)),
    "elsewhere": Kind(elsewhere, ("restoring", "moving", "moving")),
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


def restore_under_attack(site: Site, saved: Saved, kind: Kind, turns: int) -> int:
    """Restore, undo, and clean up; return how often the restore went through."""
    restored = 0
    for turn in range(turns):
        site.renew()
        names = kind.names(site) if turn % 2 else []
        with site.attack(*names):
            went_through = is_restored(site, saved, kind)
        site.require_vault_untouched()
        found = site.contents()
        assert found >= LIVE
        if went_through:
            restored += 1
            assert found >= RESTORED
        with site.attack(*names):
            for step in AFTERWARDS:
                with contextlib.suppress(BackupError):
                    getattr(kind.make(site), step)()
        site.require_vault_untouched()
    return restored


def is_restored(site: Site, saved: Saved, kind: Kind) -> bool:
    try:
        target = kind.make(site)
        target.plan()
        target.load(saved.artifacts())
        target.check(saved.facts)
        target.swap()
    except BackupError:
        return False
    return True


def test_a_backup_reads_nothing_through_links_put_in_the_way(site: Site) -> None:
    assert save_under_attack(site, TURNS)


def test_a_restore_touches_nothing_through_links_put_in_the_way(
    site: Site, saved: Saved, kind: Kind
) -> None:
    restore_under_attack(site, saved, kind, TURNS)


@pytest.mark.skipif(not ROOT, reason="needs a user other than ourselves")
def test_a_folder_of_root_beside_the_media_is_not_given_away(site: Site, saved: Saved) -> None:
    kind = KINDS["beside"]
    for _turn in range(TURNS * 2):
        site.renew()
        private = write(site.parent, f"{PRIVATE}/file", b"of root").parent
        before = os.stat(private)
        with site.attack():
            is_restored(site, saved, kind)
        (found,) = [path for path in site.parent.iterdir() if path.lstat().st_ino == before.st_ino]
        after = os.stat(found)
        assert (after.st_uid, after.st_mode, os.listdir(found)) == (0, before.st_mode, ["file"])
        assert (after.st_mtime_ns, (found / "file").read_bytes()) == (
            before.st_mtime_ns,
            b"of root",
        )


@pytest.fixture
def many_turns(torture_rounds: int, scaled: Callable[[int, int], int]) -> int:
    return scaled(TURNS * 24 * torture_rounds, TURNS * 4)


@pytest.mark.torture
def test_a_long_attack_on_backups_gets_nothing(site: Site, many_turns: int) -> None:
    assert save_under_attack(site, many_turns // 2)


@pytest.mark.torture
def test_a_long_attack_on_restores_gets_nothing(
    site: Site, saved: Saved, kind: Kind, many_turns: int
) -> None:
    assert restore_under_attack(site, saved, kind, many_turns)
