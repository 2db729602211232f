"""The most memory that a program took, in a process of its own: what it does with more of the same.

`ru_maxrss` of a child begins at what the process that forked it had, so the kernel's own record of
the process is read, at its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

AT_START = """\
import atexit

def _peak():
    with open("/proc/self/status") as status, open({peak!r}, "w") as peak:
        peak.write(next(line for line in status if line.startswith("VmHWM")).split()[1])

atexit.register(_peak)
"""


def peak_of(
    argv: list[str], folder: Path, *, status: int = 0, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run Python with these arguments; return the bytes that it took at most, and its stdout.

    `folder` is where it notes that, and `status` what it must end with.
    """
    (folder / "start").mkdir(exist_ok=True)
    peak = folder / "peak"
    (folder / "start" / "sitecustomize.py").write_text(AT_START.format(peak=str(peak)))
    result = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "start"), **(env or {})},
        timeout=3600,
    )
    assert result.returncode == status, result.stdout[-1000:] + result.stderr[-2000:]
    return int(peak.read_text()) * 1024, result.stdout
