"""Whose a temporary file in a folder is that several hosts may share, by its name."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path

ABANDONED = 24 * 3600
"""Seconds without a change after which another host is done with a temporary file."""


def ours() -> str:
    """Return how the names of our temporary files begin: with our process and our host."""
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    return f"{os.getpid()}-{host}-"


def is_left(path: Path, name: str) -> bool:
    """Say whether the process is dead that made `path` and called it `name`.

    Only its own host can tell; for any other one, a day without a change says so.
    """
    process, host, *_rest = f"{name}--".split("-")
    if not process.isdigit():
        return False
    if host == ours().split("-")[1]:
        return not Path(f"/proc/{process}").exists()
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False
