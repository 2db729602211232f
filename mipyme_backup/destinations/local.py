"""A local folder: private files, written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mipyme_backup.destinations.base import Destination, Entry
from mipyme_backup.destinations.names import check_name
from mipyme_backup.errors import DestinationError, ObjectMissingError
from mipyme_backup.messages import _
from mipyme_backup.private_files import make_folder, sync_folder, write_file
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
            return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        except OSError:
            return None  # staged elsewhere, the volumes are copied

    def put(self, name: str, file: Path) -> None:
        target = self._path(name)
        with self._errors(_("write to")):
            make_folder(target.parent)
            temporary = self._temporary()
            try:
                _link_or_copy(file, temporary)
                temporary.rename(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                self._remove_empty(target.parent)
                raise
            _sync_folders(target.parent, self.location)

    def open(self, name: str) -> Reader:
        path = self._path(name)
        with self._errors(_("read"), name):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, _("not a regular file"))
        return _File(self, name, descriptor)

    def size(self, name: str) -> int | None:
        path = self._path(name)
        with self._errors(_("read"), name):
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return status.st_size if stat.S_ISREG(status.st_mode) else None

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        with self._errors(_("list")):
            for path in _files(self.location):
                name = path.relative_to(self.location).as_posix()
                if name.startswith(prefix):
                    yield Entry(name=name, size=path.lstat().st_size)

    def delete(self, name: str) -> None:
        path = self._path(name)
        with self._errors(_("delete from")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            self._remove_empty(path.parent)

    def sweep(self, prefix: str) -> None:
        """Remove the folder of a name that begins so, and those above it, where they are empty.

        Temporary files are not told apart by name: `check` removes those of dead processes.
        """
        folder = prefix.rpartition("/")[0]
        if folder:
            self._remove_empty(self._path(folder))

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

    def _path(self, name: str) -> Path:
        check_name(name)
        return self.location / name

    def _remove_empty(self, folder: Path) -> None:
        """Remove the folder and those above it, as far as they are empty and not our root."""
        with contextlib.suppress(OSError):
            while folder != self.location:
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()
                folder = folder.parent

    def _temporary(self) -> Path:
        return self.location / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"

    def _sweep(self) -> None:
        """Remove the temporary files of processes that died.

        Those of another container look dead as well: nobody else may be writing here.
        """
        for path in self.location.glob(f"{TEMPORARY_PREFIX}*"):
            owner = path.name.removeprefix(TEMPORARY_PREFIX).partition("-")[0]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                path.unlink(missing_ok=True)
        staging = self.location / STAGING
        if not staging.is_symlink() and staging.is_dir():
            for folder in staging.iterdir():
                owner = folder.name.partition("-")[0]
                if owner != str(os.getpid()) and not Path(f"/proc/{owner}").exists():
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


def _sync_folders(folder: Path, root: Path) -> None:
    while True:
        sync_folder(folder)
        if folder == root or root not in folder.parents:
            return
        folder = folder.parent


def _files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below `folder` in order of name; a link is not followed.

    What begins with a dot in `folder` itself is left out.
    """
    yield from _walk(folder, lambda entry: not entry.name.startswith("."))


def _walk(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = [(entry.is_dir(follow_symlinks=False), entry) for entry in scan if wanted(entry)]
    # A folder counts with its slash, as it does in the names of what it holds.
    for is_folder, entry in sorted(entries, key=lambda item: item[1].name + "/" * item[0]):
        if is_folder:
            yield from _walk(Path(entry.path), lambda entry: True)
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
