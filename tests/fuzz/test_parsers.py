"""Whatever comes from outside, a parser returns or raises an error of ours."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paramiko import SFTPError
from paramiko.sftp_attr import SFTPAttributes

from mipyme_backup.destinations.access.sftp import _size_of_file
from mipyme_backup.messages import LONGEST
from mipyme_backup.sources.media.remote.listing import Listing, Numbered
from mipyme_backup.sources.media.remote.objects import Found
from tests.fuzz import real
from tests.fuzz.changes import DEEP, DIGITS
from tests.fuzz.parsers import PARSERS, kept

LONGEST_MESSAGE = 5 * LONGEST
"""A character may be escaped."""


MEMORY = 96 * 2**20
"""Bytes that any input may take: records and manifests are read up to 64 MiB, in one piece."""


@pytest.fixture(autouse=True)
def _memory_is_counted() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def try_out(name: str, count: int, chance: random.Random, folder: Path) -> None:
    """Have it read the real input, those that are kept, and `count` changed ones."""
    parser, folder = PARSERS[name], folder / name
    folder.mkdir(mode=0o700)
    assert parser.attempt(parser.real, folder) == ""
    beginnings = [file.read_bytes() for file in kept(name)]
    given = [*beginnings]
    refused = 0
    before = tracemalloc.get_traced_memory()[0]
    for number in range(len(given) + count):
        start = chance.choice(
            [parser.real, parser.real, chance.choice(beginnings or [parser.real])]
        )
        data = given[number] if number < len(given) else parser.change(start, chance)
        tracemalloc.reset_peak()
        try:
            said = parser.attempt(data, folder)
        except Exception as error:
            shown = data if len(data) < 3000 else data[:1500] + b" ... " + data[-1500:]
            raise AssertionError(f"{name}, input {number}: {error!r:.300} for {shown!r}") from error
        assert len(said) < LONGEST_MESSAGE
        assert tracemalloc.get_traced_memory()[1] < before + MEMORY, f"{name}, input {number}"
        refused += bool(said)
    assert refused or name == "manifest"  # which is tried twice, and refuses by itself


@pytest.mark.parametrize("name", PARSERS)
def test_changed_input_is_read_or_refused(
    name: str, tmp_path: Path, torture_random: random.Random
) -> None:
    try_out(name, PARSERS[name].sample, torture_random, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("name", PARSERS)
def test_much_changed_input_is_read_or_refused(
    name: str,
    tmp_path: Path,
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
) -> None:
    try_out(name, scaled(10_000, PARSERS[name].sample), torture_random, tmp_path)


SURROGATE_PACK = real.index_bytes().replace(b'"pool/', b'"\\ud800/')


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("dump", real.dump_bytes(entry_id=-1)),
        *(("dump", real.dump_bytes(integer_size=size)) for size in (1, 2, 8, 255)),
        *(
            ("dump", real.dump_bytes()[:9] + bytes([size]) + real.dump_bytes()[10:])
            for size in (0, 1, 255)
        ),
        ("dump", b"PGDMP\x01\x10\x00\x00\x00\x01\x00" + bytes(100)),
        ("statuses", b"[GNUPG:] \n"),
        ("statuses", b"[GNUPG:]  \n"),
        ("listing", b"-rw-------  " + DIGITS + b" 2025/01/02 12:00:00 a\n"),
        ("listing", b"-rw-------  9223372036854775808 2025/01/02 12:00:00 a\n"),
        ("index", SURROGATE_PACK),
        ("index", real.index_bytes().replace(b'"size":5', b'"size":' + DIGITS)),
        ("index", DEEP + b"\n"),
        ("lines", DEEP + b"\n"),
        ("lines", DIGITS + b"\n"),
        ("journal", real.JOURNAL.replace(b'"done"', b"[]")),
        ("note", real.NOTE.replace(b'"manual_20250102T120000Z"', b"{}")),
        ("note", DEEP),
    ],
)
def test_crafted_input_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert PARSERS[name].attempt(data, tmp_path)


@pytest.mark.parametrize(
    "found",
    [
        Found("a", size=2**63),
        Found("a", size=-1),
        Found("a", mtime_ns=2**63),
        Found("a", tag="\ud800"),
    ],
)
def test_a_listing_of_media_takes_any_size_time_and_tag(found: Found) -> None:
    listing = Listing([found, Found("b", 1)])

    assert [entry.path for entry in listing.entries()] == [b"a", b"b"]
    listing.close()


def test_a_file_of_ours_is_called_by_a_number_that_a_table_holds() -> None:
    numbered = Numbered([Found("x/" + "9" * 30, 1), Found("x/7", 2**70), Found("x/8", 3)])

    assert numbered.size(8) == 3
    numbered.close()


@pytest.mark.parametrize(
    ("mode", "size"), [(None, 5), (0o100600, None), (0o100600, 2**63), (None, None)]
)
def test_sftp_attributes_may_be_absent_or_out_of_range(mode: int | None, size: int | None) -> None:
    class Client:
        def lstat(self, _path: str) -> SFTPAttributes:
            attributes = SFTPAttributes()
            attributes.st_mode, attributes.st_size = mode, size
            return attributes

    if mode is None:
        assert _size_of_file(Client(), "a") is None
    else:
        with pytest.raises(SFTPError):
            _size_of_file(Client(), "a")
