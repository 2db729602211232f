"""Keys that cost a test little, though scrypt and gpg are the real ones.

What stretches a passphrase is meant to be costly, a tenth of a second each time, and the tests
start thousands of processes. Production reads nothing of this: it has no such setting.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mipyme_backup.encryption import program

COUNT = 65536
"""Bytes that gpg hashes to make a key of a passphrase; written beside what it encrypts, so that
whoever reads it, also by hand, takes the same."""
SYMMETRIC = (program.SYMMETRIC[0], program.SYMMETRIC[1], f"--s2k-count={COUNT}")

_scrypt = hashlib.scrypt


def use(folder: Path) -> None:
    """Do both: `remember` keys in `folder`, and have gpg hash a passphrase less often."""
    remember(folder)
    program.SYMMETRIC = SYMMETRIC


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
