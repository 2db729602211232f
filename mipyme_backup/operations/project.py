"""What every operation works with: the parts of one project, built by `api` from the settings."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from mipyme_backup.catalog import Catalog
from mipyme_backup.destinations import Destination
from mipyme_backup.encryption import Encryption
from mipyme_backup.journal import Journal
from mipyme_backup.lock import project_lock
from mipyme_backup.messages import Message
from mipyme_backup.policy.retention import Policy
from mipyme_backup.private_files import make_folder
from mipyme_backup.sources.base import Source
from mipyme_backup.sources.database import DatabaseSource
from mipyme_backup.sources.media import MediaSource
from mipyme_backup.sources.media.folders import remove_tree


class Progress(Protocol):
    """Told what goes on; `total` is in bytes, None where nobody knows it."""

    def step(self, message: Message, total: int | None = None) -> None: ...

    def advance(self, size: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Project:
    """The parts. `sources` and `destinations` are in the order of the settings.

    `signing_key` is (fingerprint, secret) of what authenticates new manifests, and
    `trusted_keys` all that may authenticate old ones. `retention` gives the policy of a
    destination by its name.
    """

    name: str
    state_dir: Path
    sources: Mapping[str, Source]
    databases: DatabaseSource
    media: MediaSource
    destinations: Mapping[str, Destination]
    encryption: Encryption | None
    signing_key: tuple[str, bytes] | None
    trusted_keys: Mapping[str, bytes]
    volume_size: int
    jobs: int
    keep_replaced: timedelta
    retention: Callable[[str], Policy]
    max_shrink: float
    catalog: Catalog

    @property
    def journal(self) -> Journal:
        return Journal(self.state_dir)

    def lock(
        self, operation: str, *, wait: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the project's lock; raises LockedError where another run holds it."""
        return project_lock(
            self.state_dir,
            self.name,
            operation,
            server_locks=self.databases.server_locks(),
            wait=wait,
        )

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Yield a private folder in `STATE_DIR` that is gone afterwards."""
        root = self.state_dir / "work"
        make_folder(root)
        folder = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root)
        try:
            yield Path(folder)
        finally:
            _remove(Path(folder))

    def sweep_work(self) -> None:
        """Remove what runs that died left unfinished here. Call it with the lock held, at first.

        Every work folder: in a container the next run often has the process id of one that died.
        """
        for folder in (self.state_dir / "work").glob("*"):
            _remove(folder)
        for file in self.state_dir.glob("*/*.tmp"):
            file.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Remove a work folder; media in it may have folders that nobody may write to."""
    with contextlib.suppress(OSError):
        remove_tree(folder)
