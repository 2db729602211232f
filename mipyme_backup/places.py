"""Where folders lie: inside of others, on which file system. Imports no Django."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mipyme_backup.messages import _

USUAL_STATE = ".mipyme_backup"
NETWORK = re.compile(r"(nfs|cifs|smb|9p|afs|ceph|glusterfs|lustre|fuse\.(sshfs|s3fs|rclone))")
GOOD_PLACE = _(
    "Set STATE_DIR in MIPYME_BACKUP to a folder on this host (in a container: on a volume of its"
    " own), with mode 0700."
)
"""What to do where `why_misplaced` says something."""
FORGOTTEN = frozenset({"overlay", "aufs"})
"""The file systems of what a container writes outside of its volumes."""


def is_inside(place: Path, root: Path) -> bool:
    """Say whether `place`, which need not exist, is `root` or lies in it; links are resolved."""
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(root))


def default_state_dir(base: Path, shared: Iterable[Path], project: str) -> Path:
    """Return where the state of the project in `base` lies, unless the settings say.

    That is in `base`, where no folder of `shared` holds that: those that others read or write.
    Else it is the platform's folder for state: /var/lib for root, and for others what the XDG
    Base Directory Specification says.
    """
    usual = base / USUAL_STATE
    if not any(is_inside(usual, folder) for folder in shared):
        return usual
    root = Path("/var/lib")
    if os.geteuid() != 0:
        root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    name = re.sub(r"[^A-Za-z0-9_-]", "_", project)[:40]
    digest = hashlib.sha256(os.fsencode(os.path.realpath(base))).hexdigest()[:12]
    return root / "mipyme_backup" / f"{name}-{digest}"


def file_system_of(place: Path) -> str:
    """Return the type of the file system that holds `place`, "" where that cannot be told.

    As in the mount table of this process (see proc_pid_mountinfo(5)).
    """
    existing = Path(os.path.realpath(place))
    while not os.path.exists(existing):  # False, too, where this user may not look
        existing = existing.parent
    best = ("", "")
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _dash, after = line.partition(b" - ")
        mounted = os.fsdecode(before.split()[4].decode("unicode_escape").encode("latin-1"))
        if existing.is_relative_to(mounted) and len(mounted) >= len(best[0]):
            best = (mounted, os.fsdecode(after.split()[0]))
    return best[1]


def is_on_network(place: Path) -> bool:
    """Say whether the folder lies on another machine's disk."""
    return bool(NETWORK.match(file_system_of(place)))


def is_forgotten(place: Path) -> bool:
    """Say whether the folder goes with the container that this process runs in."""
    return file_system_of(place) in FORGOTTEN


def why_misplaced(state_dir: Path, destinations: Iterable[Path]) -> str:
    """Return what is wrong with the place of the records that a later run acts on, "" if nothing.

    `destinations` are the folders of those that are folders of this machine.
    """
    if any(is_inside(state_dir, folder) for folder in destinations):
        return _("it lies in a destination, whose writers could plant orders there")
    if is_on_network(state_dir):
        return _("it lies on another machine's disk, whose writers could plant orders there")
    if is_forgotten(state_dir):
        return _("it lies in the container, and is gone with it")
    return ""
