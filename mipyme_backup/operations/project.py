"""What every operation works with: the parts of one project, built by `api` from the settings."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mipyme_backup import former_state
from mipyme_backup.catalog import Catalog
from mipyme_backup.destinations import Destination
from mipyme_backup.encryption import Encryption
from mipyme_backup.errors import PreflightError, StateError
from mipyme_backup.journal import Journal
from mipyme_backup.lock import ProjectLock, ServerLock, project_lock
from mipyme_backup.messages import Message, _
from mipyme_backup.places import is_forgotten, why_misplaced
from mipyme_backup.policy.retention import Policy
from mipyme_backup.private_files import UNFINISHED
from mipyme_backup.removal import remove_tree
from mipyme_backup.sources.base import Source
from mipyme_backup.state import State
from mipyme_backup.translation import translated, warn

T = TypeVar("T")
logger = logging.getLogger("mipyme_backup")


class Progress(Protocol):
    """Told what goes on; `total` is in bytes, None where nobody knows it."""

    def step(self, message: Message, total: int | None = None) -> None: ...

    def advance(self, size: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Project:
    """The parts. `sources` and `destinations` are in the order of the settings.

    `sources` are what is saved, by name; `find_source` knows what was saved earlier as well, for
    its backups are still restored, and returns None for what no entry of the settings stands for.
    `server_locks` keep the runs of other hosts away.
    `former_state_dir` is where earlier versions kept the state, None where that is the same.
    `local_folders` are those of the destinations that are folders of this machine.
    `signing_key` is (fingerprint, secret) of what authenticates new manifests, and
    `trusted_keys` all that may authenticate old ones. `retention` gives the policy of a
    destination by its name. `named_by_default` says that `name` is the settings module's, for want
    of another. `ignored` are the records of `STATE_DIR` that did not count in this run, by what is
    wrong with them.
    """

    name: str
    state_dir: Path
    former_state_dir: Path | None
    local_folders: Sequence[Path]
    sources: Mapping[str, Source]
    find_source: Callable[[str], Source | None]
    server_locks: Callable[[], Sequence[ServerLock]]
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
    named_by_default: bool = False
    ignored: dict[str, StateError] = field(default_factory=dict)

    @property
    def state(self) -> State:
        return State(self.state_dir)

    @property
    def journal(self) -> Journal:
        return Journal(self.state)

    @property
    def misplaced(self) -> str:
        """What is wrong with the place of `STATE_DIR`, "" where nothing is."""
        return why_misplaced(self.state_dir, self.local_folders)

    @property
    def waiting_state_dir(self) -> Path | None:
        """`former_state_dir` while nothing is taken from there, as it would be lost in `state_dir`.

        None else: what is in the container as well cannot be lost by moving it.
        """
        former = self.former_state_dir
        if former is None or not is_forgotten(self.state_dir) or is_forgotten(former):
            return None
        return former

    def recall(self, name: str, parse: Callable[[Any], T], default: T) -> T:
        """Return what a record of `STATE_DIR` says; `default` where it is absent or ignored."""
        try:
            found = self.state.recall(name, parse)
        except StateError as error:
            self.ignore(error)
            return default
        return default if found is None else found

    def remember(self, name: str, record: Any) -> None:
        """Keep a record in `STATE_DIR`; raises PreflightError where that cannot be done."""
        try:
            self.state.write(name, record)
        except OSError as error:
            raise PreflightError(
                _("%(file)s cannot be written: %(reason)s"),
                hint=_("STATE_DIR needs some room, and must be ours to write."),
                file=self.state_dir / name,
                reason=error.strerror or error,
            ) from error

    def ignore(self, error: StateError) -> None:
        """Tell, once in this run, that a record does not count."""
        if str(error) not in self.ignored:
            self.ignored[str(error)] = error
            logger.warning("%s %s", translated(error.message), translated(error.hint))

    @contextlib.contextmanager
    def lock(self, operation: str, *, wait: bool = False) -> Iterator[ProjectLock]:
        """Hold the project's lock; raises LockedError where another run holds it."""
        with project_lock(
            self.state_dir,
            self.name,
            operation,
            server_locks=self.server_locks(),
            wait=wait,
        ) as held:
            self._adopt_former_state()
            yield held

    def _adopt_former_state(self) -> None:
        """Move what an earlier version kept in a destination to where it belongs, once."""
        if self.former_state_dir is None or self.waiting_state_dir is not None:
            return
        try:
            left = former_state.adopt(self.state, self.former_state_dir)
        except (OSError, StateError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message
            text = _("What %(former)s holds was not moved to %(folder)s: %(reason)s")
            warn(logger, text, former=self.former_state_dir, folder=self.state_dir, reason=reason)
            return
        for path in left:
            text = _(
                "%(path)s was not moved to %(folder)s: it is not a private file or folder of this"
                " user. If you know it to be yours, move it yourself; otherwise delete it."
            )
            warn(logger, text, path=path, folder=self.state_dir)

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Yield a private folder in `STATE_DIR` that is gone afterwards."""
        root = self.state.make("work")
        folder = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root)
        try:
            yield Path(folder)
        finally:
            _remove(Path(folder))

    def sweep_work(self) -> None:
        """Remove what runs that died left unfinished here. Call it with the lock held, at first.

        Every work folder: in a container the next run often has the process id of one that died.
        """
        for folder in self.state.make("work").iterdir():
            _remove(folder)
        for name in ("runs", "restores"):  # written with the lock held alone
            for file in self.state.make(name).iterdir():
                if file.suffix in {UNFINISHED, ".tmp"}:  # the second by earlier versions
                    with contextlib.suppress(OSError):
                        file.unlink()


def _remove(folder: Path) -> None:
    """Remove a work folder; media in it may have folders that nobody may write to."""
    with contextlib.suppress(OSError):
        remove_tree(folder)
