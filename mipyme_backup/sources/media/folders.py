"""Folders by descriptor: no step follows a link, so nothing can lead out of the first one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mipyme_backup.messages import _
from mipyme_backup.removal import BY_NAME, FOLDER, NO_FOLDER, remove_in
from mipyme_backup.sources.media.kernel import exchange, rename_new

__all__ = ["BY_NAME", "FOLDER", "Folder", "held", "held_if_there", "open_folder"]


class Folder:
    """A folder held by its descriptor: it stays the same where other users replace its path.

    All its methods act on names in it, and follow no link. `path` is what errors call it.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor = descriptor
        self.path = path

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """Return what is called `name`, None where nothing is."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        return self.status(name) is not None

    def has_folder(self, name: str) -> bool:
        status = self.status(name)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.descriptor))

    def is_at(self, parent: Folder, name: str) -> bool:
        """Say whether this is the folder called `name` in `parent`."""
        named = parent.status(name)
        return named is not None and os.path.samestat(named, os.fstat(self.descriptor))

    def folder(self, name: str, *, flags: int = FOLDER) -> Folder | None:
        """Return the folder called `name`, None where there is none; a link is none."""
        try:
            return Folder(os.open(name, flags, dir_fd=self.descriptor), self.path / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in NO_FOLDER:
                return None
            raise

    def make(self, name: str, mode: int = 0o700) -> Folder:
        """Make a folder and return it; OSError where another one is in its place already."""
        os.mkdir(name, mode, dir_fd=self.descriptor)
        made = self.folder(name)
        if made is None:
            raise self._replaced(name)
        status = os.fstat(made.descriptor)
        ours = status.st_uid == os.geteuid() and not status.st_mode & 0o777 & ~mode
        if not ours or os.listdir(made.descriptor):
            os.close(made.descriptor)
            raise self._replaced(name)
        return made

    def folder_or_made(self, name: str) -> Folder:
        """Return the folder called `name`, made for its owner only where there is none."""
        if not self.has(name):
            with contextlib.suppress(FileExistsError):
                return self.make(name)
        found = self.folder(name)
        if found is None:
            raise self._replaced(name)
        return found

    def rename(self, name: str, new: str, *, into: Folder | None = None) -> None:
        target = into or self
        os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=target.descriptor)

    def move(self, name: str, *, into: Folder) -> None:
        """Move what is called `name` to another folder; FileExistsError where it is taken."""
        rename_new(self.descriptor, into.descriptor, name)

    def exchange(self, one: str, other: str) -> bool:
        """Let two names change places in one atomic step; False where that cannot be."""
        return exchange(self.descriptor, one, other)

    def unlink(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove the folder called `name` with all that it holds; see `removal.remove_tree`."""
        remove_in(self.descriptor, name, self.path)

    def sync(self) -> None:
        """Make what was created, renamed or removed in the folder last."""
        os.fsync(self.descriptor)

    def _replaced(self, name: str) -> OSError:
        return OSError(errno.ESTALE, _("another process replaced it"), str(self.path / name))


def held(path: Path, *, create: bool = False) -> Folder:
    """Return the folder at an absolute `path`, no part of which may be a link.

    With `create`, folders that are missing are made. Raises OSError.
    """
    *above, name = path.parts[1:] or ["."]
    with Folder(os.open(path.anchor, BY_NAME), path) as top:
        parent = open_folder(top.descriptor, above, flags=BY_NAME | os.O_NOFOLLOW, create=create)
    try:
        if create:
            _make(parent, name)
        return Folder(os.open(name, FOLDER, dir_fd=parent), path)
    finally:
        os.close(parent)


def held_if_there(path: Path) -> contextlib.AbstractContextManager[Folder | None]:
    """Return what `held` does, as a context; None where there is nothing at `path`."""
    try:
        return held(path)
    except FileNotFoundError:
        return contextlib.nullcontext()


def open_folder(
    root: int,
    parts: Sequence[str | bytes],
    *,
    flags: int = FOLDER,
    mode: int = 0o777,
    create: bool = False,
) -> int:
    """Return a new descriptor of the folder `parts` below the descriptor `root`.

    With `create`, folders that are missing are made, with this `mode`. Raises OSError; a link
    anywhere on the way is ELOOP or ENOTDIR.
    """
    current = os.dup(root)
    try:
        for part in parts:
            if create:
                _make(current, part, mode)
            below = os.open(part, flags, dir_fd=current)
            os.close(current)
            current = below
    except BaseException:
        os.close(current)
        raise
    return current


def _make(parent: int, name: str | bytes, mode: int = 0o777) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
