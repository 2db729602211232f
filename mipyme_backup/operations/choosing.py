"""Choosing a backup: by id, unique prefix or name, the newest, or the newest at a moment."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mipyme_backup.errors import (
    BackupError,
    DamagedError,
    DestinationError,
    NoBackupError,
    UsageError,
)
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import backups_on
from mipyme_backup.operations.sequence import hidden_newest
from mipyme_backup.results import Found
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A backup and the destinations that hold it, best first.

    Those that a verification found damaged come last, and remote ones after those of this
    machine; otherwise they are in the order of the settings. `warnings` are for whoever asked
    for the newest.
    """

    manifest: Manifest
    destinations: tuple[str, ...]
    warnings: tuple[Message, ...] = ()


def all_backups(project: Project, destination: str | None = None) -> list[Found]:
    """Return what every destination (or the named one) holds.

    Raises DestinationError when none of them can be listed.
    """
    names = [check_destination(project, destination)] if destination else list(project.destinations)
    return [item for items in listings(project, names).values() for item in items]


def listings(project: Project, names: Sequence[str]) -> dict[str, list[Found]]:
    """Return what each destination holds; one that cannot be listed has no entry.

    Raises DestinationError when none of them can be listed.
    """
    found: dict[str, list[Found]] = {}
    failure: BackupError | None = None
    for name in names:
        try:
            found[name] = backups_on(project, name)
        except DestinationError as error:
            text = _("Going on without the destination %(name)s: %(reason)s")
            warn(logger, text, name=name, reason=error)
            failure = error
    if failure is not None and not found:
        raise failure
    return found


def choose(
    project: Project,
    *,
    identifier: str | None = None,
    at: datetime | None = None,
    destination: str | None = None,
    only: Sequence[str] = (),
) -> Choice:
    """Return the backup that `identifier` names, or the newest good one at or before `at`.

    The newest holds all of the sources `only` (without it: is a whole one), and is never of
    kind ``safety``. Raises NoBackupError when nothing matches or several do, UsageError for an
    unknown destination or source, DamagedError when the named backup is unreadable or that of
    another project.
    """
    found = all_backups(project, destination)
    check_sources(project, only, found)
    matching = (
        _newest(project, found, at=at, only=only)
        if identifier is None
        else _named(found, identifier)
    )
    manifest = matching[0].manifest
    assert manifest is not None
    if manifest.project != project.name:
        raise DamagedError(
            _("The backup %(name)s is of the project %(other)s; this one is %(project)s."),
            hint=_("Set PROJECT where both are the same."),
            name=manifest.name,
            other=manifest.project,
            project=project.name,
        )
    damaged = project.catalog.damaged_copies()
    names = [item.destination for item in matching]
    names.sort(key=lambda name: project.destinations[name].remote)
    names.sort(key=lambda name: (manifest.id, name) in damaged)
    hidden = hidden_newest(project, found) if identifier is None and at is None else []
    return Choice(manifest=manifest, destinations=tuple(names), warnings=tuple(hidden))


def check_sources(project: Project, only: Sequence[str], found: Iterable[Found] = ()) -> None:
    """Raise UsageError for a name that is no source of the settings, nor of any backup `found`."""
    known = dict.fromkeys(project.sources)
    for item in found:
        if item.manifest is not None:
            known |= dict.fromkeys(source.name for source in item.manifest.sources)
    for name in only:
        if not any(name in {source, source.partition(":")[0]} for source in known):
            raise UsageError(
                _("There is no source %(name)s."),
                hint=_("Known sources: %(known)s"),
                name=name,
                known=", ".join(known),
            )


def _named(found: Iterable[Found], identifier: str) -> list[Found]:
    listed = list(found)
    hits = [
        item
        for item in listed
        if item.name in {identifier, identifier.rstrip("/")}
        or (identifier and item.manifest is not None and item.manifest.id.startswith(identifier))
    ]
    if not hits:
        unreadable = [item for item in listed if item.error is not None]
        raise NoBackupError(
            _("There is no backup %(identifier)s."),
            hint=_(
                "list_backups shows those that there are. It may be one of %(count)d that cannot be"
                " read, whose ids are not known: name the folder of one to learn why (%(names)s)."
            )
            if unreadable
            else _("list_backups shows those that there are."),
            identifier=identifier,
            count=len(unreadable),
            names=", ".join(item.name for item in unreadable[:10]),
        )
    good = [item for item in hits if item.manifest is not None]
    if not good:
        error = hits[0].error
        assert error is not None
        raise error
    if len({item.manifest.id for item in good if item.manifest}) > 1:
        raise NoBackupError(
            _("%(identifier)s is the beginning of several backups: %(names)s"),
            hint=_("Give more of it."),
            identifier=identifier,
            names=", ".join(sorted({item.name for item in good})),
        )
    return good


def _newest(
    project: Project, found: Iterable[Found], *, at: datetime | None, only: Sequence[str]
) -> list[Found]:
    listed = list(found)
    candidates = [
        item
        for item in listed
        if (manifest := item.manifest) is not None
        and manifest.project == project.name
        and manifest.kind != "safety"
        and (at is None or manifest.snapshot_at <= at)
        and holds(manifest, only)
    ]
    if not candidates:
        unreadable = next((item.error for item in listed if item.error is not None), None)
        if unreadable is not None:
            raise unreadable
        raise NoBackupError(
            _("No backup matches."),
            hint=_("list_backups shows those that there are; backup makes one."),
        )
    for item in listed:
        if item.error is not None:
            text = _("Passed over %(name)s on %(destination)s: %(reason)s")
            warn(logger, text, name=item.name, destination=item.destination, reason=item.error)
    damaged = project.catalog.damaged_copies()
    good = [
        item
        for item in candidates
        if item.manifest and (item.manifest.id, item.destination) not in damaged
    ]
    newest = max(good or candidates, key=lambda item: _age(item.manifest))
    assert newest.manifest is not None
    return [item for item in candidates if item.manifest and item.manifest.id == newest.manifest.id]


def _age(manifest: Manifest | None) -> tuple[int, datetime]:
    assert manifest is not None
    return manifest.sequence, manifest.snapshot_at


def holds(manifest: Manifest, only: Sequence[str]) -> bool:
    """Say whether the backup has all the sources asked for; without any: whether it is whole.

    One of a database without the project's tables has nothing to restore.
    """
    if manifest.empty:
        return False
    if not only:
        return manifest.whole
    return all(selected(manifest, name) for name in only)


def selected(manifest: Manifest, name: str) -> list[str]:
    """Return the names of the backup's sources that `name` (``database`` or exact) means."""
    return [
        source.name
        for source in manifest.sources
        if name in {source.name, source.name.partition(":")[0]}
    ]


def check_destination(project: Project, destination: str) -> str:
    """Return the name of a destination; raises UsageError for one that the settings lack."""
    if destination not in project.destinations:
        raise UsageError(
            _("There is no destination %(name)s."),
            hint=_("Known destinations: %(known)s"),
            name=destination,
            known=", ".join(project.destinations),
        )
    return destination
