"""Lists of names that a restore keeps in a folder, to know after a kill what it was to move."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mipyme_backup.errors import RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.folders import NEW_FILE, Folder
from mipyme_backup.sources.media.names import OWN_PREFIX


def has_list(folder: Folder, name: str) -> bool:
    """Say whether a list is there; RestoreError where another user, or a link, took its place."""
    status = folder.status(name)
    if status is not None and not _is_ours(status):
        raise not_ours(folder.path / name)
    return status is not None


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def write_list(folder: Folder, name: str, names: list[str]) -> None:
    """Write names to a file, each ended by NUL, so that it is there whole or not at all."""
    new = unfinished(name)
    folder.unlink(new)
    descriptor = os.open(new, NEW_FILE, 0o600, dir_fd=folder.descriptor)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(os.fsencode(name) + b"\0" for name in names)
        file.flush()
        os.fsync(file.fileno())
    folder.rename(new, name)
    folder.sync()


def is_own(name: str) -> bool:
    """Return whether a name inside a media folder is one of ours."""
    return os.fsencode(name).startswith(OWN_PREFIX)


def unfinished(name: str) -> str:
    return f"{name}.new"


def read_list(folder: Folder, name: str) -> list[str]:
    """Return the names in a list; RestoreError where it is not a list that we wrote."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(os.open(name, flags, dir_fd=folder.descriptor), "rb") as file:
        ours = _is_ours(os.fstat(file.fileno()))
        names = [os.fsdecode(name) for name in file.read().split(b"\0")[:-1]] if ours else []
    if not ours or not all(map(_is_plain, names)):
        raise not_ours(folder.path / name)
    return names


def not_ours(file: Path) -> RestoreError:
    return RestoreError(
        _("%(file)s is not a list that this restore wrote"),
        hint=_("Check which users may write to its folder, and delete the file."),
        file=str(file),
    )


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and not is_own(name)
