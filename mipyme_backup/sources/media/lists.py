"""Lists of names that a restore keeps in a folder, to know after a kill what it was to move.

A list counts where it belongs to this user. For root, one of the folder's owner counts as well,
who may begin what root finishes: that user can rename everything in the folder without a list.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.private_files import replace_file
from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.folders import Folder
from mipyme_backup.sources.media.names import OWN_PREFIX

MAX_NAME_BYTES = 4096  # PATH_MAX; most file systems allow 255


def has_list(folder: Folder, name: str) -> bool:
    """Say whether a list is there; RestoreError where another user, or a link, took its place."""
    status = folder.status(name)
    if status is not None:
        _require_ours(folder, name, status)
    return status is not None


def _require_ours(folder: Folder, name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise not_ours(folder.path / name)
    owners = {os.geteuid()}
    if os.geteuid() == 0:
        owners.add(os.fstat(folder.descriptor).st_uid)
    if status.st_uid not in owners:
        raise RestoreError(
            _("The user with the id %(owner)d began what %(file)s is the list of"),
            hint=_(
                "Keep that file: it tells old entries from restored ones. Run the same command as"
                " the user with the id %(owner)d, for example with: sudo -u '#%(owner)d'"
            ),
            file=str(folder.path / name),
            owner=status.st_uid,
        )


def write_list(folder: Folder, name: str, names: list[str]) -> None:
    """Write names to a file, each ended by NUL, so that it is there whole or not at all."""
    content = b"".join(os.fsencode(name) + b"\0" for name in names)
    replace_file(name, content, dir_fd=folder.descriptor)


def is_own(name: str) -> bool:
    """Return whether a name inside a media folder is one of ours."""
    return os.fsencode(name).startswith(OWN_PREFIX)


def read_list(folder: Folder, name: str) -> Iterator[str]:
    """Yield the names in a list; before the first, RestoreError where it is none that we wrote.

    Read as it goes, for another user's may be of any size.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(os.open(name, flags, dir_fd=folder.descriptor), "rb") as file:
        _require_ours(folder, name, os.fstat(file.fileno()))
        for _name in _names(file, folder.path / name):
            pass
        file.seek(0)
        yield from _names(file, folder.path / name)


def _names(file: IO[bytes], path: Path) -> Iterator[str]:
    rest = b""
    while data := file.read(CHUNK):
        *names, rest = (rest + data).split(b"\0")
        for name in map(os.fsdecode, names):
            if not _is_plain(name):
                raise not_ours(path)
            yield name
        if len(rest) > MAX_NAME_BYTES:
            raise not_ours(path)
    if rest:
        raise not_ours(path)


def not_ours(file: Path) -> RestoreError:
    return RestoreError(
        _("%(file)s is not a list that this restore wrote"),
        hint=_(
            "Check which users may write to its folder. Move the file out of it, and run the same"
            " command again."
        ),
        file=str(file),
    )


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and not is_own(name)
