"""Progress for a page: kept about every two seconds, by a thread that no operation waits for.

The thread's connection is closed after each write, so that nothing of it stands in the way of a
cut-over. What it cannot write is lost: a page that lags is no reason to stop a backup.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from django.db import connections

from mipyme_backup.messages import Message

INTERVAL = 2.0
"""Seconds. Each write makes the copying of an SQLite database without WAL start over."""

logger = logging.getLogger("mipyme_backup")


class Reporter:
    """Calls `keep` with the fields of a task that say how far it is, for as long as it is entered.

    It does so without progress, too: that is the sign of life.
    """

    def __init__(
        self, keep: Callable[[Mapping[str, Any]], None], interval: float = INTERVAL
    ) -> None:
        self._keep = keep
        self._interval = interval
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._values: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def step(self, message: Message, total: int | None = None) -> None:
        with self._lock:
            self._values = {
                "step": str(message),
                "step_at": datetime.now(UTC),
                "done_bytes": 0,
                "total_bytes": total,
            }

    def advance(self, size: int) -> None:
        with self._lock:
            self._values["done_bytes"] = self._values.get("done_bytes", 0) + size

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            with self._lock:
                values = {**self._values, "seen_at": datetime.now(UTC)}
            try:
                self._keep(values)
            except Exception as error:  # noqa: BLE001 - silence would mean death
                logger.info("Progress was not kept: %s", error)
            finally:
                connections.close_all()
