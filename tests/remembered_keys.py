"""Each key that scrypt makes of a passphrase, computed once for all processes of a test run.

It imports the standard library alone, so that a program that stands alone can be started with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

_scrypt = hashlib.scrypt


def remember(folder: Path) -> None:
    """Compute each key by scrypt once, and keep it in `folder` for other processes.

    A kept key is what scrypt gives: `recover.py`, and a person with a shell, compute the same.
    """

    def remembered(password: bytes, *, salt: bytes, **options: Any) -> bytes:
        name = json.dumps([password.hex(), salt.hex(), sorted(options.items())])
        file = folder / f"key_{hashlib.sha256(name.encode()).hexdigest()}"
        with contextlib.suppress(FileNotFoundError):
            return file.read_bytes()
        key = _scrypt(password, salt=salt, **options)
        with contextlib.suppress(FileNotFoundError):  # the folder goes with the run
            unfinished = file.with_name(f"{file.name}.{os.getpid()}")
            unfinished.write_bytes(key)
            unfinished.rename(file)
        return key

    hashlib.scrypt = remembered  # type: ignore[assignment]
