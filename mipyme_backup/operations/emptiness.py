"""A backup where the project's tables are not there: of a new project, or of a lost one."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from django.db import connections

from mipyme_backup.errors import BackupError, RestoreFirstError, SourceError
from mipyme_backup.manifest import Manifest, row_counts
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.databases import databases_of, saved_databases
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import Holdings, holdings
from mipyme_backup.results import Found
from mipyme_backup.sources.base import Source
from mipyme_backup.sources.condition import tables_of

SECONDS = 60.0
"""How long each destination is waited for that may hold the backups of what is gone."""


def without_tables(project: Project, sources: Sequence[Source]) -> list[str]:
    """Return the aliases, of the databases that `sources` read, that have no table of the project.

    Raises SourceError where one does not exist at all.
    """
    bare = []
    for alias, source in databases_of(project, sources).items():
        condition = source.condition()
        if condition == "missing" and connections[alias].vendor != "sqlite":
            raise SourceError(
                _("The database %(alias)s does not exist on its server."),
                hint=_(
                    "If it was lost: manage.py restore --latest. If it is new, create it, then run"
                    " manage.py migrate."
                ),
                alias=alias,
            )
        if condition in {"bare", "missing"}:
            bare.append(alias)
    return bare


def lost(
    project: Project,
    bare: Sequence[str],
    held: Mapping[str, Holdings],
    *,
    asked: Collection[str],
    allow: bool,
) -> list[str]:
    """Return which of the `bare` databases should have tables: all, or those that backups hold.

    All, where no database has any. Raises RestoreFirstError where backups hold tables of them, and
    it is not said to `allow` that. `held` is what those of the `asked` destinations hold that
    answered; the others are asked now, where this run does not use them.
    """
    if not bare:
        return []
    newest = _newest(project, held, asked)
    rows = row_counts(newest.facts) if newest is not None else {}
    tables = {alias: tables_of(alias, rows) for alias in bare}
    saved = [alias for alias in bare if tables[alias]]
    if newest is not None and saved and not allow:
        raise RestoreFirstError(
            _(
                "The database %(aliases)s has no table of the project, and the backup %(name)s of"
                " %(moment)s has %(count)d. Nothing was saved."
            ),
            hint=_(
                "Restore first: manage.py restore --latest. If the project is to begin without its"
                " old data: manage.py backup --allow-empty"
            ),
            aliases=", ".join(saved),
            name=newest.name,
            moment=f"{newest.snapshot_at:%Y-%m-%d %H:%M} UTC",
            count=sum(len(tables[alias]) for alias in saved),
        )
    return [*bare] if len(bare) == len(saved_databases(project)) else saved


def warnings(empty: Sequence[str]) -> list[Message]:
    """Return what a backup says of itself that was made without these databases' tables."""
    if not empty:
        return []
    text = _(
        "The database %(aliases)s has no table of the project: restore --latest skips this backup,"
        " and it does not count for the schedule."
    )
    return [Message(text, {"aliases": ", ".join(empty)})]


def _newest(
    project: Project, held: Mapping[str, Holdings], asked: Collection[str]
) -> Manifest | None:
    """Return the newest whole backup of the project that any destination shows."""
    found = [item.manifest for item in _all(project, held, asked) if item.manifest is not None]
    ours = [m for m in found if m.project == project.name and m.whole and m.kind != "safety"]
    return max(ours, key=lambda manifest: manifest.sequence, default=None)


def _all(project: Project, held: Mapping[str, Holdings], asked: Collection[str]) -> Iterator[Found]:
    """Yield what lies on all destinations, also on those that this run does not write to."""
    for name in project.destinations:
        if name in held:
            yield from held[name].backups
        elif name not in asked:
            with contextlib.suppress(BackupError):
                yield from holdings(project, name).backups
