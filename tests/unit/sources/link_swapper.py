"""A local user who exchanges names for links to a vault of others, in a loop, in a process."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mipyme_backup.sources.media.folders import Folder, held
from tests.unit.sources.forks import NOBODY

SECRET = b"only the vault's owner reads this"
OWN = ".mipyme_backup_"
PRIVATE = "private"
OTHER = 4321
"""A user id that is neither root nor the attacker."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Each of `names`, and of our own in the `watched` folders, becomes a link, and is put back.

    The links lead to one of `victims`. Where the folder `PRIVATE` lies beside a name, which belongs
    to root, it takes the place of a link at times.
    """

    names: Sequence[Path]
    watched: Sequence[Path]
    victims: Sequence[Path]
    seed: str
    as_nobody: bool

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Run the attacker meanwhile; what it holds exchanged at the end, it puts back."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self._run(write_end)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(write_end)
        try:
            os.read(read_end, 1)  # it has begun
            yield
        finally:
            os.close(read_end)
            os.kill(child, signal.SIGTERM)
            assert os.waitpid(child, 0)[1] == 0

    def _run(self, begun: int) -> None:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
        if self.as_nobody:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        chance = random.Random(self.seed)
        os.write(begun, b"x")
        while not ended:
            name, victim = self._name(chance), chance.choice(self.victims)
            # Held, for an attacker who is ourselves would else write through links of its own.
            with contextlib.suppress(OSError), held(name.parent) as folder:
                _exchange_for_a_while(folder, name.name, victim, chance)

    def _name(self, chance: random.Random) -> Path:
        folder = chance.choice(self.watched)
        with contextlib.suppress(OSError):
            if ours := [name for name in os.listdir(folder) if name.startswith(OWN)]:
                return chance.choice([folder / chance.choice(ours), *self.names])
        return chance.choice(self.names)


def _exchange_for_a_while(folder: Folder, name: str, victim: Path, chance: random.Random) -> None:
    """Put a link in the place of `name`, and after a moment `name` again, if it is there."""
    link = f"link-{chance.randrange(5)}"
    if chance.random() < 0.3 and folder.has_folder(PRIVATE):
        link = PRIVATE
    else:
        status = folder.status(link)
        if status is not None and stat.S_ISLNK(status.st_mode):
            folder.unlink(link)
        os.symlink(victim, link, dir_fd=folder.descriptor)
    if not folder.has(name):
        os.symlink(victim, name, dir_fd=folder.descriptor)  # which replaces nothing
    else:
        _exchange(folder, link, name)
        _pause(chance)
        _exchange(folder, link, name)
    _pause(chance)


def _exchange(folder: Folder, one: str, other: str) -> None:
    if not folder.exchange(one, other):
        folder.rename(other, f"{one}-away")
        folder.rename(one, other)
        folder.rename(f"{one}-away", one)


def _pause(chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.6:
        for _turn in range(chance.randrange(300)):
            pass
    else:
        time.sleep(chance.random() * (0.001 if kind < 0.95 else 0.02))


def make_vault(folder: Path, names: Sequence[str]) -> Path:
    """Make trees of root and of another user, with files called as the media are; one is empty."""
    folder.mkdir(mode=0o700)
    (folder / "empty").mkdir()
    for owner, place in ((0, folder / "root"), (OTHER, folder / "other")):
        for name in names:
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SECRET + name.encode())
            path.chmod(0o640)
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, owner, owner)
    return folder


def fingerprint(folder: Path) -> dict[str, object]:
    """Return all there is to know of each entry; any change of it, or undone, shows."""
    found: dict[str, object] = {}
    for path in (folder, *folder.rglob("*")):
        status = os.lstat(path)
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ino),
            *(status.st_mtime_ns, status.st_ctime_ns, content),
        )
    return found
