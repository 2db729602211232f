"""Compression gives back what went in, or says that it cannot."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipyme_backup.errors import DamagedError, MemoryShortageError, SourceError
from mipyme_backup.memory import room_for_threads
from mipyme_backup.process import CHUNK
from mipyme_backup.streams.compress import Compressed, Decompressed
from mipyme_backup.streams.digest import Measured, drain
from mipyme_backup.testing import BytesReader, read_whole
from tests.unit.sources.forks import in_child

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SAMPLE = b"".join(b"row %d of a table\n" % number for number in range(300)) + os.urandom(300)


def compressed(data: bytes, *, workers: int = 0) -> bytes:
    return read_whole(Compressed(BytesReader(data), workers=workers))


def decompressed(data: bytes, *, limit: int | None = None) -> bytes:
    return read_whole(Decompressed(BytesReader(data), limit=limit))


@given(
    data=st.binary(max_size=5000),
    repeat=st.integers(1, 60),
    piece=st.integers(1, 70_000),
    size=st.integers(1, 70_000),
    workers=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_what_went_in_comes_out(
    data: bytes, repeat: int, piece: int, size: int, workers: int
) -> None:
    data *= repeat
    stored = read_whole(Compressed(BytesReader(data, piece=piece), workers=workers), size)

    raw = read_whole(Decompressed(BytesReader(stored, piece=piece), limit=len(data)), size)

    assert raw == data


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_sizes_around_the_chunk_come_out_whole(size: int) -> None:
    data = os.urandom(size)

    assert decompressed(compressed(data), limit=size) == data


def test_a_read_is_bounded_on_both_ways() -> None:
    reader = Decompressed(Compressed(BytesReader(bytes(1_000_000))))

    assert max(map(len, iter(lambda: reader.read(1000), b""))) <= 1000


def test_the_frame_is_one_that_the_standard_tool_reads() -> None:
    assert zstd.decompress(compressed(SAMPLE)) == SAMPLE


def test_an_empty_stream_is_a_frame_as_well() -> None:
    assert compressed(b"") != b""
    assert decompressed(compressed(b""), limit=0) == b""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_cut_anywhere_is_found(workers: int) -> None:
    stored = compressed(SAMPLE, workers=workers)

    for length in range(len(stored)):
        with pytest.raises(DamagedError):
            decompressed(stored[:length])


def test_a_flipped_bit_is_found_wherever_it_is() -> None:
    stored = compressed(SAMPLE)
    unfound = 0

    for position in range(len(stored)):
        for bit in (0x01, 0x80):
            damaged = bytearray(stored)
            damaged[position] ^= bit
            try:
                raw = decompressed(bytes(damaged), limit=len(SAMPLE))
            except DamagedError:
                continue
            assert raw == SAMPLE
            unfound += 1

    # A few bits (the window size) mean nothing for the content.
    assert unfound < len(stored) // 50


@pytest.mark.parametrize("garbage", [b"\0", b"x" * 1000, os.urandom(CHUNK)])
@pytest.mark.parametrize("piece", [1000, CHUNK, None])
def test_what_follows_the_end_is_found(garbage: bytes, piece: int | None) -> None:
    stored = compressed(SAMPLE)
    # Without a size, the first piece ends just where the frame does.
    reader = Decompressed(BytesReader(stored + garbage, piece=piece or len(stored)))

    with pytest.raises(DamagedError, match="goes on"):
        read_whole(reader)


def test_a_second_frame_is_not_taken_for_more_content() -> None:
    with pytest.raises(DamagedError, match="goes on"):
        decompressed(compressed(SAMPLE) + compressed(SAMPLE))


@pytest.mark.parametrize("data", [b"", b"plain text, never compressed"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decompressed(data)


def test_a_bomb_stops_at_the_stated_size() -> None:
    bomb = compressed(bytes(200_000_000))
    assert len(bomb) < 50_000
    reader = Decompressed(BytesReader(bomb), limit=1_000_000)
    measured = Measured(reader)

    with pytest.raises(DamagedError, match="1000000 bytes"):
        drain(measured)

    assert 0 < measured.size <= 1_000_000


@pytest.mark.parametrize("excess", [1, 1000])
def test_one_byte_too_many_is_too_many(excess: int) -> None:
    stored = compressed(SAMPLE)
    assert decompressed(stored, limit=len(SAMPLE)) == SAMPLE

    with pytest.raises(DamagedError):
        decompressed(stored, limit=len(SAMPLE) - excess)


def test_after_a_failure_there_is_no_clean_end() -> None:
    for data, limit in ((compressed(SAMPLE), 10), (compressed(SAMPLE) + b"x", None)):
        reader = Decompressed(BytesReader(data), limit=limit)
        failures = 0
        for _turn in range(4):
            try:
                while reader.read(CHUNK):
                    pass
            except DamagedError:
                failures += 1

        assert failures == 4


def test_a_broken_source_is_no_end_of_stream() -> None:
    broken = SourceError("the source broke")

    with pytest.raises(SourceError):
        read_whole(Compressed(BytesReader(SAMPLE, error=broken)))


def test_closing_closes_what_is_upstream() -> None:
    upstream = BytesReader(b"")

    Decompressed(Compressed(upstream)).close()

    assert upstream.closed


def test_compression_uses_threads_where_it_may() -> None:
    before = {thread.ident for thread in threading.enumerate()}
    reader = Compressed(BytesReader(os.urandom(4_000_000)), workers=2)
    reader.read(1)

    tasks = len(os.listdir("/proc/self/task"))
    reader.close()

    assert tasks >= len(before) + 2


MEMORY_SCRIPT = """
import hashlib, re
from mipyme_backup.streams.compress import Compressed, Decompressed
from mipyme_backup.streams.digest import Measured, drain

