"""Databases as sources: one for each database that the settings name, by its vendor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from django.db import connections

from mipyme_backup.errors import ConfigurationError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import Reader
from mipyme_backup.sources import postgresql, sqlite
from mipyme_backup.sources.base import (
    Artifact,
    Facts,
    Snapshot,
    Source,
    Target,
    View,
    artifact_name,
    require_own,
)
from mipyme_backup.sources.postgresql.advisory import AdvisoryLock
from mipyme_backup.sources.postgresql.parse import check_dump
from mipyme_backup.sources.sqlite.parse import check_file

PREFIX = "database:"
TARGETS_BY_VENDOR = {
    "sqlite": {"sqlite"},
    "postgresql": {"postgresql", "postgresql_in_place"},
}
"""The ``type`` in the state of a target, by the vendor of its database."""


class DatabaseSource(Source):
    """The databases of the project.

    `aliases` are the ones to save (default: all), two that are one database are saved once.
    `connections` overrides entries of ``DATABASES`` by alias, for a project whose own go
    through a pooler, or that backs up as another role than the site's. `restore_connections`
    overrides these again for restores and drills, which need more rights. `bin_dir` is where
    PostgreSQL's client tools are, if not where they are looked for.
    """

    name = "database"
    needs_snapshot = True

    def __init__(
        self,
        *,
        aliases: Sequence[str] | None = None,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        restore_connections: Mapping[str, Mapping[str, Any]] | None = None,
        bin_dir: str | Path | None = None,
    ) -> None:
        self._aliases = aliases
        self._overrides = connections or {}
        self._restore_overrides = restore_connections or {}
        self._bin_dir = Path(bin_dir) if bin_dir else None

    @cached_property
    def aliases(self) -> list[str]:
        """The aliases to save, one for each distinct database; the first name counts."""
        known = list(connections.settings)
        for alias in [*(self._aliases or ()), *self._overrides, *self._restore_overrides]:
            if alias not in known:
                raise ConfigurationError(
                    _("SOURCES names the database %(alias)s, which is not in DATABASES."),
                    hint=_("Known aliases: %(known)s"),
                    alias=alias,
                    known=", ".join(known),
                )
        if self._aliases is not None and not self._aliases:
            raise ConfigurationError(
                _("SOURCES names no database: its aliases are empty."),
                hint=_("Leave the option out for all databases, or the source for none."),
            )
        distinct: dict[tuple[Any, ...], str] = {}
        for alias in self._wanted():
            distinct.setdefault(self._identity(alias), alias)
        return list(distinct.values())

    def split(self) -> list[Source]:
        return [_AliasSource(self, alias) for alias in self.aliases]

    def artifacts(self, view: View) -> Iterator[Artifact]:
        for source in self.split():
            yield from source.artifacts(view)

    def settings(self, alias: str) -> dict[str, Any]:
        """Return the ``DATABASES`` entry of `alias` with this source's overrides."""
        return _overridden(connections.settings[alias], self._overrides.get(alias, {}))

    def restore_settings(self, alias: str) -> dict[str, Any]:
        """Return the entry with which `alias` is restored: that of `settings`, overridden again."""
        return _overridden(self.settings(alias), self._restore_overrides.get(alias, {}))

    def vendor(self, alias: str) -> str:
        """Return ``postgresql`` or ``sqlite``; raises ConfigurationError for any other."""
        vendor = str(connections[alias].vendor)
        if vendor not in {"postgresql", "sqlite"}:
            raise ConfigurationError(
                _("The database %(alias)s is on %(vendor)s, which cannot be saved yet."),
                hint=_("Leave it out with SOURCES['database']['OPTIONS']['aliases']."),
                alias=alias,
                vendor=vendor,
            )
        return vendor

    def preflight_alias(self, alias: str) -> Iterator[Message]:
        """Yield what is doubtful of one database; raises what makes saving it impossible."""
        if self.vendor(alias) == "postgresql":
            yield from postgresql.preflight(alias, self.settings(alias), bin_dir=self._bin_dir)
        else:
            sqlite.preflight(alias, self.settings(alias))

    def open_snapshot(
        self, alias: str, *, work_dir: Path, without_rows: frozenset[str]
    ) -> Snapshot:
        """Open one consistent view of the database; the rows of `without_rows` stay out of it."""
        if self.vendor(alias) == "sqlite":
            return sqlite.SQLiteSnapshot(
                alias, self.settings(alias), work_dir=work_dir, without_rows=without_rows
            )
        return postgresql.PostgreSQLSnapshot(
            alias, self.settings(alias), without_rows=without_rows, bin_dir=self._bin_dir
        )

    def target(
        self,
        alias: str,
        *,
        restore_id: str,
        facts: Facts,
        raw_size: int,
        to_database: str | None,
        in_place: bool = False,
    ) -> Target:
        """Return where a backup of `alias` is restored to; RestoreError for another engine.

        `facts` and `raw_size` (bytes) are those of its artifact. `in_place` is for a role that
        may not create databases; an SQLite file is swapped as ever.
        """
        self._require_engine(alias, facts)
        if self.vendor(alias) == "sqlite":
            return sqlite.SQLiteTarget.prepare(
                alias=alias,
                settings_dict=self.restore_settings(alias),
                restore_id=restore_id,
                to_database=to_database,
                raw_size=raw_size,
            )
        if in_place:
            return postgresql.InPlaceTarget.prepare(
                alias=alias,
                settings_dict=self.restore_settings(alias),
                restore_id=restore_id,
                facts=facts,
                bin_dir=self._bin_dir,
            )
        return postgresql.PostgreSQLTarget.prepare(
            alias=alias,
            settings_dict=self.restore_settings(alias),
            restore_id=restore_id,
            facts=facts,
            to_database=to_database,
            bin_dir=self._bin_dir,
            site=connections.settings[alias],
        )

    def drill_target(
        self, alias: str, *, drill_id: str, facts: Facts, raw_size: int, folder: Path
    ) -> Target:
        """Return where a backup of `alias` is loaded to be looked at and removed again.

        On a server that is a database of its own, else a file in `folder`. Raises as `target`
        does.
        """
        self._require_engine(alias, facts)
        if self.vendor(alias) == "sqlite":
            return self.target(
                alias,
                restore_id=drill_id,
                facts=facts,
                raw_size=raw_size,
                to_database=str(folder / artifact_name(alias, "sqlite3")),
            )
        return postgresql.PostgreSQLTarget.prepare(
            alias=alias,
            settings_dict=self.restore_settings(alias),
            restore_id=drill_id,
            facts=facts,
            bin_dir=self._bin_dir,
            site=connections.settings[alias],
            drill=True,
        )

    def saved_as(self, alias: str) -> str | None:
        """Return the alias under which this very database is saved; None where it is not.

        One that ``TEST`` calls a mirror of another (a replica) stands for that one.
        """
        mirrored = (connections.settings[alias].get("TEST") or {}).get("MIRROR")
        name = mirrored if mirrored in connections.settings else alias
        try:
            identity = self._identity(name)
        except ConfigurationError:
            return None
        return next((known for known in self.aliases if self._identity(known) == identity), None)

    def restored_target(self, state: dict[str, Any], *, elsewhere: bool) -> Target:
        """Return the target that another process kept in its journal.

        Raises StateError where it names other places than follow from the settings. Only what was
        restored `elsewhere` lies where the operator said.
        """
        settings = self.restore_settings(state["alias"])
        if state["type"] not in TARGETS_BY_VENDOR[self.vendor(state["alias"])]:
            require_own(state, {"type": self.vendor(state["alias"])})
        if state["type"] == "sqlite":
            sqlite.SQLiteTarget.check_state(state, settings, elsewhere=elsewhere)
            return sqlite.SQLiteTarget.from_state(state)
        if state["type"] == "postgresql_in_place":
            postgresql.InPlaceTarget.check_state(state, settings)
            return postgresql.InPlaceTarget.from_state(state, settings, self._bin_dir)
        postgresql.PostgreSQLTarget.check_state(state, settings, elsewhere=elsewhere)
        site = connections.settings[state["alias"]]
        return postgresql.PostgreSQLTarget.from_state(state, settings, self._bin_dir, site)

    def server_locks(self) -> list[Any]:
        """Return an advisory lock for each server that holds a database of the project.

        One for each server, not for each database: two of our sessions would exclude each other.
        """
        by_server: dict[tuple[str, ...], AdvisoryLock] = {}
        for alias in self._wanted():
            if connections[alias].vendor == "postgresql":
                settings = self.settings(alias)
                server = postgresql.identity(settings)[:-1]
                by_server.setdefault(server, AdvisoryLock(alias, settings))
        return list(by_server.values())

    def check_content(self, name: str, reader: Reader, facts: Facts) -> None:
        """Parse the raw dump `name` to its end; raises DamagedError for what is wrong."""
        if facts.get("engine") == "postgresql":
            check_dump(reader, int(facts["major"]), self._bin_dir)
        else:
            check_file(reader)

    def _require_engine(self, alias: str, facts: Facts) -> None:
        """Raise RestoreError where the settings lack the database, or it is of another engine."""
        if alias not in connections.settings:
            raise RestoreError(
                _("The backup holds the database %(alias)s, which is not in DATABASES."),
                hint=_("Add it to DATABASES, or restore others with --only."),
                alias=alias,
            )
        vendor = self.vendor(alias)
        if facts.get("engine") != vendor:
            raise RestoreError(
                _("The backup of %(alias)s is of %(saved)s, and the database here is %(here)s."),
                hint=_("Use the engine it was made on, or load the fixtures: --only fixtures"),
                alias=alias,
                saved=facts.get("engine"),
                here=vendor,
            )

    def _wanted(self) -> Sequence[str]:
        return list(connections.settings) if self._aliases is None else self._aliases

    def _identity(self, alias: str) -> tuple[Any, ...]:
        module = sqlite if self.vendor(alias) == "sqlite" else postgresql
        return (module.__name__, *module.identity(self.settings(alias)))


def _overridden(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    options = {**(entry.get("OPTIONS") or {}), **(given.get("OPTIONS") or {})}
    return {**entry, **given, "OPTIONS": options}


class _AliasSource(Source):
    """One database."""

    needs_snapshot = True

    def __init__(self, databases: DatabaseSource, alias: str) -> None:
        self._databases = databases
        self.alias = alias
        self.name = f"{PREFIX}{alias}"

    def preflight(self) -> Iterator[Message]:
        return self._databases.preflight_alias(self.alias)

    def artifacts(self, view: View) -> Iterator[Artifact]:
        yield view.snapshots[self.alias].artifact()
