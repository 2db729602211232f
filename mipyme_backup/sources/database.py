"""Databases as sources: one for each database that the settings name, by its engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from django.db import connections

from mipyme_backup.errors import ConfigurationError, RestoreError
from mipyme_backup.messages import Message, _
from mipyme_backup.policy.origin import FACT
from mipyme_backup.policy.own_rows import is_own
from mipyme_backup.sources.base import (
    Artifact,
    Condition,
    Contents,
    Facts,
    Openers,
    Restorable,
    ServerLock,
    Snapshot,
    Source,
    Target,
    View,
    Where,
    artifact_name,
    require_own,
)
from mipyme_backup.sources.condition import expected_tables
from mipyme_backup.sources.engines import Database, Dump, Engine, engine_of


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
            distinct.setdefault(self.identity(alias), alias)
        return list(distinct.values())

    def split(self) -> list[Source]:
        return [_OneDatabase(self, alias) for alias in self.aliases]

    def part(self, name: str) -> Source | None:
        key, _colon, alias = name.partition(":")
        return _OneDatabase(self, alias) if key == self.name and alias else None

    def artifacts(self, view: View) -> Iterator[Artifact]:
        for source in self.split():
            yield from source.artifacts(view)

    def server_locks(self) -> list[ServerLock]:
        """Return an advisory lock for each server that holds a database of the project.

        One for each server, not for each database: two of our sessions would exclude each other.
        """
        by_server: dict[tuple[Any, ...], ServerLock] = {}
        for alias in self._wanted():
            engine = engine_of(connections[alias].vendor)
            if engine is not None:
                database = self.database(alias)
                server = engine.server(database)
                if server is not None:
                    by_server.setdefault(server, engine.server_lock(database))
        return list(by_server.values())

    def database(self, alias: str) -> Database:
        """Return how the database `alias` is reached; raises RestoreError for an unknown one."""
        if alias not in connections.settings:
            raise RestoreError(
                _("The backup holds the database %(alias)s, which is not in DATABASES."),
                hint=_("Add it to DATABASES, or restore others with --only."),
                alias=alias,
            )
        site = connections.settings[alias]
        settings = _overridden(site, self._overrides.get(alias, {}))
        return Database(
            alias=alias,
            settings=settings,
            restore_settings=_overridden(settings, self._restore_overrides.get(alias, {})),
            site=site,
            bin_dir=self._bin_dir,
        )

    def engine(self, alias: str) -> Engine:
        """Return the engine of a database; raises ConfigurationError where there is none for it."""
        vendor = str(connections[alias].vendor)
        engine = engine_of(vendor)
        if engine is None:
            raise ConfigurationError(
                _("The database %(alias)s is on %(vendor)s, which cannot be saved yet."),
                hint=_("Leave it out with SOURCES['database']['OPTIONS']['aliases']."),
                alias=alias,
                vendor=vendor,
            )
        return engine

    def identity(self, alias: str) -> tuple[Any, ...]:
        """Return what is the same for two aliases of one database."""
        return (connections[alias].vendor, *self.engine(alias).identity(self.database(alias)))

    def _wanted(self) -> Sequence[str]:
        return list(connections.settings) if self._aliases is None else self._aliases


class _OneDatabase(Source):
    """One database, by its alias."""

    needs_snapshot = True
    place_option = "--to-database"

    def __init__(self, databases: DatabaseSource, alias: str) -> None:
        self._databases = databases
        self.alias: str = alias
        self.name = f"{databases.name}:{alias}"

    def preflight(self) -> Iterator[Message]:
        yield from self._engine.preflight(self._database)

    def artifacts(self, view: View) -> Iterator[Artifact]:
        artifact = view.snapshots[self.alias].artifact()
        yield replace(artifact, facts=lambda: {**artifact.facts(), FACT: self.origin()})

    def open_snapshot(self, *, work_dir: Path, without_rows: frozenset[str]) -> Snapshot:
        return self._engine.open_snapshot(
            self._database, work_dir=work_dir, without_rows=without_rows
        )

    def condition(self, *, held: Collection[str] = ()) -> Condition:
        wanted = expected_tables(self.alias)
        engine = engine_of(connections[self.alias].vendor)
        if engine is None or not wanted:
            return "unknown"
        kept = frozenset(filter(is_own, held))
        return engine.condition(self._database, wanted=wanted, held=kept)

    def stands_for(self, alias: str) -> bool:
        """Say whether both are one database; a mirror in ``TEST`` stands for what it mirrors."""
        mirrored = (connections.settings[alias].get("TEST") or {}).get("MIRROR")
        name = mirrored if mirrored in connections.settings else alias
        try:
            return self._databases.identity(name) == self._databases.identity(self.alias)
        except ConfigurationError:
            return False

    def check_content(self, artifact: str, openers: Openers, facts: Facts, work: Path) -> None:
        engine = engine_of(str(facts.get("engine"))) or self._engine
        engine.check_content(self._database, openers[artifact](), facts)

    def targets(self, restore_id: str, contents: Contents, where: Where) -> Sequence[Restorable]:
        dump = self._dump(restore_id, contents)
        target = self._engine.target(self._database, dump, where)
        return [Restorable(target=target, artifacts=[*contents], facts=dump.facts)]

    def drill_target(self, drill_id: str, contents: Contents, folder: Path) -> Restorable:
        dump = self._dump(drill_id, contents)
        file = folder / artifact_name(self.alias, self._engine.suffix)
        target = self._engine.drill_target(self._database, dump, file)
        return Restorable(target=target, artifacts=[*contents], facts=dump.facts)

    def restored_target(self, state: dict[str, Any], *, elsewhere: bool) -> Target:
        if self.alias not in connections.settings:
            raise RestoreError(
                _(
                    "A restore of the database %(alias)s is kept, which is not in DATABASES any"
                    " more."
                ),
                hint=_("Put it back there until KEEP_REPLACED_HOURS are over."),
                alias=self.alias,
            )
        require_own(state, {"alias": self.alias})
        return self._engine.restored_target(self._database, state, elsewhere=elsewhere)

    def path_elsewhere(self, where: Where) -> Path | None:
        name = where.to_database
        return None if name is None else self._engine.path_elsewhere(name)

    def describe(self, facts: Mapping[str, Facts]) -> Message | None:
        tables = [saved["tables"] for saved in facts.values() if "tables" in saved]
        return Message(
            _("%(tables)d tables, %(rows)d rows"),
            {
                "tables": sum(map(len, tables)),
                "rows": sum(sum(counts.values()) for counts in tables),
            },
        )

    def origin(self) -> Mapping[str, str]:
        if self.alias not in connections.settings:
            return {}
        engine = engine_of(str(connections[self.alias].vendor))
        return {} if engine is None else engine.origin(self._database)

    def place(self) -> Mapping[str, Any]:
        entry, vendor = self._database.settings, connections[self.alias].vendor
        server = ":".join(str(entry[key]) for key in ("HOST", "PORT") if entry.get(key))
        return {
            "kind": "database",
            "alias": self.alias,
            "vendor": vendor,
            "database": entry["NAME"],
            "user": entry.get("USER"),
            "server": server,
        }

    @property
    def _engine(self) -> Engine:
        return self._databases.engine(self.alias)

    @property
    def _database(self) -> Database:
        return self._databases.database(self.alias)

    def _dump(self, restore_id: str, contents: Contents) -> Dump:
        """Return what a backup holds of it.

        Raises RestoreError where the settings lack the database, or it is of another engine.
        """
        database, vendor = self._database, str(connections[self.alias].vendor)
        if _engine_name(contents) != vendor:
            raise RestoreError(
                _("The backup of %(alias)s is of %(saved)s, and the database here is %(here)s."),
                hint=_("Use the engine it was made on, or load the fixtures: --only fixtures"),
                alias=self.alias,
                saved=_engine_name(contents),
                here=vendor,
            )
        name = artifact_name(database.alias, self._engine.suffix)
        if name not in contents:
            raise RestoreError(
                _("The backup holds no %(name)s."),
                hint=_("Restore another backup, and report this one."),
                name=name,
            )
        return Dump(
            facts=contents[name].facts,
            raw_size=sum(saved.raw_size for saved in contents.values()),
            restore_id=restore_id,
        )


def _engine_name(contents: Contents) -> str:
    return next((str(s.facts["engine"]) for s in contents.values() if "engine" in s.facts), "")


def _overridden(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    options = {**(entry.get("OPTIONS") or {}), **(given.get("OPTIONS") or {})}
    return {**entry, **given, "OPTIONS": options}
