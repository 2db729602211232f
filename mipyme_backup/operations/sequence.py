"""The number of a backup: what is newest must not depend on a clock, nor on who is away."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Holdings
from mipyme_backup.private_files import make_folder, write_file


def next_sequence(project: Project, held: Mapping[str, Holdings]) -> int:
    """Return a number above that of every backup we can see, and of every one we made.

    The last one given is kept in `STATE_DIR`: the destination that holds the newest backups may
    be away just now, or their key. Call it with the lock held.
    """
    file = project.state_dir / "sequence"
    backups = [item for one in held.values() for item in one.backups]
    numbers = [item.manifest.sequence for item in backups if item.manifest is not None]
    with contextlib.suppress(FileNotFoundError, ValueError):
        numbers.append(int(file.read_text()))
    number = 1 + max(numbers, default=0)
    make_folder(file.parent)
    temporary = file.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    write_file(temporary, str(number).encode())
    temporary.rename(file)
    return number
