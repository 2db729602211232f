"""Carries out a method of an SQLite target in a process that is killed on the way.

Run as a module: each line of stdin is ``[state, method, call, delay]``; the answer is "killed" or
"finished". The kill comes just before the call with that number, of those that the code under test
makes to C (to SQLite and to the system), or after the delay in seconds; with neither it runs to
its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mipyme_backup.sources import sqlite
from mipyme_backup.sources.sqlite import SQLiteTarget

FOLDER = str(Path(sqlite.__file__).parent)


class Killer:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, target: SQLiteTarget, method: str, *, call: int = 0, delay: float = 0) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps([target.state, method, call, delay])}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def killer() -> Iterator[Killer]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Killer(process)
    finally:
        process.communicate()


def _carry_out(state: dict[str, Any], method: str, call: int, delay: float) -> str:
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(Exception):
            if call:
                _kill_at(call)
            getattr(SQLiteTarget.from_state(state), method)()
            status = 0
        os._exit(status)
    if delay:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "finished" if os.WEXITSTATUS(status) == 0 else "failed"


def _kill_at(call: int) -> None:
    seen = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal seen
        if event == "c_call" and frame.f_code.co_filename.startswith(FOLDER):
            seen += 1
            if seen == call:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(f"{_carry_out(*json.loads(line))}\n")
        sys.stdout.flush()
