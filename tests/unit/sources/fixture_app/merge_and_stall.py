"""Merges the fixture in the file named by argv into ``default``, and stalls near its end.

``half`` on stdout says that all but the last rows are written and nothing is committed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import django


class Stalling:
    """Reads `content` and then waits for ever instead of saying that it is the end."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int, /) -> bytes:
        data, self._content = self._content[:size], self._content[size:]
        if not data:
            sys.stdout.write("half\n")
            sys.stdout.flush()
            time.sleep(600)
        return data

    def close(self) -> None:
        """Nothing is held."""


def main(path: Path) -> None:
    django.setup()
    from mipyme_backup.sources.fixtures.merge import merge

    merge(Stalling(path.read_bytes()), "default")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
