"""The checking stage: what passes is unchanged, and what is wrong is known before the end."""

from __future__ import annotations

import threading

import pytest

from mipyme_backup.errors import DamagedError, SourceError
from mipyme_backup.process import Reader
from mipyme_backup.streams.checked import DEPTH, Checked
from mipyme_backup.streams.digest import drain
from mipyme_backup.testing import BytesReader, read_whole

DATA = bytes(range(256)) * 5000


def test_stream_passes_unchanged_and_the_check_reads_all_of_it() -> None:
    seen = []

    def check(reader: Reader) -> None:
        while piece := reader.read(1000):
            assert len(piece) <= 1000
            seen.append(piece)

    assert read_whole(Checked(BytesReader(DATA), check)) == DATA
    assert b"".join(seen) == DATA


@pytest.mark.parametrize("after", [0, 1, len(DATA)])
def test_end_is_refused_where_the_check_finds_something(after: int) -> None:
    def check(reader: Reader) -> None:
        read = 0
        while read < after and (piece := reader.read(100_000)):
            read += len(piece)
        raise DamagedError("no dump")

    reader = Checked(BytesReader(DATA), check)
    got: list[bytes] = []
    with pytest.raises(DamagedError, match="no dump"):
        got.extend(iter(lambda: reader.read(50_000), b""))
    assert b"".join(got) == DATA
    with pytest.raises(DamagedError, match="no dump"):  # nor is it given when asked again
        reader.read(1)
    reader.close()


def test_check_that_stops_early_and_is_content_does_not_hold_up_the_stream() -> None:
    assert read_whole(Checked(BytesReader(DATA), lambda reader: None)) == DATA


def test_check_that_is_slow_holds_a_few_pieces_only() -> None:
    go_on = threading.Event()
    upstream = BytesReader(DATA)

    def check(reader: Reader) -> None:
        go_on.wait(120)
        drain(reader)

    reader = Checked(upstream, check)
    given: list[bytes] = []
    thread = threading.Thread(target=lambda: given.extend(iter(lambda: reader.read(1000), b"")))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and len(given) <= DEPTH + 1
    go_on.set()
    thread.join(120)

    assert b"".join(given) == DATA
    reader.close()


def test_error_of_the_stream_is_the_one_raised_and_the_check_ends() -> None:
    ended = threading.Event()

    def check(reader: Reader) -> None:
        try:
            drain(reader)
        finally:
            ended.set()

    reader = Checked(BytesReader(DATA, error=SourceError("the source broke")), check)
    with pytest.raises(SourceError, match="broke"):
        read_whole(reader)

    assert ended.wait(60)


def test_closing_early_ends_the_check_and_what_is_upstream() -> None:
    upstream = BytesReader(DATA)
    ended = threading.Event()

    def check(reader: Reader) -> None:
        try:
            drain(reader)
        finally:
            ended.set()

    reader = Checked(upstream, check)
    assert reader.read(10)
    reader.close()
    reader.close()

    assert ended.is_set() and upstream.closed
