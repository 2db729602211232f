"""Verify a share of what is stored each night, so that in `NIGHTS` nights every byte is read.

The copies that wait longest for it are not the first, but the newest: they are what a restore
would take. A pack is shared by many backups, and read once in that time, however many they are.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mipyme_backup.errors import BackupError, DestinationError, KeyMissingError, NoBackupError
from mipyme_backup.manifest import Manifest
from mipyme_backup.messages import Message, _
from mipyme_backup.operations import verify
from mipyme_backup.operations.choosing import listings
from mipyme_backup.operations.damage import known_damage
from mipyme_backup.operations.project import Progress, Project
from mipyme_backup.results import Found, Verified
from mipyme_backup.translation import translated

logger = logging.getLogger("mipyme_backup")
RECORD = "verified_days.json"
NIGHTS = 7
"""A week: short enough that of two copies one is still good when the other is found bad."""


def run(project: Project, night: datetime, progress: Progress) -> list[Verified]:
    """Verify tonight's share of the stored bytes of each destination, then the newest's content.

    `night` is the slot. Returns what was found of each copy that was read, or that needs a pack
    which was found damaged; nothing where there is no backup yet. Raises DestinationError, in the
    end, where a destination went away before its share was read.
    """
    by_destination = listings(project, [*project.destinations])
    read_at, noted = project.catalog.verified_at(), noted_days(project)
    owed = {name: owed_days(noted.get(name), night) for name in by_destination}
    results: list[Verified] = []
    failure: DestinationError | None = None
    for name, items in by_destination.items():
        found: list[Verified] = []
        days, last = owed[name], owed[name][-1]
        try:
            found.extend(_share(project, name, items, read_at, days, progress))
        except DestinationError as error:
            logger.warning("What is on %s was not verified in full: %s", name, error)
            failure, last = error, days[0] - 1
        project.catalog.verified(found, "stored")
        note_day(project, name, last)
        results += found
    results += _newest_content(project, by_destination, owed, progress)
    if failure is not None:
        raise failure
    return results


def _share(
    project: Project,
    name: str,
    items: Sequence[Found],
    read_at: Mapping[tuple[str, str], datetime],
    days: Sequence[int],
    progress: Progress,
) -> Iterator[Verified]:
    manifests = [item.manifest for item in items if item.manifest is not None]
    packs = {pack.path: pack for manifest in manifests for pack in manifest.packs}
    tonight = {path: pack for path, pack in packs.items() if is_read(path, days)}
    progress.step(
        Message(_("Verifying packs on %(destination)s"), {"destination": name}),
        sum(pack.stored_size for pack in tonight.values()),
    )
    read = verify.pack_problems(project, name, tonight, progress)
    damaged = {**_found_before(project, name, packs.keys() - tonight.keys()), **read}
    chosen = {m.id for m in chosen_copies(manifests, name, read_at, days)}
    for manifest in manifests:
        problems = [text for pack in manifest.packs for text in damaged.get(pack.path, ())]
        if manifest.id in chosen:
            progress.step(
                Message(
                    _("Verifying %(name)s on %(destination)s"),
                    {"name": manifest.name, "destination": name},
                ),
                _own_size(manifest),
            )
            problems += verify.own_problems(project, name, manifest, progress)
        if problems or manifest.id in chosen:
            yield Verified(
                id=manifest.id,
                name=manifest.name,
                destination=name,
                problems=tuple(problems),
            )


def _found_before(project: Project, name: str, resting: Collection[str]) -> dict[str, list[str]]:
    """Return what earlier nights found damaged among the packs that are not read in this one."""
    known = known_damage(project).get(name, frozenset())
    return {
        path: [f"{path}: {_('an earlier verification found it damaged')}"]
        for path in known & {*resting}
    }


def owed_days(last: int | None, night: datetime) -> Sequence[int]:
    """Return the days whose shares are to be read: those since the `last` one that was, or one.

    So a night that was left out, or a schedule that is weekly, leaves nothing unread.
    """
    day = night.astimezone(UTC).toordinal()
    since = day - 1 if last is None else min(max(last, day - NIGHTS), day - 1)
    return range(since + 1, day + 1)


def is_read(path: str, days: Iterable[int]) -> bool:
    """Say whether the pack is in the share of one of the days: each comes once in `NIGHTS`."""
    return any((zlib.crc32(path.encode()) + day) % NIGHTS == 0 for day in days)


def chosen_copies(
    manifests: Sequence[Manifest],
    destination: str,
    read_at: Mapping[tuple[str, str], datetime],
    days: Sequence[int],
) -> list[Manifest]:
    """Return the copies to read tonight, the newest first, so many that all have their turn.

    What was read in the last `NIGHTS` less one is not due; half a day of grace keeps a night
    that began a little early from passing it over.
    """
    limit = datetime.now(UTC) - timedelta(days=NIGHTS - 1) + timedelta(hours=12)
    waiting = [m for m in manifests if read_at.get((m.id, destination), limit) <= limit]
    newest_first = sorted(waiting, key=lambda manifest: manifest.sequence, reverse=True)
    return newest_first[: max(1, math.ceil(len(manifests) * len(days) / (NIGHTS - 1)))]


def noted_days(project: Project) -> Mapping[str, int]:
    """Return the last day whose share was read on each destination, as an ordinal."""
    return project.recall(RECORD, _parsed, {})


def note_day(project: Project, destination: str, day: int) -> None:
    """Note the last day whose share was read; what cannot be noted is no fault of the backups."""
    try:
        project.remember(RECORD, {**noted_days(project), destination: day})
    except BackupError as error:
        logger.warning("%s", translated(error.message))


def _parsed(record: Any) -> Mapping[str, int]:
    if not all(type(day) is int and day > 0 for day in record.values()):
        raise ValueError(RECORD)
    return {str(name): day for name, day in record.items()}


def _own_size(manifest: Manifest) -> int:
    return sum(a.stored_size for source in manifest.sources for a in source.artifacts)


def _newest_content(
    project: Project,
    by_destination: Mapping[str, Sequence[Found]],
    owed: Mapping[str, Sequence[int]],
    progress: Progress,
) -> list[Verified]:
    """Verify the newest backup the whole way down, on this machine if it has a destination.

    Where there is none, all of it has to be fetched: then it is done once in `NIGHTS`.
    """
    near = [name for name in by_destination if not project.destinations[name].remote]
    name = next(iter([*near, *by_destination]))
    if not near and all(day % NIGHTS for day in owed[name]):
        return []
    try:
        return verify.run(
            project, latest=True, destination=name, level="content", progress=progress
        )
    except (NoBackupError, KeyMissingError):
        return []  # `status` tells of both
