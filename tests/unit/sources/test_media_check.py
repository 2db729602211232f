"""The parse of media backups: what is whole passes, and what lacks a content is found."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.errors import BackupError, DamagedError
from mipyme_backup.sources.media import check_files
from mipyme_backup.sources.media.check import check_pack
from mipyme_backup.testing import BytesReader
from tests.unit.sources.media_trees import INDEX, Saved
from tests.unit.sources.test_media_target import line, made, pack_of

NAME = hashlib.sha256(b"content").hexdigest()


def check(saved: Saved, folder: Path) -> None:
    openers = saved.artifacts()
    packs = {name: opener for name, opener in openers.items() if name != INDEX}
    check_files(openers[INDEX](), packs, folder)


def test_what_is_whole_passes(tmp_path: Path) -> None:
    check(made(line("a"), line("b"), {"path": "folder/", "mode": 0o755}), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_member_that_changed_while_it_was_packed_is_no_damage(tmp_path: Path) -> None:
    void = pack_of(b"c0ntent", b"content", names={0: NAME})

    check(made(line("a"), pack=void), tmp_path)
    check(made(pack=pack_of(b"c0ntent", names={0: NAME})), tmp_path)  # the file left out
    check_pack(BytesReader(void))


@pytest.mark.parametrize(
    "pack",
    [pack_of(b"other"), pack_of(b"c0ntent", names={0: NAME}), pack_of()],
    ids=["without it", "with other content", "empty"],
)
def test_content_that_no_pack_has_is_found(pack: bytes, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="a"):
        check(made(line("a"), pack=pack), tmp_path)


def test_size_that_differs_is_found(tmp_path: Path) -> None:
    with pytest.raises(BackupError):
        check(made(line("a", size=6)), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        [line("a"), line("b"), line("a")],
        [line("a"), line("b"), line("a", b"other", size=7)],
        [line("a"), line("a/b/c")],
        [line("a/b/c"), line("a")],
        [line("a"), {"path": "a/", "mode": 0o755}],
        [{"path": "a/", "mode": 0o755}, line("b"), {"path": "a/", "mode": 0o700}],
    ],
    ids=["a file", "other content", "above", "below", "file and folder", "a folder"],
)
def test_path_that_is_named_twice_is_found(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"contradicts itself at a$"):
        check(made(*lines, pack=pack_of(b"content", b"other")), tmp_path)


@pytest.mark.parametrize("length", [0, 100, 512, 515, 1024])
def test_pack_that_is_cut_off_is_found(length: int, tmp_path: Path) -> None:
    cut = pack_of(b"content")[:length]

    with pytest.raises(DamagedError):
        check(made(line("a"), pack=cut), tmp_path)
    with pytest.raises(DamagedError):
        check_pack(BytesReader(cut))
