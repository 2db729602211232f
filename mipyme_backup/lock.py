"""One backup, prune or restore of a project at a time, over all its processes and hosts.

`flock` on a file in `STATE_DIR` covers this host; a session advisory lock in the maintenance
database of a server covers the others. Both die with their process: nothing expires.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mipyme_backup.errors import LockedError, PreflightError
from mipyme_backup.messages import Message, _
from mipyme_backup.state import State, set_aside

POLL_SECONDS = 1.0

ServerLock = Callable[[int, str], contextlib.AbstractContextManager[str | None]]
"""Try an advisory lock (key, our name): enters with None when held, else with the holder's name.

The name is `UNREACHABLE` where the server cannot be asked.
"""

UNREACHABLE = ""


class ProjectLock:
    """The lock, held. A server lets go of it when it ends our session, and tells us nothing."""

    def __init__(self, key: int, ours: str) -> None:
        self._key = key
        self._ours = ours
        self._servers: list[ServerLock] = []

    def add(self, server_lock: ServerLock) -> None:
        """Note that the lock of a server is held as well."""
        self._servers.append(server_lock)

    def check(self) -> None:
        """Raise LockedError where a server's lock is lost: another run may have begun since."""
        for server_lock in self._servers:
            with server_lock(self._key, self._ours) as holder:
                if holder != UNREACHABLE and not _same_run(holder, self._ours):
                    raise LockedError(
                        _("The server ended the session that held the lock: the run stops here."),
                        hint=_("Another run may have begun since. When it has ended, try again."),
                    )


@contextlib.contextmanager
def project_lock(
    state_dir: Path,
    project: str,
    operation: str,
    *,
    server_locks: Sequence[ServerLock] = (),
    wait: bool = False,
) -> Iterator[ProjectLock]:
    """Hold the lock of `project` while the block runs.

    Raises LockedError, naming the holder, when another run holds it and `wait` is False, and
    PreflightError when `state_dir` cannot be written to.
    """
    # The token comes early: the server cuts names, and two containers may be called the same.
    token = secrets.token_hex(4)
    ours = f"mipyme_backup {operation} {token} {socket.gethostname()}:{os.getpid()}"
    key = int.from_bytes(hashlib.sha256(project.encode()).digest()[:8], "big", signed=True)
    held = ProjectLock(key, ours)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_file_lock(state_dir / "lock", operation, wait=wait))
        for server_lock in server_locks:
            if _enter_server_lock(stack, server_lock, key, ours, wait=wait):
                held.add(server_lock)
        yield held


@contextlib.contextmanager
def _file_lock(path: Path, operation: str, *, wait: bool) -> Iterator[None]:
    with os.fdopen(_open(path), "r+b", buffering=0) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait:
                    raise _locked(_holder(file)) from None
                time.sleep(POLL_SECONDS)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        _write(file, json.dumps({"pid": os.getpid(), "operation": operation, "since": since}))
        try:
            yield
        finally:
            _write(file, "")


def _open(path: Path) -> int:
    try:
        State(path.parent).make()
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            set_aside(path)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise PreflightError(
            _("The lock %(path)s cannot be opened: %(reason)s"),
            hint=_("STATE_DIR must be a folder that this user can write to."),
            path=path,
            reason=error.strerror,
        ) from error


def _enter_server_lock(
    stack: contextlib.ExitStack, server_lock: ServerLock, key: int, ours: str, *, wait: bool
) -> bool:
    """Say whether the lock is held; a server that cannot be asked keeps no run from its work."""
    while True:
        attempt = contextlib.ExitStack()
        holder = attempt.enter_context(server_lock(key, ours))
        if holder is None:
            stack.push(attempt.pop_all().__exit__)
            return True
        attempt.close()
        if holder == UNREACHABLE:
            return False
        if _same_run(holder, ours):
            return True  # one server by two names: we hold it already
        if not wait:
            raise _locked(holder)
        time.sleep(POLL_SECONDS)


def _same_run(holder: str | None, ours: str) -> bool:
    """Compare what comes before the host, where the server may have cut the name."""
    return holder is not None and holder.split(" ")[:3] == ours.split(" ")[:3]


def _locked(holder: str) -> LockedError:
    return LockedError(
        _("Another run holds the lock: %(holder)s"),
        hint=_("Wait until it has ended, then try again."),
        holder=holder,
    )


def _holder(file: io.FileIO) -> str:
    file.seek(0)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        held = json.loads(file.read())
        text = _("%(operation)s (process %(process)s, since %(since)s)")
        return str(
            Message(
                text,
                {"operation": held["operation"], "process": held["pid"], "since": held["since"]},
            )
        )
    return "-"


def _write(file: io.FileIO, text: str) -> None:
    """Note who holds the lock, for people; a full disk keeps nobody from holding it."""
    with contextlib.suppress(OSError):
        file.seek(0)
        file.truncate()
        file.write(text.encode())
