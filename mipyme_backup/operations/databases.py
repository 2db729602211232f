"""Which databases sources read, by the aliases that they are saved by."""

from __future__ import annotations

from collections.abc import Sequence

from mipyme_backup.operations.project import Project
from mipyme_backup.sources.base import Source


def saved_databases(project: Project) -> dict[str, Source]:
    """Return the sources of the databases that are saved, by alias."""
    return {s.alias: s for s in project.sources.values() if s.alias is not None}


def databases_of(project: Project, sources: Sequence[Source]) -> dict[str, Source]:
    """Return those that `sources` read: their own; all, where one that saves none needs them."""
    readers = [source for source in sources if source.needs_snapshot]
    found = {source.alias: source for source in readers if source.alias is not None}
    needs_all = any(source.alias is None for source in readers)
    return {**found, **saved_databases(project)} if needs_all else found
