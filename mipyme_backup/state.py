"""The records in ``STATE_DIR``: what this host remembers, and a later run acts on.

Only private files of this user's count. A record that others could have written is refused,
whatever it says; so is one that is too large, or no JSON. What the operator opened to a group of
this process, with `STATE_DIR` itself, as Kubernetes does for `fsGroup` each time that a pod starts,
is made private again before it is read. Imports no Django.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, TypeVar

from mipyme_backup.errors import StateError
from mipyme_backup.messages import Message, _
from mipyme_backup.private_files import make_folder, replace_file, sync_folder, unfinished

MAX_BYTES = 64 * 2**20
"""No record of ours comes near: the longest names each folder that a prune has to delete."""
SUFFIX = ".json"
IGNORED = ".ignored-"
OPEN = _("others may write to it")
NOT_WRITTEN = _("it is not what was written there")

T = TypeVar("T")


class State:
    """The records below `folder`, by their names in it (``restores/ID.json``).

    `owners` are the users whose files count: this process's and root. For root, the owner of
    `folder` counts as well, for whom the commands usually run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str = "") -> Path:
        """Return the folder `name`, made where it is absent.

        What lies there and is not ours is set aside: see `names_set_aside`. Raises StateError where
        `STATE_DIR` itself is another user's, OSError where the folder cannot be made.
        """
        make_folder(self.folder)
        self._check_folders("")
        folder = self.folder
        for part in Path(name).parts:
            folder = folder / part
            try:
                self._check_folder(folder)
            except FileNotFoundError:
                pass
            except PermissionError as error:
                raise self._unreadable(folder, _("it cannot be read")) from error
            except StateError:
                set_aside(folder)
            make_folder(folder)
        return folder

    def read(self, name: str) -> Any:
        """Return the record, None where there is none; raises StateError for a bad one."""
        file = self.folder / name
        try:
            self._check_folders(str(Path(name).parent))
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(file, _("it cannot be opened")) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise self._bad(file, _("it is no regular file with one name"))
            self._make_private(file, descriptor, 0o600)
            with os.fdopen(descriptor, "rb", closefd=False) as opened:
                content = opened.read(MAX_BYTES + 1)
        except OSError as error:
            raise self._bad(file, _("it cannot be read")) from error
        finally:
            os.close(descriptor)
        if len(content) > MAX_BYTES:
            raise self._bad(file, _("it is too large"))
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._bad(file, _("it is no JSON")) from error
        if record is None:
            raise self._bad(file, NOT_WRITTEN)
        return record

    def recall(self, name: str, parse: Callable[[Any], T]) -> T | None:
        """Return what `parse` makes of the record, None where there is none.

        StateError for a bad one, and for one that `parse` fails at, as it does at what it did not
        write: by ValueError, TypeError, KeyError, AttributeError or OverflowError.
        """
        record = self.read(name)
        if record is None:
            return None
        try:
            return parse(record)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise self._bad(self.folder / name, NOT_WRITTEN) from error

    def write(self, name: str, record: Any) -> None:
        """Keep the record, private, whole at any moment and synced, in place of the one before.

        Raises OSError, or StateError for a folder that is another user's.
        """
        target = self.folder / name
        self.make(str(Path(name).parent))
        for path in (Path(unfinished(target)), target):
            if path.is_dir() and not path.is_symlink():
                set_aside(path)
        replace_file(target, json.dumps(record, indent=1).encode())

    def remove(self, name: str) -> None:
        """Forget the record; one that is absent is no error."""
        target = self.folder / name
        Path(unfinished(target)).unlink(missing_ok=True)
        try:
            target.unlink()
            sync_folder(target.parent)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def names(self, folder: str) -> list[str]:
        """Return the names of the records in `folder`, oldest first.

        Raises StateError where it is another user's, or a link, or cannot be read.
        """
        try:
            self._check_folders(folder)
            with os.scandir(self.folder / folder) as entries:
                found = [
                    (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name)
                    for entry in entries
                    if entry.name.endswith(SUFFIX)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(self.folder / folder, _("it cannot be read")) from error
        return [f"{folder}/{name}" for _moment, name in sorted(found)]

    def make_private(self, name: str) -> None:
        """Close a file again that was opened, with `STATE_DIR` itself, to a group of ours.

        Raises StateError where that is not so, and OSError.
        """
        self._check_folders(str(Path(name).parent))
        descriptor = os.open(
            self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
        try:
            self._make_private(self.folder / name, descriptor, 0o600)
        finally:
            os.close(descriptor)

    def names_set_aside(self) -> list[str]:
        """Return the names of what was set aside, for as long as it lies there."""
        folders = [".", *(entry.name for entry in self._entries(".") if entry.is_dir())]
        return [
            str(PurePath(folder, entry.name))
            for folder in folders
            if IGNORED not in folder
            for entry in self._entries(folder)
            if IGNORED in entry.name
        ]

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        path = self.folder / folder
        if path.is_symlink() and path != self.folder:
            return []
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
        return []

    def _check_folders(self, name: str) -> None:
        """Raise StateError where a folder on the way to `name` is a link or another user's."""
        folder = self.folder
        for part in ("", *Path(name).parts):
            folder = folder / part
            self._check_folder(folder)

    def _check_folder(self, folder: Path) -> None:
        top = folder == self.folder
        status = folder.stat() if top else folder.lstat()  # the settings may name a link
        if not stat.S_ISDIR(status.st_mode):
            raise self._bad(folder, _("it is no folder"))
        if top:
            # What another member of its group lays there is found out by its owner.
            self._check_owner(folder, status)
            if status.st_mode & 0o002:
                raise self._bad(folder, OPEN)
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._make_private(folder, descriptor, 0o700)
        finally:
            os.close(descriptor)

    def _make_private(self, path: Path, descriptor: int, mode: int) -> None:
        """Raise StateError where others own `path`, or may write to it.

        A group may that the operator gave `STATE_DIR` to, and this process is in: it may no more.
        """
        status = os.fstat(descriptor)
        self._check_owner(path, status)
        if not status.st_mode & 0o022:
            return
        if status.st_mode & 0o002 or not self._is_our_group(status.st_gid):
            raise self._bad(path, OPEN)
        try:
            os.fchmod(descriptor, mode)
        except OSError as error:
            raise self._bad(path, OPEN) from error

    def _is_our_group(self, group: int) -> bool:
        top = self.folder.stat()
        ours = {os.getegid(), *os.getgroups()}
        return group in ours and group == top.st_gid and bool(top.st_mode & 0o020)

    def _check_owner(self, path: Path, status: os.stat_result) -> None:
        if status.st_uid not in self._owners():
            raise self._bad(path, _("it belongs to another user"))

    def _owners(self) -> set[int]:
        owners = {os.geteuid(), 0}
        if os.geteuid() == 0:
            owners.add(self.folder.stat().st_uid)
        return owners

    def bad(self, name: str, reason: str) -> StateError:
        """Return the error that says why the record `name` does not count."""
        return self._bad(self.folder / name, reason)

    def _unreadable(self, path: Path, reason: str) -> StateError:
        """Return the error for what cannot be read: with one text, where that is so of all."""
        if os.access(self.folder, os.W_OK, effective_ids=True):
            return self._bad(path, reason)
        return StateError(
            _("This user cannot read what STATE_DIR (%(path)s) remembers."),
            hint=_(
                "Run it as the user that runs the backups, for example: sudo -u USER python"
                " manage.py backup_status"
            ),
            path=self.folder,
        )

    def _bad(self, path: Path, reason: str) -> StateError:
        if path == self.folder:
            return StateError(
                _("STATE_DIR %(path)s cannot be used: %(reason)s."),
                hint=_(
                    "It must be a folder of the user that runs the backups, with mode 0700. Change"
                    " that, or name a new folder inside it as STATE_DIR."
                ),
                path=path,
                reason=Message(reason),
            )
        return StateError(
            _("%(path)s is ignored: %(reason)s."),
            hint=_("Move it out of STATE_DIR; check who may write there, and its owner and mode."),
            record=str(path.relative_to(self.folder)),
            path=path,
            reason=Message(reason),
        )


def set_aside(path: Path) -> None:
    """Rename what lies in the way, and is not ours, so that it is neither used nor deleted."""
    path.rename(path.with_name(f"{path.name}{IGNORED}{secrets.token_hex(4)}"))
