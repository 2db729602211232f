"""What each channel was told, a file each in `STATE_DIR`, replaced whole and private."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from mipyme_backup.errors import StateError
from mipyme_backup.policy.alerting import Record, Told
from mipyme_backup.policy.status import LEVELS
from mipyme_backup.state import State

VERSION = 1
FOLDER = "alerts"
LOCK_SECONDS = 120.0
POLL_SECONDS = 0.1

logger = logging.getLogger("mipyme_backup")


class Records:
    """The records below the folder `state_dir`, by the key of their channel.

    Nothing here raises for a disk that is full, or a folder that is not ours: an alert that comes
    again is better than none, and that disk may be what it tells of.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state = State(state_dir)
        self._folder = state_dir / FOLDER

    def prepare(self) -> None:
        """Make the folder, so that a look afterwards sees what the next one will see."""
        with self._warned():
            self._state.make(FOLDER)

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Hold the lock of a channel, if it can be had within LOCK_SECONDS; say whether it is."""
        with contextlib.ExitStack() as stack:
            held = False
            with self._warned():
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                file = stack.enter_context(os.fdopen(os.open(self._lock(key), flags, 0o600), "r+"))
                held = _flock(file.fileno())
            yield held

    def read(self, key: str) -> Record:
        """Return the record of a channel; nothing was told where it is absent or damaged."""
        try:
            return self._state.recall(_name(key), _record) or Record()
        except StateError as error:
            logger.warning("%s Alerts may come again.", error)
            return Record()

    def write(self, key: str, record: Record) -> None:
        """Keep the record of a channel on disk, synced, in place of the one before."""
        with self._warned():
            self._state.write(_name(key), _document(record))

    def _lock(self, key: str) -> Path:
        return self._folder / f"{key}.lock"

    @contextlib.contextmanager
    def _warned(self) -> Iterator[None]:
        try:
            yield
        except (OSError, StateError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            logger.warning(
                "%s cannot be written to (%s): alerts may come again.", self._folder, reason
            )


def _name(key: str) -> str:
    return f"{FOLDER}/{key}.json"


def _flock(descriptor: int) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True


def _document(record: Record) -> dict[str, Any]:
    return {
        "version": VERSION,
        "digest_at": record.digest_at.isoformat() if record.digest_at else None,
        "findings": {
            name: {
                "level": told.level,
                "since": told.since.isoformat(),
                "text": told.text,
                "owed": told.owed,
            }
            for name, told in record.findings.items()
        },
    }


def _record(document: Any) -> Record:
    """Return the record; raises one of many errors where the document is none."""
    if document["version"] != VERSION:
        raise ValueError("of another version")
    digest_at = document["digest_at"]
    return Record(
        digest_at=None if digest_at is None else _moment(digest_at),
        findings={name: _told(entry) for name, entry in document["findings"].items()},
    )


def _told(entry: Any) -> Told:
    level, text, owed = entry["level"], entry["text"], entry["owed"]
    if level not in LEVELS or not isinstance(text, str) or not isinstance(owed, bool):
        raise ValueError("not what was written")
    return Told(level=level, since=_moment(entry["since"]), text=text, owed=owed)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment
