"""Whom media belongs to: noted by name and number, brought back as far as this user may.

Names count first, as for tar and borg: the same user may have another number on another host. A
number alone is taken where no other name has it, so that nothing is given to some other user.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.media.left_out import LeftOut

SETGID = 0o2000
SET_ID = 0o6000
FILE_BITS = 0o777
FOLDER_BITS = 0o1777


class Owner(NamedTuple):
    """User and group of a file on the host of the backup; a name is empty where none was known."""

    uid: int
    gid: int
    user: str = ""
    group: str = ""


class Names:
    """Finds the names of users and groups, each once."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, int], Owner] = {}

    def owner(self, ids: tuple[int, int] | None) -> Owner | None:
        """Return the owner with these numbers of user and group, None for none."""
        if ids is None:
            return None
        if ids not in self._owners:
            uid, gid = ids
            self._owners[ids] = Owner(uid, gid, _user_name(uid) or "", _group_name(gid) or "")
        return self._owners[ids]


class NotSet(Enum):
    """What could not be brought back; the value is the remark."""

    OWNER = _(
        "The owner or group of %(count)d restored media files and folders could not be set:"
        " %(names)s"
    )
    SET_ID = _(
        "%(count)d media files had the set-user-ID or set-group-ID bit, which a restore does not"
        " bring back: %(names)s"
    )
    LIVE_LINK = _(
        "%(count)d links lead out of the live media folder, and the backup was made by a version"
        " that saved none: make them again after the restore: %(names)s"
    )
    LINK = _("%(count)d links of the backup are not restored, for a storage has none: %(names)s")


class Ownership:
    """Gives restored files their owner, group and mode, and counts where that cannot be.

    `fallback` are user and group for what the index names no owner of, or none who is known here;
    None leaves that to whom restores. Files get no set-ID bits: media is not run. A folder gets its
    set-group-ID bit with its group only, for it hands that group on.
    """

    def __init__(self, fallback: tuple[int, int] | None) -> None:
        self._fallback = fallback
        self._is_root = os.geteuid() == 0
        self._ids: dict[Owner, tuple[int | None, int | None]] = {}
        self._not_set = LeftOut()

    def remarks(self) -> list[Message]:
        """Return what could not be brought back, a message for each reason."""
        return self._not_set.messages()

    def settle_file(self, descriptor: int, path: bytes, owner: Owner | None, mode: int) -> None:
        self._give(descriptor, path, owner)
        if mode & SET_ID:
            self._not_set.add(NotSet.SET_ID, path)
        os.fchmod(descriptor, mode & FILE_BITS)

    def settle_folder(self, descriptor: int, path: bytes, owner: Owner | None, mode: int) -> None:
        given = self._give(descriptor, path, owner)
        bits = mode & FOLDER_BITS
        wanted = None if owner is None else self._of(owner)[1]
        if mode & SETGID and os.fstat(descriptor).st_gid == wanted:
            bits |= SETGID
        os.fchmod(descriptor, bits)  # last: a new owner takes the special bits away
        if given and bits & SETGID and not os.fstat(descriptor).st_mode & SETGID:
            self._not_set.add(NotSet.OWNER, path)

    def settle_link(self, folder: int, name: bytes, path: bytes, owner: Owner | None) -> None:
        """Give away the link called `name` in an open folder, and not what it leads to."""

        def chown(uid: int, gid: int) -> None:
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)

        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not self._given((status.st_uid, status.st_gid), owner, chown):
            self._not_set.add(NotSet.OWNER, path)

    def _give(self, descriptor: int, path: bytes, owner: Owner | None) -> bool:
        def chown(uid: int, gid: int) -> None:
            os.fchown(descriptor, uid, gid)

        status = os.fstat(descriptor)
        given = self._given((status.st_uid, status.st_gid), owner, chown)
        if not given:
            self._not_set.add(NotSet.OWNER, path)
        return given

    def _given(
        self, now: tuple[int, int], owner: Owner | None, chown: Callable[[int, int], None]
    ) -> bool:
        """Change what belongs to `now`; return whether it belongs to its owner then."""
        wanted = (None, None) if owner is None else self._of(owner)
        uid, gid = now
        if self._is_root:
            uid, gid = self._fallback or now
            uid = uid if wanted[0] is None else wanted[0]
        gid = gid if wanted[1] is None else wanted[1]
        try:
            if (uid, gid) != now:
                chown(uid, gid)
        except OSError:  # no right to, or a number that this container has not
            return False
        return owner is None or (uid, gid) == wanted

    def _of(self, owner: Owner) -> tuple[int | None, int | None]:
        """Return the numbers of user and group here, None where there is no such."""
        if owner not in self._ids:
            self._ids[owner] = (
                _number(owner.user, owner.uid, _user_number, _user_name),
                _number(owner.group, owner.gid, _group_number, _group_name),
            )
        return self._ids[owner]


def _number(
    name: str,
    number: int,
    number_of: Callable[[str], int | None],
    name_of: Callable[[int], str | None],
) -> int | None:
    if not name:
        return number
    found = number_of(name)
    if found is None and name_of(number) is None:
        return number
    return found


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return None


def _user_number(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _group_number(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
