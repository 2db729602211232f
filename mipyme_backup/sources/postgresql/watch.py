"""Gives way: ends our sessions when somebody waits too long for a lock behind them.

An ``ALTER TABLE`` waits for our shared locks, and every query that comes after it waits for the
``ALTER TABLE``: the whole site would hang until a long backup ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from mipyme_backup.errors import PreflightError
from mipyme_backup.sources.postgresql.connection import connect

logger = logging.getLogger("mipyme_backup")

# Sessions of the run are known by their application_name. Waits for anything but a table (an
# index built concurrently waits for our snapshot) hold nobody else up.
LONGEST_WAIT = """
    WITH ours AS (SELECT coalesce(array_agg(pid), '{}') AS pids
                  FROM pg_catalog.pg_stat_activity WHERE application_name = %s)
    SELECT max(extract(epoch FROM clock_timestamp() - w.waitstart))
    FROM pg_catalog.pg_locks w, ours
    WHERE NOT w.granted AND w.locktype = 'relation' AND w.pid <> ALL (ours.pids)
          AND pg_catalog.pg_blocking_pids(w.pid) && ours.pids
"""
END_OURS = """
    SELECT pg_catalog.pg_terminate_backend(pid)
    FROM pg_catalog.pg_stat_activity WHERE application_name = %s
"""


class Watcher:
    """A thread that polls once in `interval` seconds; `lost` is set when it has given way."""

    def __init__(
        self,
        alias: str,
        settings_dict: Mapping[str, Any],
        *,
        application: str,
        patience: float,
        interval: float = 1.0,
    ) -> None:
        self.lost = threading.Event()
        self._stopped = threading.Event()
        self._alias = alias
        self._settings = settings_dict
        self._application = application
        self._patience = patience
        self._interval = interval
        self._connection: BaseDatabaseWrapper | None = self._connect()
        self._thread = threading.Thread(target=self._watch, name="mipyme_backup-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; may be called twice."""
        self._stopped.set()
        self._thread.join()

    def _connect(self) -> BaseDatabaseWrapper:
        # Without the assumed role: it might not see, nor end, sessions of the login role.
        return connect(
            self._alias,
            self._settings,
            application=f"{self._application}_watch",
            assume_role=False,
        )

    def _watch(self) -> None:
        try:
            while not self.lost.is_set() and not self._stopped.wait(self._interval):
                self._look()
        finally:
            if self._connection is not None:
                self._connection.close()

    def _look(self) -> None:
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.cursor() as cursor:
                cursor.execute(LONGEST_WAIT, [self._application])
                waited = cursor.fetchone()[0]
                if waited is not None and waited > self._patience:
                    self.lost.set()
                    cursor.execute(END_OURS, [self._application])
        except (Error, PreflightError) as error:
            logger.warning("The watch over locks on %s was interrupted: %s", self._alias, error)
            if self._connection is not None:
                self._connection.close()
            self._connection = None
