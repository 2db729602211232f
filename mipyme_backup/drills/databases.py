"""What must hold of each restored database: no migration missing, no rule broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.core.checks import run_checks
from django.db import Error, connections
from django.db.migrations.executor import MigrationExecutor

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.engines import engine_of


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
        if engine := engine_of(connection.vendor):
            yield from (f"{alias}: {problem}" for problem in engine.broken_rules(connection))


def sequences(aliases: Sequence[str]) -> Iterator[str]:
    """Yield every sequence whose next value a key already has."""
    for alias in aliases:
        connection = connections[alias]
        engine = engine_of(connection.vendor)
        for name in engine.sequences_behind(connection) if engine else ():
            text = _("the sequence %(name)s is behind its column")
            yield f"{alias}: {Message(text, {'name': name})}"
