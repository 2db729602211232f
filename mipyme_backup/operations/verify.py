"""Verify: every stored byte against its hash, or the whole way down to a full parse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

from mipyme_backup.errors import (
    BackupError,
    DestinationError,
    KeyMissingError,
    KilledError,
    NoBackupError,
    PreflightError,
)
from mipyme_backup.manifest import Manifest, StoredArtifact
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.choosing import check_destination, choose, listings
from mipyme_backup.operations.damage import note_damage
from mipyme_backup.operations.layout import RECOVERY_PROGRAM
from mipyme_backup.operations.loading import stored_by_key
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.operations.reading import check_stored, is_away, open_artifact
from mipyme_backup.operations.recovery_program import changed_text, is_changed
from mipyme_backup.results import Found, Level, Verified
from mipyme_backup.sources.base import Source


def run(
    project: Project,
    *,
    identifiers: Sequence[str] = (),
    latest: bool = False,
    destination: str | None = None,
    level: Level = "stored",
    progress: Progress,
) -> list[Verified]:
    """Verify the named backups, the newest, or all; raises NoBackupError where there is none.

    Raises KeyMissingError, KilledError or PreflightError where nothing worse was found than that
    content cannot be read here.
    """
    names = [check_destination(project, destination)] if destination else [*project.destinations]
    by_destination = listings(project, names)
    text = _("The destination %(name)s cannot be listed.")
    away = [
        _away(name, str(Message(text, {"name": name})))
        for name in names
        if name not in by_destination
    ]
    found = [item for items in by_destination.values() for item in items]
    wanted = _wanted(project, found, identifiers, latest, destination)
    if not wanted and not away:
        raise NoBackupError(_("There is no backup to verify."), hint=_("backup makes one."))
    results: list[Verified] = []
    for name in names:
        there = (item for item in wanted if item.destination == name)
        try:
            results.extend(_verify(project, item, level, progress) for item in there)
        except DestinationError as error:
            away.append(_away(name, str(error)))
    project.catalog.verified(results, level)
    results += _programs(project, by_destination)
    if not any(result.problems and not result.unreadable for result in results):
        for result in results:
            if result.unreadable is not None:
                raise result.unreadable
    return results + away


def _programs(project: Project, found: Mapping[str, Sequence[Found]]) -> list[Verified]:
    """Return a result for each destination whose recovery program was changed."""
    return [
        Verified(
            id="", name=RECOVERY_PROGRAM, destination=name, problems=(str(changed_text(name)),)
        )
        for name, items in found.items()
        if is_changed(project, project.destinations[name], items)
    ]


def _away(destination: str, problem: str) -> Verified:
    return Verified(id="", name="", destination=destination, problems=(problem,), away=True)


def _wanted(
    project: Project,
    found: Sequence[Found],
    identifiers: Sequence[str],
    latest: bool,
    destination: str | None,
) -> Sequence[Found]:
    if not identifiers and not latest:
        return found
    chosen = [
        choose(project, identifier=identifier, destination=destination).manifest
        for identifier in (identifiers or (None,))
    ]
    ids, names = {m.id for m in chosen}, {m.name for m in chosen}
    return [
        item
        for item in found
        # A copy whose manifest cannot be read is one of them, by what its folder is called.
        if (item.manifest.id in ids if item.manifest is not None else item.name in names)
    ]


def _verify(project: Project, found: Found, level: Level, progress: Progress) -> Verified:
    progress.step(
        Message(
            _("Verifying %(name)s on %(destination)s"),
            {"name": found.name, "destination": found.destination},
        ),
        found.manifest.stored_size if found.manifest else None,
    )
    unreadable: BackupError | None = None
    if found.manifest is None:
        problems = [str(found.error)]
    else:
        problems = stored_problems(project, found.destination, found.manifest, progress)
        if not problems and level == "content":
            try:
                problems = _content_problems(project, found, found.manifest)
            except (KeyMissingError, KilledError, PreflightError) as error:
                problems, unreadable = [str(error)], error
    return Verified(
        id=found.manifest.id if found.manifest else "",
        name=found.name,
        destination=found.destination,
        problems=tuple(problems),
        unreadable=unreadable,
    )


def stored_problems(
    project: Project, name: str, manifest: Manifest, progress: Progress
) -> list[str]:
    """Read every stored byte of the backup on the destination `name`; a sentence for each fault."""
    problems = pack_problems(project, name, {pack.path: pack for pack in manifest.packs}, progress)
    return [*own_problems(project, name, manifest, progress), *chain(*problems.values())]


def own_problems(project: Project, name: str, manifest: Manifest, progress: Progress) -> list[str]:
    """Read what is stored of the backup alone, without the packs that it shares."""
    destination = project.destinations[name]
    return [
        problem
        for source in manifest.sources
        for artifact in source.artifacts
        for problem in check_stored(destination, artifact, progress.advance)
    ]


def pack_problems(
    project: Project, name: str, packs: Mapping[str, StoredArtifact], progress: Progress
) -> dict[str, list[str]]:
    """Read the packs, by their paths, and note which are damaged, for the next backup."""
    destination = project.destinations[name]
    problems = {
        path: list(check_stored(destination, pack, progress.advance))
        for path, pack in packs.items()
    }
    damaged = {path for path, found in problems.items() if found}
    note_damage(project, name, damaged=damaged, sound=problems.keys() - damaged)
    return problems


def _content_problems(project: Project, found: Found, manifest: Manifest) -> list[str]:
    """Decrypt, decompress and parse everything.

    Raises KeyMissingError, KilledError or PreflightError where that cannot be done here,
    DestinationError where the destination goes away.
    """
    problems = []
    destination = project.destinations[found.destination]
    for saved in manifest.sources:
        source = _source(project, saved.name)
        stored = stored_by_key(manifest, saved)
        opened = {
            key: partial(open_artifact, project, destination, manifest, artifact)
            for key, artifact in stored.items()
        }
        for artifact in saved.artifacts:
            try:
                with project.work_folder() as work:
                    facts = saved.facts.get(artifact.name, {})
                    source.check_content(artifact.name, opened, facts, work)
            except (KeyMissingError, KilledError, PreflightError):
                raise  # says nothing of the backup
            except BackupError as error:
                if is_away(error):
                    raise
                problems.append(f"{artifact.name}: {error}")
    return problems


def _source(project: Project, name: str) -> Source:
    source = project.find_source(name)
    if source is None:
        raise PreflightError(
            _("The content of %(name)s cannot be checked: SOURCES has no such entry."),
            hint=_("Put it back into SOURCES, or verify what is stored: --level stored"),
            name=name,
        )
    return source
