"""PostgreSQL: an exported snapshot to read from, and a database beside the live one to fill."""

from __future__ import annotations

from mipyme_backup.sources.postgresql.condition import condition_of
from mipyme_backup.sources.postgresql.connection import identity
from mipyme_backup.sources.postgresql.in_place import InPlaceTarget
from mipyme_backup.sources.postgresql.parse import check_dump
from mipyme_backup.sources.postgresql.snapshot import PostgreSQLSnapshot, preflight
from mipyme_backup.sources.postgresql.target import PostgreSQLTarget

__all__ = [
    "InPlaceTarget",
    "PostgreSQLSnapshot",
    "PostgreSQLTarget",
    "check_dump",
    "condition_of",
    "identity",
    "preflight",
]
