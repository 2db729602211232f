"""SQLite: a consistent copy to save, and a restore into the live file that can be killed."""

from __future__ import annotations

from mipyme_backup.sources.sqlite.condition import condition_of
from mipyme_backup.sources.sqlite.files import identity, preflight
from mipyme_backup.sources.sqlite.snapshot import SQLiteSnapshot
from mipyme_backup.sources.sqlite.target import SQLiteTarget

__all__ = ["SQLiteSnapshot", "SQLiteTarget", "condition_of", "identity", "preflight"]
