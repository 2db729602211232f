"""What can become of one stored file, or lie beside it: all that a folder's owner can do to it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import stat
from pathlib import Path

from mipyme_backup.authentication import MARKER, ending
from mipyme_backup.encryption.passphrase import derive_key, fingerprint
from tests.fuzz.changes import mutated_json

SPARSE = 10 * 2**30
FOREIGN = (
    b"new\nline", b"esc\x1b[2J", b"\xff\xfe", b"x" * 255, b"blank ", "né".encode(), b"-rf",
    b"%(name)s", b"manual_20200101T000000Z\n", b"monthly\n", b".hidden", b"json.py", b"~",
)  # fmt: skip


class Disturber:
    """Disturbs the backups below `store`, with the choices of `chance`.

    `secret` is the passphrase, which an intruder has not: only what is `signed` needs it.
    """

    def __init__(self, store: Path, secret: bytes, chance: random.Random) -> None:
        self.store, self.secret, self.chance = store, secret, chance

    def disturb(self, path: Path, how: str) -> None:
        getattr(self, f"_{how}")(path)

    def _empty(self, path: Path) -> None:
        os.truncate(path, 0)

    def _truncated(self, path: Path) -> None:
        os.truncate(path, self.chance.randrange(path.stat().st_size))

    def _extended(self, path: Path) -> None:
        with path.open("ab") as file:
            file.write(self.chance.choice((b"\0", b"\n", b"}", b"x" * 100_000)))

    def _flipped(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        path.write_bytes(data)

    def _zeros(self, path: Path) -> None:
        size = path.stat().st_size
        os.truncate(path, self.chance.randrange(size))
        os.truncate(path, size)

    def _sparse(self, path: Path) -> None:
        os.truncate(path, SPARSE)

    def _deleted(self, path: Path) -> None:
        path.unlink()

    def _renamed(self, path: Path) -> None:
        name = self.chance.choice((f"{path.name}~", path.name[:-1], f".{path.name}", "a\nb"))
        path.rename(path.with_name(name))

    def _swapped(self, path: Path) -> None:
        """Exchange it with one that is called alike, of another backup or volume, or with any."""
        files = [other for other in self._files() if other != path]
        alike = [other for other in files if other.name[:12] == path.name[:12]]
        other = self.chance.choice(alike or files)
        mine, its = path.read_bytes(), other.read_bytes()
        path.write_bytes(its)
        other.write_bytes(mine)

    def _overwritten(self, path: Path) -> None:
        shutil.copyfile(self.chance.choice([o for o in self._files() if o != path]), path)

    def _changed(self, path: Path) -> None:
        """Change its meaning, unsealed or with the checksum that needs no key."""
        data = path.read_bytes()
        if path.name != "manifest.json":
            path.write_bytes(self.chance.randbytes(len(data)))
            return
        body = self._other_body(data)
        path.write_bytes(body + MARKER + ending(body, "site", None, derive_key))

    def _signed(self, path: Path) -> None:
        """Change what a manifest says, and sign it with the right key."""
        body = self._other_body(path.read_bytes())
        key = (fingerprint(self.secret), self.secret)
        project = self.chance.choice(("config", "config", "other"))
        path.write_bytes(body + MARKER + ending(body, project, key, derive_key))

    def _other_body(self, data: bytes) -> bytes:
        body = data.rpartition(MARKER)[0] + b"\n}"
        return mutated_json(body, self.chance).removesuffix(b"\n}")

    def _link(self, path: Path) -> None:
        """Put a link in its place: to nothing, itself, a device, a secret, or its own bytes."""
        elsewhere = self.store.parent / "elsewhere"
        shutil.copyfile(path, elsewhere)
        targets = ("nowhere", path.name, "/dev/null", "/dev/zero", "/dev/random", "/", "..")
        path.unlink()
        path.symlink_to(self.chance.choice((*targets, elsewhere, elsewhere)))

    def _hardlink(self, path: Path) -> None:
        other = self.chance.choice([other for other in self._files() if other != path])
        path.unlink()
        path.hardlink_to(other)

    def _fifo(self, path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def _folder(self, path: Path) -> None:
        path.unlink()
        path.mkdir()
        if self.chance.random() < 0.5:
            (path / path.name).write_bytes(b"{}")

    def _socket(self, path: Path) -> None:
        path.unlink()
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path must be short
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("s")
            os.rename("s", path.name)
        finally:
            os.chdir(here)

    def _device(self, path: Path) -> None:
        """Put the device of endless zeros there, or where only root may, a link to it."""
        path.unlink()
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        except PermissionError:
            path.symlink_to("/dev/zero")

    def _above(self, path: Path) -> None:
        """Do something to the folder that holds it."""
        folder, elsewhere = path.parent, self.store.parent / "moved"
        if folder in (self.store, self.store.parent):
            folder = self.store / "pool"
        way = self.chance.choice(("gone", "renamed", "copied", "link", "loop", "file", "fifo"))
        if way == "copied":
            shutil.copytree(folder, folder.with_name("monthly_copy"))
            return
        other_name = folder.with_name("manual_20300101T000000Z")
        folder.rename(other_name if way == "renamed" else elsewhere)
        if way == "link":
            folder.symlink_to(elsewhere)
        elif way == "loop":
            folder.symlink_to(folder.name)
        elif way == "file":
            folder.write_bytes(b"{}")
        elif way == "fifo":
            os.mkfifo(folder)

    def _foreign(self, _path: Path) -> None:
        """Lay strange names beside the backups, empty or with what looks like a manifest."""
        for name in self.chance.sample(FOREIGN, 4):
            folder = os.fsencode(self.chance.choice((self.store, self.store / "monthly")))
            if not os.path.isdir(folder):
                continue
            place = os.path.join(folder, name)
            with contextlib.suppress(FileExistsError):
                os.mkdir(place)
            inside = Path(os.fsdecode(place)) / "manifest.json"
            inside.write_bytes(self.chance.choice((b"{}", b"", b"[" * 10_000, b"\xff\n}\n")))
            if self.chance.random() < 0.3:
                self.disturb(inside, self.chance.choice(("link", "fifo", "folder", "sparse")))

    def _files(self) -> list[Path]:
        return sorted(p for p in self.store.rglob("*") if p.is_file() and not p.is_symlink())


WAYS = (
    "empty", "truncated", "extended", "flipped", "zeros", "sparse", "deleted", "renamed",
    "swapped", "overwritten", "changed", "link", "hardlink", "fifo", "folder", "socket", "device",
    "above", "foreign",
)  # fmt: skip
