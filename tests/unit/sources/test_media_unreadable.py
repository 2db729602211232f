"""Media that this user may not read: told as what it is, and never as what is not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.sources.forks import in_child
from tests.unit.sources.media_trees import Saved, save, write

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two owners")


@pytest.fixture
def media(workdir: Path) -> Path:
    """A media folder of root that all may enter; the tests close parts of it."""
    workdir.chmod(0o755)
    folder = workdir / "media"
    folder.mkdir(mode=0o755)
    write(folder, "open", b"1")
    return folder


def saved_as_nobody(
    media: Path, previous: Saved | None = None, *, expected: list[str] | None = None
) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        saved = save(media, previous, expected=expected or ())
        lines = [json.loads(line) for line in saved.index.splitlines()]
        return {
            "paths": [line["path"] for line in lines],
            "warnings": saved.warnings,
            "facts": dict(saved.facts),
        }

    found: dict[str, Any] = in_child(work, nobody=True)
    return found


def closed(media: Path, mode: int) -> Path:
    folder = media / "private"
    write(folder, "below/one", b"one")
    write(folder, "two", b"two")
    folder.chmod(mode)
    return folder


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744, 0o000])
def test_a_closed_folder_is_called_a_folder_and_counted(media: Path, mode: int) -> None:
    """Not to be listed, not to be entered, or neither."""
    closed(media, mode)

    found = saved_as_nobody(media)

    assert found["warnings"] == ["1 media folders could not be read: private"]
    assert found["facts"]["unreadable"] == 1
    assert found["paths"] == ["open", "private/"]


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744])
def test_files_that_rows_name_in_a_closed_folder_are_not_called_missing(
    media: Path, mode: int
) -> None:
    closed(media, mode)
    names = ["open", "private/two", "private/below/one", "lost"]

    found = saved_as_nobody(media, expected=names)

    assert found["facts"]["missing"] == 1
    assert "1 media files that the database names do not exist: lost" in found["warnings"]
    told = [text for text in found["warnings"] if "private/two" in text]
    text = "2 media files that the database names could not be saved"
    assert told == [f"{text}: private/two, private/below/one"]


def test_a_file_that_rows_name_and_that_may_not_be_read_is_told_once(media: Path) -> None:
    write(media, "sealed", b"2").chmod(0o600)

    found = saved_as_nobody(media, expected=["sealed"])

    assert found["warnings"] == ["1 media files could not be read: sealed"]
    assert found["facts"]["missing"] == 0
    assert found["facts"]["unreadable"] == 1


def test_what_the_last_backup_holds_of_a_closed_folder_is_kept_and_still_counted(
    media: Path,
) -> None:
    write(media, "private/two", b"two")
    first = save(media)
    (media / "private").chmod(0o700)

    found = saved_as_nobody(media, first, expected=["private/two"])

    assert found["paths"] == ["open", "private/", "private/two"]
    assert found["facts"]["unreadable"] == 1
    assert found["facts"]["missing"] == 0
    assert found["warnings"] == ["1 media folders could not be read: private"]


def test_everything_of_other_owners_is_counted(media: Path) -> None:
    for number in range(3):
        write(media, f"file{number}", b"x").chmod(0o600)
        write(media, f"folder{number}/file", b"x")
        (media / f"folder{number}").chmod(0o700)
    write(media, "folder0/deep/file", b"x")

    found = saved_as_nobody(media)

    assert found["facts"]["unreadable"] == 6
    assert found["facts"]["left_out"] == 6
    assert sorted(found["warnings"]) == [
        "3 media files could not be read: file0, file1, file2",
        "3 media folders could not be read: folder0, folder1, folder2",
    ]


def test_a_link_to_a_closed_folder_inside_is_a_folder_too(media: Path) -> None:
    closed(media, 0o700)
    (media / "linked").symlink_to("private")

    found = saved_as_nobody(media)

    assert found["warnings"] == ["2 media folders could not be read: linked, private"]


def test_a_readable_folder_counts_nothing(media: Path) -> None:
    closed(media, 0o755)

    found = saved_as_nobody(media, expected=["private/two"])

    assert found["facts"]["unreadable"] == 0
    assert found["warnings"] == []


@pytest.mark.parametrize("place", [lambda path: path.mkdir(), os.mkfifo], ids=["folder", "pipe"])
def test_a_name_that_is_taken_by_what_is_no_file_is_not_called_missing(
    media: Path, place: Callable[[Path], None]
) -> None:
    place(media / "named")

    found = saved_as_nobody(media, expected=["named"])

    assert found["facts"]["missing"] == 0
    assert any("could not be saved: named" in text for text in found["warnings"])
