"""What happens to a volume when a pod with `fsGroup` starts again, as kubelet does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GROUP = 4711


@contextmanager
def of_group(group: int = GROUP) -> Iterator[int]:
    """Have this process be a member of the group, as `fsGroup` does; yield its number."""
    if os.geteuid() != 0:
        yield os.getegid()
        return
    before = os.getgroups()
    os.setgroups([*before, group])
    try:
        yield group
    finally:
        os.setgroups(before)


def restart(volume: Path, group: int) -> None:
    """Give all that lies there to the group, as SetVolumeOwnership of Kubernetes does."""
    for path in [volume, *volume.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o7777
            os.chown(path, -1, group)
            path.chmod(mode | (0o2770 if path.is_dir() else 0o660))
