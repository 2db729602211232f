"""What is said to fit into a manifest fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from mipyme_backup import manifest as manifests
from mipyme_backup.encryption.passphrase import derive_key
from mipyme_backup.errors import BackupError
from mipyme_backup.manifest import Manifest, SavedSource, StoredArtifact, Volume
from mipyme_backup.operations import room
from mipyme_backup.operations.room import Room, check_room
from tests.unit.test_manifest import example

LARGE = 2**40
PART = 64
"""These are tried with one part in so many of a manifest's room."""


def listing(artifacts: int, volumes: int) -> Manifest:
    """Return a manifest of so many packs, with so many volumes each, their numbers being long."""
    made = [
        StoredArtifact(
            name="files.tar",
            path=f"pool/{number:032x}/files.tar.zst.gpg",
            raw_size=LARGE * volumes,
            stored_size=LARGE * volumes,
            sha256="0" * 64,
            volumes=(Volume(size=LARGE, sha256="0" * 64),) * volumes,
        )
        for number in range(artifacts)
    ]
    index = SavedSource(
        name="media",
        artifacts=(),
        facts={"media.index.jsonl": {"packs": [pack.path.split("/")[1] for pack in made]}},
    )
    return example(sources=(index,), packs=tuple(made))


def most_packs(volumes: int, limit: int) -> int:
    return limit // (room.ARTIFACT_BYTES + volumes * room.VOLUME_BYTES)


@pytest.mark.parametrize("volumes", [1, 2, 10, 1000])
def test_what_has_room_has_it_in_bytes_and_in_values(volumes: int) -> None:
    packs = most_packs(volumes, room.ROOM_BYTES // PART)
    Room(LARGE).take(artifacts=packs, volumes=packs * volumes)

    data = manifests.dump(listing(packs, volumes), key=None, derive_key=derive_key)

    assert manifests.MAX_BYTES // PART // 2 < len(data) < manifests.MAX_BYTES // PART
    assert manifests._values(data) < manifests.MAX_VALUES // PART


@pytest.mark.torture
@pytest.mark.parametrize("volumes", [1, 1000])
def test_as_much_as_has_room_is_written_and_read(
    volumes: int, scaled: Callable[[int, int], int]
) -> None:
    packs = most_packs(volumes, scaled(room.ROOM_BYTES, room.ROOM_BYTES // PART))
    made = listing(packs, volumes)

    data = manifests.dump(made, key=None, derive_key=derive_key)
    read = manifests.load(data, secrets_by_key={}, derive_key=derive_key, trust_needed=False)

    assert read == made


def test_more_than_has_room_is_refused_with_what_to_set() -> None:
    taken = Room(65536)
    taken.take(artifacts=1, volumes=400_000)

    with pytest.raises(BackupError, match=r"419430 that a manifest can list.* 65536 ") as caught:
        taken.take(volumes=50_000)

    assert "262144" in str(caught.value.hint)


def test_what_the_last_backup_stored_is_counted_in_volumes_of_now() -> None:
    last = example(
        sources=(
            SavedSource(name="database:default", artifacts=(one := listing(1, 1000).packs)),
            SavedSource(name="media", artifacts=()),
        ),
        packs=(dataclasses.replace(one[0], path="pool/00/files.tar"),),
    )
    size = LARGE * 1000

    check_room(None, {"database:default"}, 65536)
    check_room(last, {"database:default", "media"}, size // 100_000)
    check_room(last, {"media"}, 65536)  # packs stay as they are
    with pytest.raises(BackupError):
        check_room(last, {"database:default"}, size // 1_000_000)
