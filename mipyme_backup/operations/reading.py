"""Reading what a destination holds: manifests, and artifacts whose bytes were checked first."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, cast

from mipyme_backup import manifest as manifests
from mipyme_backup.destinations import Destination
from mipyme_backup.destinations.listing import Foreign
from mipyme_backup.errors import BackupError, DamagedError, DestinationError, KeyMissingError
from mipyme_backup.manifest import Manifest, StoredArtifact, Volume
from mipyme_backup.messages import _
from mipyme_backup.operations import manifest_keys
from mipyme_backup.operations.layout import LAYOUT, PIN_FILE
from mipyme_backup.operations.project import Project
from mipyme_backup.process import CHUNK, Reader
from mipyme_backup.results import Found
from mipyme_backup.streams.digest import Measured
from mipyme_backup.streams.pipeline import raw_form
from mipyme_backup.streams.volumes import Joined

OnBytes = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What one listing of a destination showed: the size of each object, and the backups.

    `foreign` is what else lies there, and is none of ours by its name. `program_changed` says that
    `recover.py` there is none of ours, where that was looked at.
    """

    sizes: Mapping[str, int]
    backups: Sequence[Found]
    foreign: Foreign = field(default_factory=Foreign)
    program_changed: bool = False

    def hold(self, artifact: StoredArtifact) -> bool:
        """Say whether all volumes are there, by their size."""
        return all(self.sizes.get(path) == volume.size for path, volume in artifact.volume_paths())


def backups_on(project: Project, destination: str) -> list[Found]:
    """Return every backup on the destination, unreadable ones included, in order of name.

    Raises DestinationError when the destination cannot be listed: never "no backups".
    """
    return [*holdings(project, destination).backups]


def holdings(project: Project, destination: str) -> Holdings:
    """List the destination, and read every manifest on it; raises DestinationError."""
    ending = f"/{manifests.FILE_NAME}"
    listed = project.destinations[destination].listing(LAYOUT)
    sizes = {entry.name: entry.size for entry in listed.entries}
    names = [name.removesuffix(ending) for name in sizes if name.endswith(ending)]
    backups = [
        replace(
            read_manifest(project, destination, name, sizes[f"{name}{ending}"]),
            pinned=sizes.get(f"{name}/{PIN_FILE}", 0) > 0,
        )
        for name in names
    ]
    return Holdings(sizes=sizes, backups=backups, foreign=listed.foreign)


def read_manifest(project: Project, destination: str, name: str, size: int | None = None) -> Found:
    """Read and authenticate the manifest of the backup `name`; what is wrong is in `error`.

    `size` is what a listing says of it, where there was one.
    """
    try:
        path = f"{name}/{manifests.FILE_NAME}"
        data = read_whole(project.destinations[destination], path, manifests.MAX_BYTES, size)
        manifest = manifests.load(
            data,
            secrets_by_key=project.trusted_keys,
            derive_key=manifest_keys.keys_of(project.name),
            trust_needed=project.signing_key is not None,
        )
        manifest_keys.authenticated(manifest.project)
        if manifest.name != name:
            raise DamagedError(
                _("The manifest in %(name)s is that of %(other)s."), name=name, other=manifest.name
            )
        if manifest.encryption is None and project.encryption is not None:
            raise DamagedError(
                _("%(name)s is not encrypted, and the settings need it to be (ENCRYPTION)."),
                hint=_("If it is yours, from before, restore it with ENCRYPTION set to None."),
                name=name,
            )
    except BackupError as error:
        return Found(destination=destination, name=name, error=error)
    digest = hashlib.sha256(data).hexdigest()
    return Found(destination=destination, name=name, manifest=manifest, sha256=digest)


def check_stored(
    destination: Destination, artifact: StoredArtifact, on_bytes: OnBytes | None = None
) -> Iterator[str]:
    """Read every stored byte of `artifact`; yield a sentence for each volume that is not right.

    Raises DestinationError where the destination goes away: that says nothing of its bytes.
    """
    for path, volume in artifact.volume_paths():
        try:
            check_volume(destination, path, volume, on_bytes)
        except BackupError as error:
            if is_away(error):
                raise
            yield str(error)


