"""Keys that cost a test little, though scrypt and gpg are the real ones.

What stretches a passphrase is meant to be costly, a tenth of a second each time, and the tests
start thousands of processes. Production reads nothing of this: it has no such setting.
"""

from __future__ import annotations

from pathlib import Path

from mipyme_backup.encryption import program
from tests.remembered_keys import remember

__all__ = ["remember", "use"]

COUNT = 65536
"""Bytes that gpg hashes to make a key of a passphrase; written beside what it encrypts, so that
whoever reads it, also by hand, takes the same."""
SYMMETRIC = (program.SYMMETRIC[0], program.SYMMETRIC[1], f"--s2k-count={COUNT}")


def use(folder: Path) -> None:
    """Do both: `remember` keys in `folder`, and have gpg hash a passphrase less often."""
    remember(folder)
    program.SYMMETRIC = SYMMETRIC
