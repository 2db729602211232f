"""Destinations for the settings of a test: slow, down, or failing at the call that it is told."""

from __future__ import annotations

import fnmatch
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from django.core.files.storage import InMemoryStorage

from mipyme_backup.destinations import Destination, Entry, LocalDestination, StorageDestination
from mipyme_backup.errors import DeletionRefusedError, DestinationError
from mipyme_backup.process import Reader
from mipyme_backup.testing import Fault, FaultyDestination
from mipyme_backup.testing.doubles import Action, Verb


class FailingOnce(FaultyDestination):
    """A local folder; the call number `call` of `verb` fails, as `action` says.

    `made` is the newest one.
    """

    made: ClassVar[FailingOnce]

    def __init__(
        self, *, location: str | Path, verb: Verb, call: int, action: Action = "raise"
    ) -> None:
        fault = Fault(verb=verb, action=action, first=call)
        super().__init__(LocalDestination(location=location), fault)
        type(self).made = self


class FarAway(LocalDestination):
    """A local folder that counts as remote.

    Each put takes `seconds`; from put number `fails_at` on they fail for a reason that may pass,
    put number `dies_at` is the last thing that the process does; while `down`, `check` fails.
    `puts` are the names that were put; in the folder `watched` the queued volumes are counted at
    each put: `most` is their peak. `gave_up` is when `check` last failed, in seconds of the epoch.
    """

    remote = True
    puts: ClassVar[list[str]] = []
    most: ClassVar[int] = 0
    gave_up: ClassVar[float] = 0

    def __init__(
        self,
        *,
        location: str | Path,
        seconds: float = 0,
        fails_at: int | None = None,
        dies_at: int | None = None,
        down: bool = False,
        watched: str | Path | None = None,
    ) -> None:
        super().__init__(location=location)
        self._seconds = seconds
        self._fails_at = fails_at
        self._dies_at = dies_at
        self._down = down
        self._watched = watched

    def check(self) -> None:
        if self._down:
            time.sleep(self._seconds)
            type(self).gave_up = time.time()
            raise DestinationError("it is down", permanent=False)
        super().check()

    def put(self, name: str, file: Path) -> None:
        time.sleep(self._seconds)
        kind = type(self)
        if self._watched is not None:
            kind.most = max(kind.most, len([*Path(self._watched).glob("*/queued.*")]))
        if self._fails_at is not None and len(kind.puts) + 1 >= self._fails_at:
            raise DestinationError("the line is cut", permanent=False)
        kind.puts.append(name)
        if len(kind.puts) == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(name, file)


class Unanswering(LocalDestination):
    """A local folder that counts as remote, and answers nothing before another one has a backup.

    That is when the folder `watched` holds so many `manifests`. Nobody is kept for more than
    `seconds`: `in_the_way` are the calls that were given up then, as verb and name. Objects are
    kept back where they are called like the pattern `names`, and where that is not all of them,
    the calls that name none are answered at once.
    """

    remote = True
    in_the_way: ClassVar[list[tuple[str, str]]] = []

    def __init__(
        self,
        *,
        location: str | Path,
        watched: str | Path,
        manifests: int,
        seconds: float,
        names: str = "*",
    ) -> None:
        super().__init__(location=location)
        self._watched = Path(watched)
        self._manifests = manifests
        self._seconds = seconds
        self._names = names

    def check(self) -> None:
        self._keep_back("check")
        super().check()

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        self._keep_back("entries")
        yield from super().entries(prefix)

    listing = Destination.listing

    def open(self, name: str) -> Reader:
        self._keep_back("open", name)
        return super().open(name)

    def size(self, name: str) -> int | None:
        self._keep_back("size", name)
        return super().size(name)

    def put(self, name: str, file: Path) -> None:
        self._keep_back("put", name)
        super().put(name, file)

    def free_space(self) -> int | None:
        self._keep_back("free_space")
        return super().free_space()

    def _keep_back(self, verb: str, name: str = "") -> None:
        if not fnmatch.fnmatch(name, self._names):
            return
        deadline = time.monotonic() + self._seconds
        while len([*self._watched.glob("*/manifest.json")]) < self._manifests:
            if time.monotonic() > deadline:
                type(self).in_the_way.append((verb, name))
                raise DestinationError("it does not answer", permanent=False)
            time.sleep(0.02)


class OtherClock(LocalDestination):
    """A local folder that counts as remote, and whose clock is `days` ahead of this host's."""

    remote = True

    def __init__(self, *, location: str | Path, days: float) -> None:
        super().__init__(location=location)
        self._ahead = timedelta(days=days)

    def probe(self) -> None:
        super().probe()
        self.skew = self._ahead


class Interrupted(LocalDestination):
    """A folder of this machine; Ctrl-C comes a second before a put manifest is told of."""

    def put(self, name: str, file: Path) -> None:
        super().put(name, file)
        if name.endswith("/manifest.json"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


class BusyDisk(LocalDestination):
    """A folder of this machine whose disk takes `seconds` for each object."""

    def __init__(self, *, location: str | Path, seconds: float) -> None:
        super().__init__(location=location)
        self._seconds = seconds

    def put(self, name: str, file: Path) -> None:
        time.sleep(self._seconds)
        super().put(name, file)


class Keeping(InMemoryStorage):
    """A storage whose credentials may add, and not delete."""

    def delete(self, name: str) -> None:
        raise PermissionError(name)


class Broken(LocalDestination):
    """A destination with a fault in its code."""

    def __init__(self) -> None:
        super().__init__(location="/")

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        raise ZeroDivisionError

    listing = Destination.listing


class AddOnly(LocalDestination):
    """A local folder that refuses to delete what is called like the pattern `kept`."""

    def __init__(self, *, location: str | Path, kept: str = "*") -> None:
        super().__init__(location=location)
        self._kept = kept

    def delete(self, name: str) -> None:
        if fnmatch.fnmatch(name, self._kept):
            raise DeletionRefusedError("%(name)s is locked", name=name)
        super().delete(name)


class Dying(FaultyDestination):
    """A local folder, or a STORAGES alias; the process dies before or after deletion number `at`.

    The deletions are counted from 1; none is the last where `at` is 0. `deletions` are the names
    that were deleted in this process.
    """

    deletions: ClassVar[list[str]] = []

    def __init__(
        self,
        *,
        location: str | Path | None = None,
        storage: str = "",
        at: int = 0,
        before: bool = True,
    ) -> None:
        inner = (
            StorageDestination(storage=storage)
            if location is None
            else LocalDestination(location=location)
        )
        super().__init__(inner)
        self._at = at
        self._before = before

    def delete(self, name: str) -> None:
        last = len(type(self).deletions) + 1 == self._at
        if last and self._before:
            os.kill(os.getpid(), signal.SIGKILL)
        super().delete(name)
        type(self).deletions.append(name)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