def is_away(error: BackupError) -> bool:
    """Say whether a read failed for a reason that may pass, and that is none of what was read."""
    return isinstance(error, DestinationError) and not error.permanent


def open_artifact(
    project: Project,
    destination: Destination,
    manifest: Manifest,
    artifact: StoredArtifact,
    *,
    readable_here: bool = False,
) -> Reader:
    """Return the raw stream of `artifact`: each volume is checked before it is decrypted.

    `readable_here` is what this host encrypted to read it again.
    """
    stored = Joined(
        partial(_open_volume, project, destination, path, volume)
        for path, volume in artifact.volume_paths()
    )
    decrypt = None
    if manifest.encryption is not None:
        if project.encryption is None:
            raise KeyMissingError(
                _("The backup is encrypted, and the settings have no ENCRYPTION."),
                hint=_("Set ENCRYPTION with the passphrase file that it was made with."),
            )
        decrypt = partial(
            project.encryption.decrypt,
            key_fingerprint=manifest.key_fingerprint or "",
            readable_here=readable_here,
        )
    return _Exact(raw_form(stored, decrypt=decrypt, limit=artifact.raw_size), artifact)


class _Exact:
    """A raw stream that ends at the size which the manifest states, or raises."""

    def __init__(self, upstream: Reader, artifact: StoredArtifact) -> None:
        self._upstream = upstream
        self._artifact = artifact
        self._left = artifact.raw_size

    def read(self, size: int, /) -> bytes:
        data = self._upstream.read(size)
        self._left -= len(data)
        if not data and self._left:
            raise DamagedError(
                _("%(artifact)s ends %(left)d bytes too early."),
                artifact=self._artifact.name,
                left=self._left,
            )
        return data

    def close(self) -> None:
        self._upstream.close()


def _open_volume(project: Project, destination: Destination, path: str, volume: Volume) -> Reader:
    """Return the volume's bytes, all of which were checked before the first is given.

    A remote one is fetched once, into a file in `STATE_DIR` that has no name.
    """
    if not destination.remote:
        check_volume(destination, path, volume)
        return destination.open(path)
    root = project.state.make("work")
    fetched = cast("BinaryIO", tempfile.TemporaryFile(dir=root))  # noqa: SIM115
    try:
        check_volume(destination, path, volume, copy_to=fetched)
    except BaseException:
        fetched.close()
        raise
    fetched.seek(0)
    return fetched


def check_volume(
    destination: Destination,
    path: str,
    volume: Volume,
    on_bytes: OnBytes | None = None,
    *,
    copy_to: BinaryIO | None = None,
) -> None:
    """Read the volume; raises DamagedError where its bytes are not those that were written."""
    right = _is_of_size(destination, path, volume.size)
    if right:
        measured = Measured(destination.open(path), on_bytes=on_bytes)
        with contextlib.closing(measured):
            while measured.size <= volume.size and (data := measured.read(CHUNK)):
                if copy_to is not None:
                    copy_to.write(data)
        right = (measured.size, measured.sha256) == (volume.size, volume.sha256)
    if not right:
        raise DamagedError(
            _("%(path)s is damaged: its bytes are not those that were written."),
            hint=_("Use another copy of this backup, or another backup."),
            path=path,
        )


def _is_of_size(destination: Destination, path: str, size: int) -> bool:
    """Say whether the object may have this size: what is fetched whole is asked for it first."""
    return not destination.fetches_whole or destination.size(path) in {None, size}


def read_whole(destination: Destination, path: str, limit: int, size: int | None = None) -> bytes:
    """Return the bytes of a small object; raises DamagedError for one of more than `limit`.

    `size` is what a listing says of it, where there was one.
    """
    if size is None and destination.fetches_whole:
        size = destination.size(path)
    data = bytearray()
    if size is None or size <= limit:
        with contextlib.closing(destination.open(path)) as reader:
            while len(data) <= limit and (piece := reader.read(CHUNK)):
                data += piece
        if len(data) <= limit:
            return bytes(data)
    raise DamagedError(
        _("%(path)s is larger than %(limit)d bytes: it is none of ours."),
        hint=_("Use another copy of this backup, or another backup."),
        path=path,
        limit=limit,
    )
