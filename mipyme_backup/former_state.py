"""Moves the records that earlier versions kept in the first local destination, once.

Anyone who can write to a destination could have planted them. So the move takes only private files
of this user, out of folders that only this user may write to; each record is checked again when it
is read; and what appears there after the first run is never read. Imports no Django.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mipyme_backup.errors import LockedError
from mipyme_backup.journal import Entry, Journal
from mipyme_backup.messages import _
from mipyme_backup.private_files import replace_file
from mipyme_backup.removal import remove_tree
from mipyme_backup.state import MAX_BYTES, State

RECORDS = (
    "sequence",
    "made",
    "newest",
    "host_secret",
    "leftovers.json",
    "damaged_packs.json",
    "verified_days.json",
)
FOLDERS = ("runs", "restores", "alerts", "schedule", "drills")
NOTE = "former.json"
"""Says that the move has begun, has been made, or that there was nothing to move."""


def adopt(state: State, former: Path) -> list[Path]:
    """Move the records of the folder `former` into `state`; return what stays there, unmoved.

    Does nothing after the first time. Call it with the lock held. Raises LockedError while a run
    of the earlier version is at work, and OSError.
    """
    noted, begun = state.read(NOTE), {"moving_from": str(former)}
    if noted not in (None, begun):
        return []
    ended = {"moved_from": str(former)}
    # A `state` with records of its own was in use before: what lies there is another project's.
    if not former.is_dir() or (noted is None and os.path.lexists(state.folder / RECORDS[0])):
        with contextlib.suppress(OSError):  # a full disk is told where it stops something
            state.write(NOTE, ended)
        return []
    state.write(NOTE, begun)
    if not all(_is_ours_alone(folder.lstat()) for folder in (former, former.parent)):
        return [former]
    with _locked(former / "lock"):
        left = [former / name for name in _names(former) if not _move(former, state, name)]
        _tidy(former)
    state.write(NOTE, ended)
    return left


def holds_records(former: Path) -> bool:
    """Say whether something lies there that `adopt` would move, or name."""
    return os.path.isdir(former) and next(_names(former), None) is not None


def restores(former: Path) -> list[Entry]:
    """Return the restores that the earlier version noted; none where others could write."""
    if not os.path.isdir(former):
        return []
    if not all(_is_ours_alone(folder.lstat()) for folder in (former, former.parent)):
        return []
    return Journal(State(former)).entries()


def _names(former: Path) -> Iterator[str]:
    """Yield the names of what may be a record, oldest first: their order counts."""
    yield from (name for name in RECORDS if os.path.lexists(former / name))
    for folder in FOLDERS:
        if not os.path.lexists(former / folder):
            continue
        if not _is_ours_alone((former / folder).lstat()):
            yield folder
            continue
        files = [path for path in (former / folder).iterdir() if path.suffix in {".json", ".html"}]
        files.sort(key=lambda path: path.lstat().st_mtime_ns)
        yield from (f"{folder}/{path.name}" for path in files)


def _move(former: Path, state: State, name: str) -> bool:
    """Move one record; say whether that was done. One that is there already is only removed."""
    source, target = former / name, state.folder / name
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not _is_ours_alone(status, stat.S_IFREG) or status.st_size > MAX_BYTES:
            return False
        state.make(str(Path(name).parent))
        if not os.path.lexists(target):
            with os.fdopen(descriptor, "rb", closefd=False) as opened:
                # Whole, or absent: the next call takes one that is there for the record.
                times = (status.st_atime_ns, status.st_mtime_ns)  # their order counts
                replace_file(target, opened, times=times)
    finally:
        os.close(descriptor)
    source.unlink()
    return True


def _is_ours_alone(status: os.stat_result, kind: int = stat.S_IFDIR) -> bool:
    return (
        stat.S_IFMT(status.st_mode) == kind
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
        and (kind == stat.S_IFDIR or status.st_nlink == 1)
    )


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep runs of the earlier version, which know only that lock, from beginning meanwhile."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LockedError(
            _("Another run holds the lock: %(holder)s"),
            hint=_("Wait until it has ended, then try again."),
            holder=file,
        ) from None
    finally:
        os.close(descriptor)


def _tidy(former: Path) -> None:
    """Remove what is left of an emptied folder: locks, and what killed runs left half written."""
    for folder in (former, *(former / name for name in FOLDERS)):
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in folder.iterdir():
            if path.name == "lock" or path.suffix in {".lock", ".tmp", ".new"}:
                with contextlib.suppress(OSError):
                    path.unlink()
    with contextlib.suppress(OSError):
        remove_tree(former / "work")  # a killed run may have left a plain copy of a database there
    for folder in (*(former / name for name in FOLDERS), former):
        with contextlib.suppress(OSError):
            folder.rmdir()
