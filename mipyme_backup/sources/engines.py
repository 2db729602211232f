"""The databases that can be saved, by Django's name of their vendor.

To add one, add a folder that has an `Engine`, and its line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from mipyme_backup.messages import Message
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Condition, Facts, ServerLock, Snapshot, Target, Where

ENGINES = {
    "postgresql": "mipyme_backup.sources.postgresql.engine.PostgreSQL",
    "sqlite": "mipyme_backup.sources.sqlite.engine.SQLite",
}


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database of the project, by its entry in ``DATABASES``: as backups reach it (`settings`),
    as restores do, and as the `site` does.

    `bin_dir` is where the client tools are, None where they are looked for.
    """

    alias: str
    settings: Mapping[str, Any]
    restore_settings: Mapping[str, Any]
    site: Mapping[str, Any]
    bin_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Dump:
    """What a backup holds of a database: the facts of its main artifact, and the raw bytes of all.

    `restore_id` is the id of the restore, or drill, that loads it.
    """

    facts: Facts
    raw_size: int
    restore_id: str


class Engine(Protocol):
    """All that a backup and a restore need to know of one kind of database."""

    suffix: str
    """What the name of the main artifact ends in: see `artifact_name`."""

    def identity(self, database: Database) -> tuple[str, ...]:
        """Return what two aliases have in common that are one database."""

    def origin(self, database: Database) -> Mapping[str, str]:
        """Return the ``name`` of the database and its ``place``, a server or folder; see `Source`.

        Empty where the settings do not name it. Asks no server.
        """

    def server(self, database: Database) -> tuple[str, ...] | None:
        """Return the same for two databases of one server; None where there is no server."""

    def server_lock(self, database: Database) -> ServerLock:
        """Return an advisory lock on the server."""

    def preflight(self, database: Database) -> Iterable[Message]:
        """Return what is doubtful; raises PreflightError for what makes saving impossible."""

    def condition(
        self, database: Database, *, wanted: frozenset[str], held: frozenset[str]
    ) -> Condition:
        """Return how the database is, which should have the tables `wanted`; never raises for one
        that is away.

        `held` are tables that had rows, as the facts of the main artifact name them.
        """

    def open_snapshot(
        self, database: Database, *, work_dir: Path, without_rows: frozenset[str]
    ) -> Snapshot:
        """Open one consistent view; the rows of `without_rows` stay out of it."""

    def check_content(self, database: Database, reader: Reader, facts: Facts) -> None:
        """Parse a raw dump to its end; raises DamagedError for what is wrong."""

    def target(self, database: Database, dump: Dump, where: Where) -> Target:
        """Return where the dump is restored to."""

    def drill_target(self, database: Database, dump: Dump, file: Path) -> Target:
        """Return a database to be looked at and removed again: at `file`, or on the server."""

    def restored_target(
        self, database: Database, state: dict[str, Any], *, elsewhere: bool
    ) -> Target:
        """Return the target of a journal; raises StateError where it is none of `database`."""

    def path_elsewhere(self, name: str) -> Path | None:
        """Return the file that ``--to-database`` `name` means; None for one on a server."""

    def broken_rules(self, connection: BaseDatabaseWrapper) -> Iterator[Message]:
        """Yield what Django's check of constraints does not find; may change the database."""

    def sequences_behind(self, connection: BaseDatabaseWrapper) -> Iterable[str]:
        """Return the sequences whose next value a key already has."""


@cache
def engine_of(vendor: str) -> Engine | None:
    """Return the engine for a vendor as ``connection.vendor`` names it; None for an unknown one."""
    path = ENGINES.get(vendor)
    return None if path is None else cast("Callable[[], Engine]", import_string(path))()
