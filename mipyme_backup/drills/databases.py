"""What must hold of each restored database: no migration missing, no rule broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import run_checks
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.postgresql import content, counting
from mipyme_backup.sources.postgresql.connection import unshadowed


def check(aliases: Sequence[str]) -> Iterator[str]:
    """Yield every error of ``manage.py check``."""
    for message in run_checks(databases=list(aliases)):
        if message.is_serious() and not message.is_silenced():
            yield f"{message.id}: {message.msg}"


def migrations(aliases: Sequence[str]) -> Iterator[str]:
    """Yield every migration that ``migrate --check`` would ask for.

    A database that migrations never touched is none of theirs.
    """
    for alias in aliases:
        executor = MigrationExecutor(connections[alias])
        if alias != "default" and not executor.recorder.has_table():
            continue
        executor.loader.check_consistent_history(connections[alias])
        for migration, _backwards in executor.migration_plan(executor.loader.graph.leaf_nodes()):
            text = _("the migration %(name)s is not applied: run migrate after a restore")
            yield f"{alias}: {Message(text, {'name': migration})}"


def constraints(aliases: Sequence[str]) -> Iterator[str]:
    """Yield every constraint that rows break, those included that were never validated."""
    for alias in aliases:
        connection = connections[alias]
        try:
            connection.check_constraints()
        except Error as error:
            yield f"{alias}: {error}"
        if connection.vendor == "postgresql":
            yield from _not_valid(alias, connection)


def _not_valid(alias: str, connection: BaseDatabaseWrapper) -> Iterator[str]:
    with unshadowed(connection) as cursor:
        invalid = content.names(cursor, content.INVALID_INDEXES)
        unvalidated = content.names(cursor, content.OWN_UNVALIDATED)
    for index in invalid:
        yield f"{alias}: {Message(_('the index %(name)s is not valid'), {'name': index})}"
    for name in unvalidated:
        table, _dot, constraint = name.rpartition(".")
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}")
        except Error as error:
            yield f"{alias}: {' '.join(str(error).split())}"


def sequences(aliases: Sequence[str]) -> Iterator[str]:
    """Yield every sequence whose next value a key already has."""
    for alias in aliases:
        connection = connections[alias]
        if connection.vendor == "postgresql":
            with unshadowed(connection) as cursor:
                behind = counting.sequences_behind(cursor)
        else:
            with connection.cursor() as cursor:
                behind = _sqlite_sequences_behind(cursor)
        for name in behind:
            text = _("the sequence %(name)s is behind its column")
            yield f"{alias}: {Message(text, {'name': name})}"


def _sqlite_sequences_behind(cursor: Any) -> list[str]:
    cursor.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")
    if not cursor.fetchone()[0]:
        return []
    cursor.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name")
    behind = []
    for name, value in cursor.fetchall():
        quoted = '"{}"'.format(name.replace('"', '""'))
        cursor.execute(f"SELECT max(rowid) FROM {quoted}")  # noqa: S608 - quoted above
        highest = cursor.fetchone()[0]
        if highest is not None and highest > value:
            behind.append(name)
    return behind
