"""Whether a manifest can list so many volumes: asked before they are sent, not when all are."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mipyme_backup.errors import BackupError
from mipyme_backup.manifest import MAX_BYTES, Manifest, StoredArtifact
from mipyme_backup.messages import _

VOLUME_BYTES = 140
"""What a manifest takes for each volume, and no less."""
ARTIFACT_BYTES = 450
"""The same for each artifact beside its volumes, and for its name among the facts of the media."""
ROOM_BYTES = MAX_BYTES // 8 * 7
"""The rest is for the tables, the migrations and the warnings."""


class Room:
    """Counts the artifacts and volumes of one backup; `volume_size` in bytes is the project's."""

    def __init__(self, volume_size: int) -> None:
        self._volume_size = volume_size
        self._bytes = 0

    def take(self, *, artifacts: int = 0, volumes: int = 0) -> None:
        """Count them; BackupError where no manifest can list as many."""
        self._bytes += artifacts * ARTIFACT_BYTES + volumes * VOLUME_BYTES
        if self._bytes > ROOM_BYTES:
            raise BackupError(
                _(
                    "This backup needs more volumes than the %(limit)d that a manifest can list:"
                    " VOLUME_SIZE is %(size)d bytes."
                ),
                hint=_("Set VOLUME_SIZE to %(enough)d or more, and run the backup again."),
                limit=ROOM_BYTES // VOLUME_BYTES,
                size=self._volume_size,
                enough=self._volume_size * 4,
            )


def check_room(last: Manifest | None, sources: Collection[str], volume_size: int) -> None:
    """Raise BackupError where what the `last` backup stored of `sources` needs too many volumes.

    Packs of the media are not stored again, so they count as they are.
    """
    if last is None:
        return
    room, packs = Room(volume_size), dict[str, StoredArtifact]()
    for source in last.sources:
        if source.name in sources:
            for artifact in source.artifacts:
                room.take(artifacts=1, volumes=max(1, -(-artifact.stored_size // volume_size)))
            packs.update((pack.path, pack) for pack in last.packs_of(source))
    room.take(artifacts=len(packs), volumes=_volumes(packs.values()))


def _volumes(artifacts: Iterable[StoredArtifact]) -> int:
    return sum(len(artifact.volumes) for artifact in artifacts)
