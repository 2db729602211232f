"""Making one destination's copy of a backup whole: what it lacks comes from another copy."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mipyme_backup.destinations import Destination
from mipyme_backup.errors import BackupError, DamagedError, DestinationError
from mipyme_backup.manifest import Manifest, Volume
from mipyme_backup.messages import _
from mipyme_backup.operations.damage import known_damage, note_damage
from mipyme_backup.operations.notes import manifest_path
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import check_volume, read_whole
from mipyme_backup.private_files import write_file
from mipyme_backup.translation import said

logger = logging.getLogger("mipyme_backup")


def complete(
    project: Project,
    name: str,
    manifest: Manifest,
    data: bytes,
    *,
    others: Callable[[], Iterable[Destination]],
    unread: Callable[[str], bool],
    work: Path,
) -> None:
    """Make the destination `name` hold every volume of the backup, and then its manifest.

    `data` are the manifest's bytes, `others` the destinations to copy from, best first. Of what
    is there with the right size, `unread` says by its path whether nobody has seen yet that its
    bytes are right. Raises DestinationError, and the manifest is not there then.
    """
    destination = project.destinations[name]
    held = _held(destination, manifest)
    damage = known_damage(project).get(name, frozenset())
    for artifact in manifest.artifacts():
        for path, volume in artifact.volume_paths():
            if artifact.path in damage or held.get(path) != volume.size:
                _copy(destination, path, volume, others, work)
            elif unread(path):
                _mend(destination, path, volume, others, work)
        if artifact.path in damage:
            note_damage(project, name, damaged=(), sound=(artifact.path,))
    _put_manifest(destination, manifest_path(manifest.name), data, work)


def _held(destination: Destination, manifest: Manifest) -> dict[str, int]:
    """Return the sizes of the backup's volumes that are there, whatever else lies there."""
    needed = {path for artifact in manifest.artifacts() for path, _ in artifact.volume_paths()}
    prefixes = [f"{manifest.name}/", *(["pool/"] if manifest.packs else [])]
    found = (entry for prefix in prefixes for entry in destination.entries(prefix))
    return {entry.name: entry.size for entry in found if entry.name in needed}


def _mend(
    destination: Destination,
    path: str,
    volume: Volume,
    others: Callable[[], Iterable[Destination]],
    work: Path,
) -> None:
    """Read the volume; where its bytes are wrong, and there is a place to copy from, copy it."""
    try:
        _read_back(destination, path, volume)
    except DestinationError as error:
        if not [*others()]:
            raise
        logger.warning("%s", said(str(error)))
        _copy(destination, path, volume, others, work)


def _copy(
    destination: Destination,
    path: str,
    volume: Volume,
    others: Callable[[], Iterable[Destination]],
    work: Path,
) -> None:
    for other in others():
        try:
            with _fetched(other, path, volume, work) as file:
                destination.put(path, file)
                if not destination.vouches_for(path, file):
                    _read_back(destination, path, volume)
                return
        except _NotHereError as error:
            logger.warning("%s", said(str(error)))
    raise DestinationError(
        _("No destination holds %(path)s, which this backup needs."),
        hint=_("Run verify_backups --all, then take another backup."),
        path=path,
    )


def _read_back(destination: Destination, path: str, volume: Volume) -> None:
    try:
        check_volume(destination, path, volume)
    except DamagedError as error:
        raise DestinationError(
            _("What was read back is not what was written: %(problem)s"),
            hint=_("Look at the disk or service of this destination."),
            problem=error,
        ) from error


class _NotHereError(Exception):
    """Another destination does not hold the volume as it has to be."""


@contextlib.contextmanager
def _fetched(other: Destination, path: str, volume: Volume, work: Path) -> Iterator[Path]:
    """Yield a private file with the volume, whose bytes were checked."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        file = Path(folder) / "volume"
        try:
            write_file(file, b"")
            with file.open("r+b") as output:
                check_volume(other, path, volume, copy_to=output)
                output.flush()
                os.fsync(output.fileno())
        except (DestinationError, DamagedError) as error:
            raise _NotHereError(str(error)) from error
        yield file


def _put_manifest(destination: Destination, path: str, data: bytes, work: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            file = Path(folder) / "manifest"
            write_file(file, data)
            destination.put(path, file)
        if _read_again(destination, path, len(data)) != data:
            raise DestinationError(_("The manifest read back is not the one that was written."))
    except DestinationError:
        # What is reported as failed must not be found to be a backup later.
        with contextlib.suppress(BackupError):
            destination.delete(path)
        raise


def _read_again(destination: Destination, path: str, size: int) -> bytes | None:
    """Return the bytes of an object, None where there are more than `size`."""
    try:
        return read_whole(destination, path, size)
    except DamagedError:
        return None
