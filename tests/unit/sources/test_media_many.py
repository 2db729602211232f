"""A restore takes no more memory for more files, even where all have the same content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peak import peak_of

REPOSITORY = Path(__file__).resolve().parents[3]
FEW, MANY = 20_000, 100_000
A_FILE = 25
"""Bytes: of a file's line, its hash alone takes more."""
PROGRAM = """\
import hashlib, sys
sys.path.insert(0, sys.argv[3])
from mipyme_backup.sources.media.index import FileRecord
from mipyme_backup.sources.media.wanted import Wanted

def sha256(number):
    return hashlib.sha256(b"" if sys.argv[2] == "same" else b"%d" % number).hexdigest()

def records():
    for number in range(int(sys.argv[1])):
        path = b"%d/a name %d.jpg" % (number // 1000, number)
        yield FileRecord(path, 7, 0, 0o644, sha256(number), "p")

wanted = Wanted()
wanted.add(records())
assert wanted.packs() == ["p"]
wanted.require_size(bytes.fromhex(sha256(0)), 7)
written = 0
for file in wanted.with_content(bytes.fromhex(sha256(0))):
    wanted.written(file)
    written += 1
for file in wanted.files():
    wanted.written(file)
    written += 1
assert wanted.count() == 0
print(written)
"""


@pytest.mark.parametrize("contents", ["distinct", "same"])
def test_memory_of_a_restore(contents: str, tmp_path: Path) -> None:
    assert_bounded(contents, tmp_path, FEW, MANY)


@pytest.mark.torture
@pytest.mark.parametrize("contents", ["distinct", "same"])
def test_memory_of_a_restore_of_a_million_files(
    contents: str, tmp_path: Path, scaled: Callable[[int, int], int]
) -> None:
    many = scaled(1_000_000, MANY)
    assert_bounded(contents, tmp_path, many // 10, many)


def assert_bounded(contents: str, folder: Path, few: int, many: int) -> None:
    peaks = []
    for count in (few, many):
        peak, written = peak_of(["-c", PROGRAM, str(count), contents, str(REPOSITORY)], folder)
        assert int(written) == count
        peaks.append(peak)

    assert peaks[1] - peaks[0] < (many - few) * A_FILE, peaks
