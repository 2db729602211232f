"""How the live databases are, beside what the newest good backup has of them."""

from __future__ import annotations

import contextlib

from mipyme_backup.errors import BackupError
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.sequence import newest_known
from mipyme_backup.policy.status_facts import BackupFacts, DatabaseFacts, Facts
from mipyme_backup.sources.condition import tables_of


def database_facts(project: Project, newest: BackupFacts | None) -> list[DatabaseFacts]:
    """Return the facts of each database that is saved; `newest` is what it is held against."""
    rows = newest.rows if newest is not None else {}
    found = []
    for source in project.sources.values():
        alias = source.alias
        if alias is None:
            continue
        with contextlib.suppress(BackupError):  # its settings are wrong: the next backup tells
            tables = tables_of(alias, rows)
            held = [table for table, count in tables.items() if count]
            condition = source.condition(held=held)
            found.append(DatabaseFacts(alias=alias, condition=condition, held=bool(tables)))
    return found


def facts_by_memory(project: Project) -> Facts:
    """Return what can be known of the databases without asking a destination or the catalog."""
    return Facts(
        destinations=[],
        backups=[],
        highest_known=newest_known(project),
        databases=database_facts(project, None),
    )
