"""A local folder: private files, written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mipyme_backup.destinations.base import Destination
from mipyme_backup.destinations.listing import Entry, Layout, Listing, leads_to
from mipyme_backup.destinations.names import check_name
from mipyme_backup.destinations.temporary import is_left, ours
from mipyme_backup.errors import DestinationError, ObjectMissingError
from mipyme_backup.messages import _
from mipyme_backup.private_files import make_folder, write_file
from mipyme_backup.process import Reader

TEMPORARY_PREFIX = ".tmp-"
STAGING = ".staging"
FULL = {errno.ENOSPC, errno.EDQUOT}


class LocalDestination(Destination):
    """Keeps backups below the folder `location`, which is made, private, where it is absent.

    Names that begin with a dot at the root (staged and temporary files) are not objects, and
    neither is a link or anything else that is no regular file.
    """

    def __init__(self, *, location: str | Path) -> None:
        self.location = Path(location)

    def check(self) -> None:
        with self._errors(_("prepare")):
            make_folder(self.location)
            self._sweep()
        self.probe()

    def probe(self) -> None:
        with self._errors(_("prepare")):
            probe = self._temporary()
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.close(descriptor)
            probe.unlink()
        self.may_delete = True

    def make_staging(self) -> Path | None:
        """As in the base: none where others may write to the folder, and replace what is staged."""
        root = self.location / STAGING
        try:
            if not _is_ours_alone(self.location.stat()):
                return None
            make_folder(root)
            if not _is_ours_alone(root.lstat()):
                return None
            return Path(tempfile.mkdtemp(prefix=ours(), dir=root))
        except OSError:
            return None  # staged elsewhere, the volumes are copied

    def put(self, name: str, file: Path) -> None:
        check_name(name)
        folder, _slash, base = name.rpartition("/")
        with self._errors(_("write to")):
            make_folder(self.location)
            temporary = self._temporary()
            try:
                with self._opened(folder, make=True) as descriptor:
                    _link_or_copy(file, temporary)
                    os.rename(temporary, base, dst_dir_fd=descriptor)
            except BaseException:
                temporary.unlink(missing_ok=True)
                self._remove_empty(folder)
                raise
            self._sync(folder)

    def open(self, name: str) -> Reader:
        check_name(name)
        folder, _slash, base = name.rpartition("/")
        with self._errors(_("read"), name), self._opened(folder) as above:
            descriptor = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, _("not a regular file"))
        return _File(self, name, descriptor)

    def size(self, name: str) -> int | None:
        check_name(name)
        folder, _slash, base = name.rpartition("/")
        with self._errors(_("read"), name):
            try:
                with self._opened(folder) as above:
                    status = os.stat(base, dir_fd=above, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return status.st_size if stat.S_ISREG(status.st_mode) else None

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        found = self._met(partial(leads_to, prefix))
        wanted = [
            entry for entry in found if entry.name.startswith(prefix) and entry.name[-1] != "/"
        ]
        yield from sorted(wanted, key=lambda entry: entry.name)

    def listing(self, layout: Layout) -> Listing:
        return layout.sorted_out(self.met(layout))

    def met(self, layout: Layout) -> Iterator[Entry]:
        """Yield what `layout` knows, and whatever else lies on the way to it."""
        return self._met(layout.leads)

    def delete(self, name: str) -> None:
        check_name(name)
        folder, _slash, base = name.rpartition("/")
        with self._errors(_("delete from")):
            gone = contextlib.suppress(FileNotFoundError, NotADirectoryError)
            with gone, self._opened(folder) as above:
                os.unlink(base, dir_fd=above)
            self._remove_empty(folder)

    def sweep(self, prefix: str) -> None:
        """Remove the folder of a name that begins so, and those above it, where they are empty.

        Temporary files are not told apart by name: `check` removes those of dead processes.
        """
        folder = prefix.rpartition("/")[0]
        if folder:
            check_name(folder)
            self._remove_empty(folder)

    def free_space(self) -> int | None:
        with self._errors(_("read")):
            status = os.statvfs(self.location)
            return status.f_bavail * status.f_frsize

    def total_space(self) -> int | None:
        with self._errors(_("read")):
            status = os.statvfs(self.location)
            return status.f_blocks * status.f_frsize

    def describe(self) -> str:
        return str(self.location.absolute())

    def _met(self, leads: Callable[[str], bool]) -> Iterator[Entry]:
        """Yield the regular files of the root and of the folders that `leads` says to go into.

        What else there is comes with a slash behind its name: a folder, a link, a pipe. What
        begins with a dot in the root is left out, and what vanishes meanwhile is not there.
        """
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            above = f"{folder}/" if folder else ""
            with self._errors(_("list")), self._scanned(folder) as scan:
                for entry in scan:
                    if not folder and entry.name.startswith("."):
                        continue
                    name = above + entry.name
                    if entry.is_dir(follow_symlinks=False) and leads(name):
                        waiting.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            size = entry.stat(follow_symlinks=False).st_size
                            yield Entry(name=name, size=size)
                    else:
                        yield Entry(name=f"{name}/", size=0)

    @contextlib.contextmanager
    def _scanned(self, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Yield what is in the folder: nothing where it vanished, or is none of this disk's."""
        with contextlib.ExitStack() as opened:
            try:
                descriptor = opened.enter_context(self._opened(folder))
            except (FileNotFoundError, NotADirectoryError):
                if not folder:
                    raise
                yield iter(())
            else:
                yield opened.enter_context(os.scandir(descriptor))

    @contextlib.contextmanager
    def _opened(self, folder: str, *, make: bool = False) -> Iterator[int]:
        """Yield a descriptor of a folder below `location` ("" is that itself).

        It is reached step by step: a link is not followed, and another disk that is mounted on
        the way is not gone into. Whoever may write here could else have us write or delete
        elsewhere. Raises NotADirectoryError for both.
        """
        descriptor = os.open(self.location, os.O_RDONLY | os.O_DIRECTORY)
        try:
            device = os.fstat(descriptor).st_dev
            for step in folder.split("/") if folder else ():
                below = _entered(descriptor, step, make=make)
                os.close(descriptor)
                descriptor = below
                if os.fstat(descriptor).st_dev != device:
                    raise NotADirectoryError(errno.ENOTDIR, _("another disk is mounted there"))
            yield descriptor
        except NotADirectoryError as error:
            if make:
                reason = _("%s is a link, a file or another disk, and no folder of ours") % folder
                raise OSError(errno.EINVAL, reason) from error
            raise
        finally:
            os.close(descriptor)

    def _sync(self, folder: str) -> None:
        """Sync the names in the folder and in those above it to the disk."""
        with self._opened(folder) as descriptor:
            os.fsync(descriptor)
        if folder:
            self._sync(folder.rpartition("/")[0])

    def _remove_empty(self, folder: str) -> None:
        """Remove the folder and those above it, as far as they are empty and not our root."""
        with contextlib.suppress(OSError):
            while folder:
                above, _slash, base = folder.rpartition("/")
                with contextlib.suppress(FileNotFoundError), self._opened(above) as descriptor:
                    os.rmdir(base, dir_fd=descriptor)
                folder = above

    def _temporary(self) -> Path:
        return self.location / f"{TEMPORARY_PREFIX}{ours()}{secrets.token_hex(8)}"

    def _sweep(self) -> None:
        """Remove the temporary files of processes that died."""
        for path in self.location.glob(f"{TEMPORARY_PREFIX}*"):
            if is_left(path, path.name.removeprefix(TEMPORARY_PREFIX)):
                path.unlink(missing_ok=True)
        staging = self.location / STAGING
        if not staging.is_symlink() and staging.is_dir():
            for folder in staging.iterdir():
                if is_left(folder, folder.name):
                    _remove_staging(folder)

    @contextlib.contextmanager
    def _errors(self, verb: str, name: str = "") -> Iterator[None]:
        """Turn an OSError into a DestinationError that says what could not be done, and why."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            # Where an object was named it is missing; without a name it is the whole folder.
            raise (ObjectMissingError if name else DestinationError)(
                _("%(place)s does not exist."),
                hint=_("Use another copy of this backup.")
                if name
                else _("Mount it, or look at DESTINATIONS; the first backup makes the folder."),
                place=self.location / name,
            ) from error
        except OSError as error:
            raise DestinationError(
                _("Cannot %(verb)s %(place)s: %(reason)s"),
                hint=_("Free some space there.")
                if error.errno in FULL
                else _("Look at the folder's owner and permissions, and at the disk."),
                verb=verb,
                place=self.location / name,
                reason=error.strerror or error,
            ) from error


class _File:
    """An open object; an I/O error while reading is a DestinationError."""

    def __init__(self, destination: LocalDestination, name: str, descriptor: int) -> None:
        self._destination = destination
        self._name = name
        self._descriptor: int | None = descriptor

    def read(self, size: int, /) -> bytes:
        assert self._descriptor is not None
        with self._destination._errors(_("read"), self._name):
            return os.read(self._descriptor, size)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_ours_alone(status: os.stat_result) -> bool:
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return ours and not status.st_mode & 0o022


def _remove_staging(folder: Path) -> None:
    """Remove a folder of staged files; what else lies there is not ours."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir() if not folder.is_symlink() else ():
            path.unlink()
        folder.rmdir()


def _link_or_copy(file: Path, target: Path) -> None:
    """A private file on the same file system is adopted without a copy, any other is copied.

    One that another folder has adopted is copied as well: two copies must not be one file.
    """
    status = file.lstat()
    if stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077 and status.st_nlink == 1:
        try:
            os.link(file, target, follow_symlinks=False)
        except OSError as error:
            if error.errno in FULL:
                raise
        else:
            if target.lstat().st_nlink <= 2:
                return
            target.unlink()
    with file.open("rb") as source:
        write_file(target, source)


def _entered(above: int, step: str, *, make: bool) -> int:
    """Return a descriptor of the folder `step` in that of `above`, made private where it lacks."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(step, 0o700, dir_fd=above)
    return os.open(step, flags, dir_fd=above)
