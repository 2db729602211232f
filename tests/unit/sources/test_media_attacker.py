"""A user who exchanges folders for links while root saves or restores media gets nothing by it.

The attacker owns the media folder and its parent, and works in a process of its own. Where the
tests do not run as root, it is ourselves, and may not touch the media folder itself: a link of
our own is followed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mipyme_backup.errors import BackupError
from mipyme_backup.sources.media import MediaTarget
from tests.unit.sources.forks import NOBODY
from tests.unit.sources.link_swapper import SECRET, Attack, fingerprint, make_vault
from tests.unit.sources.media_trees import Saved, save, write

ROOT = os.geteuid() == 0
FILES = ("a/one", "a/deep/two", "a/deep/er/three", "b/four", "b/five", "six", "seven")
TURNS = 12
RESTORE = "id"


class Site:
    """A media folder in a parent that belongs to the attacker, and a vault that does not."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        folder.chmod(0o755)
        self.chance = chance
        self.parent = folder / "site"
        self.media = self.parent / "media"
        self.vault = make_vault(folder / "vault", FILES)
        self.untouched = fingerprint(self.vault)

    def renew(self) -> None:
        shutil.rmtree(self.parent, ignore_errors=True)
        for name in FILES:
            write(self.media, name, f"live {name}".encode())
        if ROOT:
            for path in (self.parent, *self.parent.rglob("*")):
                os.chown(path, NOBODY, NOBODY)

    def attack(self, names: list[Path]) -> Attack:
        victims = [self.vault / owner / below for owner in ("root", "other") for below in ("", "a")]
        allowed = [name for name in names if ROOT or name != self.media]
        return Attack(allowed, victims, str(self.chance.random()), as_nobody=ROOT)

    def inside(self) -> list[Path]:
        return [self.media / name for name in ("a", "a/deep", "a/deep/er", "b", "a/one", "six")]

    def contents(self) -> set[bytes]:
        """Return the contents of all files in the site, wherever they were moved."""
        return {
            (Path(folder) / name).read_bytes()
            for folder, _folders, names in os.walk(self.parent)
            for name in names
            if (Path(folder) / name).is_file() and not (Path(folder) / name).is_symlink()
        }

    def require_vault_untouched(self) -> None:
        assert fingerprint(self.vault) == self.untouched


@pytest.fixture
def site(workdir: Path, torture_random: random.Random) -> Site:
    return Site(workdir, torture_random)


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """A backup with other contents, to restore."""
    for name in FILES:
        write(tmp_path / "saved", name, f"saved {name}".encode())
    return save(tmp_path / "saved")


def save_under_attack(site: Site, turns: int) -> None:
    for _turn in range(turns):
        site.renew()
        with site.attack([site.media, *site.inside()]).under_way():
            for _again in range(10):
                try:
                    found = save(site.media)
                except BackupError:
                    continue
                assert not any(
                    SECRET in content for content in (found.index, *found.packs.values())
                )
    site.require_vault_untouched()


def beside(site: Site) -> MediaTarget:
    return MediaTarget.prepare(location=site.media, restore_id=RESTORE, inside=False)


def inside(site: Site) -> MediaTarget:
    return MediaTarget.prepare(location=site.media, restore_id=RESTORE, inside=True)


def elsewhere(site: Site) -> MediaTarget:
    out = site.parent / "out"
    return MediaTarget.prepare(location=site.media, restore_id=RESTORE, to_directory=out)


def names_of(site: Site, kind: Callable[[Site], MediaTarget]) -> list[Path]:
    """Return what the attacker exchanges during a restore of this kind, our own folders first."""
    own = ("restoring", "before", "late", "swap_leaving", "swap_entering", "undo_leaving")
    folder = {"beside": site.parent, "inside": site.media, "elsewhere": site.parent / "out"}
    names = [folder[kind.__name__] / f".mipyme_backup_{name}_{RESTORE}" for name in own]
    return [*names[:3], *names, site.media, site.parent / "out", *site.inside()]


def restore_under_attack(
    site: Site, saved: Saved, kind: Callable[[Site], MediaTarget], turns: int
) -> int:
    """Restore, undo, and clean up; return how often the restore went through."""
    restored = 0
    for _turn in range(turns):
        site.renew()
        with site.attack(names_of(site, kind)).under_way():
            restored += _restored(site, saved, kind)
        site.require_vault_untouched()
    return restored


def _restored(site: Site, saved: Saved, kind: Callable[[Site], MediaTarget]) -> bool:
    try:
        target = kind(site)
        target.plan()
        target.load(saved.artifacts())
        target.check(saved.facts)
        target.swap()
    except BackupError:
        went_through = False
    else:
        went_through = True
    for step in ("undo", "swap", "undo", "discard", "remove_replaced"):
        with contextlib.suppress(BackupError):
            getattr(kind(site), step)()
    return went_through


KINDS = [beside, inside, elsewhere]


def test_a_backup_reads_nothing_through_links_put_in_the_way(site: Site) -> None:
    save_under_attack(site, TURNS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_touches_nothing_through_links_put_in_the_way(
    site: Site, saved: Saved, kind: Callable[[Site], MediaTarget]
) -> None:
    restore_under_attack(site, saved, kind, TURNS)


@pytest.mark.torture
def test_a_long_attack_on_backups_gets_nothing(site: Site, torture_rounds: int) -> None:
    save_under_attack(site, TURNS * 2 * torture_rounds)


@pytest.mark.torture
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_attack_on_restores_gets_nothing(
    site: Site, saved: Saved, kind: Callable[[Site], MediaTarget], torture_rounds: int
) -> None:
    restore_under_attack(site, saved, kind, TURNS * 8 * torture_rounds)