class Numbers:
    def __init__(self, size): self.left, self.state = size, b"seed"
    def read(self, size):
        taken = min(self.left, size)
        self.left -= taken
        self.state = hashlib.sha256(self.state).digest()
        return (self.state * (taken // 32 + 1))[:taken]
    def close(self): pass

def peak(size):
    raw = Measured(Decompressed(Compressed(Numbers(size), workers=2), limit=size))
    drain(raw)
    assert raw.size == size
    # Not ru_maxrss: that begins at what the process that forked us had.
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) // 1024

print(peak(20_000_000), peak(300_000_000))
"""


def test_memory_does_not_grow_with_the_stream() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT], capture_output=True, text=True, check=True
    )
    small, large = map(int, done.stdout.split())

    assert large - small < 40, f"{small} MiB for 20 MB, {large} MiB for 300 MB"
    assert large < 150


# Little memory


def with_no_more_memory(work: Callable[[], object]) -> str:
    """Run `work` in a child that gets no address space any more; return what it raised."""

    def limited() -> str:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken, taken))
        held = []
        try:
            while True:  # what the process has in reserve
                held.append(bytes(64 * 1024))
        except MemoryError:
            pass
        try:
            work()
        except Exception as error:
            held.clear()
            return type(error).__name__
        return "nothing"

    return str(in_child(limited))


def test_no_memory_to_decompress_with_is_no_damage() -> None:
    frame = Compressed(BytesReader(os.urandom(3 * CHUNK)))
    stored = read_whole(frame)
    reader = Decompressed(BytesReader(stored))
    said = with_no_more_memory(lambda: read_whole(reader))
    assert said in ("MemoryError", MemoryShortageError.__name__)


def test_no_memory_to_compress_with_is_told() -> None:
    reader = Compressed(BytesReader(os.urandom(3 * CHUNK)))
    said = with_no_more_memory(lambda: read_whole(reader))
    assert said in ("MemoryError", MemoryShortageError.__name__)


def test_workers_are_left_out_where_a_limit_has_no_room_for_them() -> None:
    def rooms() -> list[int]:
        without_limit = room_for_threads()
        resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**30))
        none = room_for_threads()
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        return [min(without_limit, 100), none, room_for_threads()]

    assert in_child(rooms) == [100, 0, 2]
