"""Loading beside the live data: from the first good copy, checked against the manifest."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from mipyme_backup.catalog import History
from mipyme_backup.errors import (
    BackupError,
    DamagedError,
    DestinationError,
    ObjectMissingError,
    RestoreError,
)
from mipyme_backup.manifest import Manifest, SavedSource, StoredArtifact
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import Choice, listings
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import open_artifact
from mipyme_backup.operations.targets import Targets
from mipyme_backup.process import Reader
from mipyme_backup.streams.digest import Measured
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")


def load(project: Project, choice: Choice, targets: Targets, progress: Progress) -> str:
    """Load from the first copy; where it is damaged or away, begin again from the next.

    Returns the destination that it came from.
    """
    failure: BackupError | None = None
    for name in choice.destinations:
        try:
            for part in targets:
                progress.step(
                    Message(
                        _("Loading %(source)s from %(destination)s"),
                        {"source": part.source.name, "destination": name},
                    ),
                    _raw_size(choice.manifest, part.saved),
                )
                part.target.load(openers(project, name, choice.manifest, part.saved, progress))
        except (DamagedError, DestinationError) as error:
            failure = error
            for part in targets:
                part.target.discard()
        else:
            return name
    assert failure is not None
    if isinstance(failure, ObjectMissingError):
        raise DamagedError(
            _("The backup is not whole: %(reason)s"),
            hint=_("Use another copy of this backup, or another backup."),
            reason=failure,
        ) from failure
    raise failure


def _raw_size(manifest: Manifest, source: SavedSource) -> int:
    artifacts = (*source.artifacts, *manifest.packs_of(source))
    return sum(artifact.raw_size for artifact in artifacts)


def openers(
    project: Project, name: str, manifest: Manifest, source: SavedSource, progress: Progress
) -> dict[str, Callable[[], Reader]]:
    """Return what opens each artifact of `source` on the destination `name`; see `Openers`."""
    destination = project.destinations[name]
    artifacts = stored_by_key(manifest, source)

    def opened(key: str) -> Reader:
        reader = open_artifact(project, destination, manifest, artifacts[key])
        return Measured(reader, hashing=False, on_bytes=progress.advance)

    return {key: partial(opened, key) for key in artifacts}


def stored_by_key(manifest: Manifest, source: SavedSource) -> dict[str, StoredArtifact]:
    """Return what `source` is loaded from, by the keys of its `Openers`."""
    packs = manifest.packs_of(source)
    return {
        **{artifact.name: artifact for artifact in source.artifacts},
        **{f"pool/{pack.path.split('/')[1]}": pack for pack in packs},
    }


def check(manifest: Manifest, targets: Targets, progress: Progress) -> None:
    progress.step(Message(_("Checking what was loaded against the manifest")))
    problems = differences(targets)
    if problems:
        raise RestoreError(
            _("What was loaded is not what %(name)s states: %(problems)s"),
            hint=_("Live data is untouched. Restore another backup, and report this one."),
            name=manifest.name,
            problems="; ".join(problems[:10]),
        )


def told_remarks(targets: Targets) -> list[Message]:
    """Log and return what the targets could not bring back as it was."""
    remarks = [remark for part in targets for remark in part.target.remarks()]
    for remark in remarks:
        warn(logger, remark.text, **remark.params)
    return remarks


def differences(targets: Targets) -> list[str]:
    """Return all that differs between what was loaded and what the manifest states."""
    return [str(problem) for part in targets for problem in part.target.check(part.facts)]


def rebuild_catalog(project: Project, targets: Targets) -> None:
    """Give the database that will be live the whole history: manifests and the live catalog."""
    for part in targets:
        settings = part.target.side_settings()
        if part.target.alias == DEFAULT_DB_ALIAS and settings is not None:
            with _registered(settings) as using:
                project.catalog.add_history(project.catalog.history(), using=using)
                project.catalog.sync(listings(project, [*project.destinations]), using=using)


def history_at_stake(project: Project, targets: Targets) -> History | None:
    """Return the live catalog's history where its database is about to be replaced in place."""
    in_place = any(
        part.target.for_good and not part.target.merges and part.target.alias == DEFAULT_DB_ALIAS
        for part in targets
    )
    return project.catalog.history() if in_place else None


def bring_back_history(project: Project, history: History) -> None:
    """Give a database that was replaced in place the history that it had, and the manifests."""
    project.catalog.add_history(history)
    with contextlib.suppress(DestinationError):  # it is restored all the same
        project.catalog.sync(listings(project, [*project.destinations]))


@contextlib.contextmanager
def _registered(settings: dict[str, Any]) -> Iterator[str]:
    """Register a database for the block, under an alias that Django's ORM can use."""
    alias = "mipyme_backup_side"
    connections.settings[alias] = {**connections.settings["default"], **settings}
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]
