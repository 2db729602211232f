"""The processes that a run has started, as /proc tells; and signals that reach no other."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Yield the id and the program's name of each process below `pid` that still runs."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if not _is_fork(child, pid) and (name := _program(child)):
                    yield child, name
                yield from descendants(child)


def _program(pid: int) -> str:
    """Return what `pid` runs, empty where it has ended."""
    with contextlib.suppress(OSError):
        argument = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        return os.path.basename(argument.decode(errors="replace"))
    return ""


def _is_fork(pid: int, parent: int) -> bool:
    """Say whether `pid` has not yet become a program of its own."""
    with contextlib.suppress(OSError):
        lines = [Path(f"/proc/{each}/cmdline").read_bytes() for each in (pid, parent)]
        return lines[0] == lines[1]
    return True


def send(pid: int, number: signal.Signals, parent: int) -> bool:
    """Send a signal to a process below `parent`; False where it has ended.

    By a descriptor: its number may be another process's as soon as it has ended.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid not in dict(descendants(parent)):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
