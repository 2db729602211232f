"""A thread for each destination: a slow or dead one neither stops nor slows the others."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mipyme_backup.destinations import Destination
from mipyme_backup.errors import BackupError, DestinationError, memory_shortage
from mipyme_backup.messages import _

Job = Callable[[Destination], None]


class Lane:
    """One destination, and the thread that alone talks to it: one job after the other.

    The first job that raises ends the lane: `error` says why, and what still waits is dropped.
    `behind` is for the caller to note a lane that is fed no more.
    """

    def __init__(self, name: str, destination: Destination, changed: threading.Condition) -> None:
        self.name = name
        self.destination = destination
        self.error: BackupError | None = None
        self.behind = False
        self._changed = changed
        self._jobs: deque[tuple[Job, Callable[[], None]]] = deque()
        self._busy = self._closed = False
        # A call into a library may hang for ever, and must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name=f"to {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs have not come to their end."""
        return len(self._jobs) + self._busy

    @property
    def failure(self) -> BackupError | None:
        """Why the lane ended."""
        return self.error

    def submit(self, job: Job, done: Callable[[], None] = lambda: None) -> None:
        """Have `job` run in its turn; `done` is called after it, and where it is dropped."""
        with self._changed:
            if self.error is None and not self._closed:
                self._jobs.append((job, done))
                self._changed.notify_all()
                return
        done()

    def drop(self) -> None:
        """Drop what waits; what runs goes on."""
        with self._changed:
            dropped = [*self._jobs]
            self._jobs.clear()
            self._changed.notify_all()
        for _job, done in dropped:
            done()

    def restart(self) -> None:
        """Let a lane that ended take jobs again."""
        with self._changed:
            self.error = None

    def close(self) -> None:
        """End the thread after what runs now."""
        with self._changed:
            self._closed = True
        self.drop()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            job, done = taken
            try:
                job(self.destination)
            except BackupError as error:
                self.error = error
            except Exception as error:  # noqa: BLE001 - it costs this destination its copy alone
                self.error = memory_shortage(error) or _unforeseen(self.name, error)
            finally:
                done()
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
            if self.error is not None:
                self.drop()

    def _take(self) -> tuple[Job, Callable[[], None]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            self._busy = True
            return self._jobs.popleft()


def _unforeseen(name: str, error: Exception) -> DestinationError:
    """Return what a fault of a library, or of ours, is to the backup.

    Where it arose is told, and not what it says: that may hold a secret.
    """
    frame = traceback.extract_tb(error.__traceback__)[-1]
    failure = DestinationError(
        _("The destination %(name)s failed for no known reason: %(kind)s in %(file)s:%(line)d"),
        hint=_("Please report it, with the versions of what is installed."),
        name=name,
        kind=type(error).__name__,
        file=frame.filename,
        line=frame.lineno,
    )
    failure.__cause__ = error
    return failure


class Lanes(Mapping[str, Lane]):
    """The lanes by the names of their destinations; a context that ends their threads."""

    def __init__(self, destinations: Mapping[str, Destination]) -> None:
        self._changed = threading.Condition()
        self._lanes = {
            name: Lane(name, destination, self._changed)
            for name, destination in destinations.items()
        }

    def __getitem__(self, name: str) -> Lane:
        return self._lanes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_exception: Any) -> None:
        for lane in self._lanes.values():
            lane.close()

    @property
    def busy(self) -> bool:
        return any(lane.waiting for lane in self._lanes.values())

    def failures(self) -> list[BackupError]:
        return [lane.failure for lane in self._lanes.values() if lane.failure is not None]

    def wait(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `condition` holds, asked again at whatever a lane does; say whether it does.

        In short turns, so that Ctrl-C is heard.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not condition():
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                self._changed.wait(0.2)
        return True
