"""Streams are cut into volumes at exact boundaries and put together again."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipyme_backup.errors import DestinationError, PreflightError, SourceError
from mipyme_backup.process import CHUNK, Reader
from mipyme_backup.streams.digest import Measured, drain
from mipyme_backup.streams.volumes import Joined, cut, volume_name
from mipyme_backup.testing import BytesReader, read_whole

SIZE = 1000


def volumes_of(reader: Reader, spool: Path, size: int = SIZE) -> list[bytes]:
    found = []
    for number, volume in enumerate(cut(reader, spool=spool, volume_size=size)):
        data = volume.file.read_bytes()
        assert volume.index == number
        assert volume.size == len(data)
        assert volume.sha256 == hashlib.sha256(data).hexdigest()
        found.append(data)
    return found


@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (SIZE - 1, [SIZE - 1]),
        (SIZE, [SIZE]),
        (SIZE + 1, [SIZE, 1]),
        (2 * SIZE, [SIZE, SIZE]),
        (2 * SIZE + 1, [SIZE, SIZE, 1]),
    ],
)
@pytest.mark.parametrize("piece", [1, 333, CHUNK])
def test_volumes_are_cut_at_exact_boundaries(
    length: int, sizes: list[int], piece: int, tmp_path: Path
) -> None:
    data = os.urandom(length)

    volumes = volumes_of(BytesReader(data, piece=piece), tmp_path)

    assert [len(volume) for volume in volumes] == sizes
    assert b"".join(volumes) == data


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_boundaries_hold_around_the_chunk(size: int, tmp_path: Path) -> None:
    data = os.urandom(2 * size + 5)

    assert [len(volume) for volume in volumes_of(BytesReader(data), tmp_path, size)] == [
        size,
        size,
        5,
    ]


@given(data=st.binary(max_size=3000), size=st.integers(1, 900), piece=st.integers(1, 4000))
@settings(max_examples=60, deadline=None)
def test_what_was_cut_is_joined_again(
    data: bytes, size: int, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spool = tmp_path_factory.mktemp("spool")
    volumes = volumes_of(BytesReader(data, piece=piece), spool, size)

    joined = Joined([lambda volume=volume: BytesReader(volume) for volume in volumes])  # type: ignore[misc]

    assert read_whole(joined, piece) == data


def test_a_volume_is_private_from_its_first_moment(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(BytesReader):
        def read(self, size: int, /) -> bytes:
            seen.extend(stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir())
            return super().read(size)

    before = os.umask(0)
    try:
        volumes_of(Watching(b"x" * 2500, piece=100), tmp_path)
    finally:
        os.umask(before)

    assert seen
    assert set(seen) == {0o600}


def test_a_volume_is_on_the_disk_when_it_is_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, int]] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        real(descriptor)
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        synced.append((name, os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", watched)

    for volume in cut(BytesReader(b"x" * 2500), spool=tmp_path, volume_size=SIZE):
        assert synced[-1] == (volume.file.name, volume.size)

    assert len(synced) == 3


def test_one_volume_at_a_time_is_in_the_spool(tmp_path: Path) -> None:
    for volume in cut(BytesReader(b"x" * 3500), spool=tmp_path, volume_size=SIZE):
        assert [*tmp_path.iterdir()] == [volume.file]

    assert not [*tmp_path.iterdir()]


def test_a_volume_that_was_linked_elsewhere_is_never_written_over(tmp_path: Path) -> None:
    spool, kept = tmp_path / "spool", tmp_path / "kept"
    spool.mkdir()
    (spool / volume_name("volume", 0)).write_bytes(b"stored by a run that was killed")
    os.link(spool / volume_name("volume", 0), kept)

    volumes_of(BytesReader(b"new"), spool)

    assert kept.read_bytes() == b"stored by a run that was killed"


def test_a_link_in_the_spool_is_not_followed(tmp_path: Path) -> None:
    spool, victim = tmp_path / "spool", tmp_path / "victim"
    spool.mkdir()
    victim.write_bytes(b"precious")
    (spool / volume_name("volume", 0)).symlink_to(victim)

    assert volumes_of(BytesReader(b"new"), spool) == [b"new"]
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", [SourceError, OSError])
def test_a_broken_source_is_told_and_leaves_nothing_in_the_spool(
    kind: type[Exception], tmp_path: Path
) -> None:
    reader = BytesReader(b"x" * 2500, error=kind("the source broke"))

    with pytest.raises(kind, match="the source broke"):
        volumes_of(reader, tmp_path)

    assert not [*tmp_path.iterdir()]


def test_a_caller_that_stops_leaves_nothing_in_the_spool(tmp_path: Path) -> None:
    volumes = cut(BytesReader(b"x" * 2500), spool=tmp_path, volume_size=SIZE)
    next(volumes)

    volumes.close()  # type: ignore[attr-defined]

    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_told_with_the_file_and_a_hint(small_disk: Path) -> None:
    reader = BytesReader(bytes(2_000_000))

    with pytest.raises(PreflightError) as caught:
        volumes_of(reader, small_disk, 2_000_000)

    assert os.strerror(errno.ENOSPC) in str(caught.value)
    assert str(small_disk) in str(caught.value)
    assert "STATE_DIR" in str(caught.value.hint)
    assert not [*small_disk.iterdir()]


def test_a_spool_that_is_missing_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="missing"):
        volumes_of(BytesReader(b"x"), tmp_path / "missing")


def test_volumes_are_opened_one_by_one_and_closed() -> None:
    opened: list[BytesReader] = []

    def opener(data: bytes) -> Callable[[], Reader]:
        def open_it() -> Reader:
            assert all(reader.closed for reader in opened)
            opened.append(BytesReader(data))
            return opened[-1]

        return open_it

    joined = Joined(opener(data) for data in (b"one", b"", b"two"))
    assert not opened

    assert read_whole(joined) == b"onetwo"
    assert len(opened) == 3
    assert all(reader.closed for reader in opened)


def test_a_volume_that_cannot_be_opened_is_never_skipped() -> None:
    def missing() -> Reader:
        raise DestinationError("gone")

    joined = Joined([lambda: BytesReader(b"one"), missing, lambda: BytesReader(b"three")])
    assert joined.read(10) == b"one"

    for _turn in range(2):
        with pytest.raises(DestinationError):
            joined.read(10)


def test_closing_early_closes_the_open_volume() -> None:
    reader = BytesReader(b"one")
    joined = Joined([lambda: reader])
    joined.read(1)

    joined.close()
    joined.close()

    assert reader.closed


def test_measuring_changes_nothing_and_tells_size_hash_and_progress() -> None:
    data = os.urandom(10_000)
    told: list[int] = []
    measured = Measured(BytesReader(data, piece=999), on_bytes=told.append)

    assert read_whole(measured) == data
    assert measured.size == len(data) == sum(told)
    assert measured.sha256 == hashlib.sha256(data).hexdigest()
    assert 0 not in told


def test_draining_reads_to_the_end_and_closes_even_what_fails() -> None:
    broken = BytesReader(b"x" * 1000, error=SourceError("the source broke"))
    measured = Measured(broken)

    with pytest.raises(SourceError):
        drain(measured)

    assert measured.size == 1000
    assert broken.closed


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    class Zeros:
        left = 300_000_000

        def read(self, size: int, /) -> bytes:
            taken = min(size, self.left)
            self.left -= taken
            return bytes(taken)

        def close(self) -> None: ...

    tracemalloc.start()
    try:
        for _volume in cut(Zeros(), spool=tmp_path, volume_size=100_000_000):
            pass
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * 2**20
