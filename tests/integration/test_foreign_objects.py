"""A destination that somebody filled with what is none of ours: it stays, and is in no way."""

from __future__ import annotations

import contextlib
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage

from mipyme_backup import api
from mipyme_backup.destinations import LocalDestination, StorageDestination
from mipyme_backup.errors import DestinationError
from mipyme_backup.operations.layout import LAYOUT

GENEROUS = 60.0
DEPTH = 1200
ID = "0123456789abcdef0123456789abcdef"


class Scrambling(FileSystemStorage):
    """A storage with a way of its own to open files, so that nothing can be taken for granted."""

    def _open(self, name: str, mode: str = "rb") -> Any:
        return super()._open(name, mode)  # type: ignore[misc]


def nest(folder: Path, depth: int = DEPTH) -> None:
    """Make folders in each other, deeper than a path may be long."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    for _turn in range(depth):
        os.mkdir("deeper", dir_fd=descriptor)
        below = os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def remove_nest(folder: Path) -> None:
    """Take the nest down from its inside out: `shutil` would need a frame for each folder."""
    opened = [os.open(folder, os.O_RDONLY)]
    while True:
        try:
            opened.append(os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=opened[-1]))
        except FileNotFoundError:
            break
        if len(opened) > 500:  # few enough descriptors; what is above is found by its parents
            os.close(opened.pop(0))
    while len(opened) > 1:
        os.close(opened.pop())
        os.rmdir("deeper", dir_fd=opened[-1])
    os.close(opened.pop())


@pytest.fixture
def nested(backups: Path) -> Any:
    """Nests at the root, in a backup's folder, in the pool and among the months."""
    folders = [
        backups / "foreign",
        backups / "manual_20200101T000000Z",
        backups / "pool" / ID,
        backups / "monthly" / "mipyme_backup_202001",
        backups / "monthly" / "other",
    ]
    for folder in folders:
        nest(folder)
    yield folders
    for folder in folders:
        while (folder / "deeper").exists():
            remove_nest(folder)


def test_nested_folders_stop_neither_backup_nor_verify_nor_prune(
    backups: Path, nested: list[Path]
) -> None:
    made = api.backup()
    status = api.status(timeout=GENEROUS)
    verified = api.verify(latest=True)
    completed = api.complete(identifier=made.manifest.id, destinations=[])
    pruned = api.prune()

    assert made.status == completed.status == "complete"
    assert all(not one.problems for one in verified)
    assert not pruned.failed
    assert all((folder / "deeper" / "deeper").is_dir() for folder in nested)
    (local,) = status.facts.destinations
    assert local.foreign == len(nested)
    assert found(status) == {"foreign_objects:local": "ok"}


def test_many_foreign_things_are_named_once_and_kept(backups: Path) -> None:
    api.backup()
    for number in range(300):
        (backups / f"folder {number}").mkdir()
        (backups / f"file {number}").touch()
        (backups / "pool" / f"pack {number}").mkdir()
    hostile = [
        b"new\nline", b"esc\x1b[2J", b"\xff\xfe", b"x" * 255, b"blank ", "né".encode(), b"-rf",
        b"manual_20200101T000000Z\n", b"mipyme_backup_20200101T000000Z_extra",
        b"safety_before_restore_20200101T000000Z ", b"recover.py ", b"manifest.json",
    ]  # fmt: skip
    for name in hostile:
        (Path(os.fsdecode(os.fsencode(backups) + b"/" + name))).mkdir()
        inner = os.fsencode(backups) + b"/" + name + b"/manifest.json"
        Path(os.fsdecode(inner)).write_bytes(b"{}")
    before = sorted(os.listdir(os.fsencode(backups)))

    status = api.status(timeout=GENEROUS)
    pruned = api.prune()
    made = api.backup()

    assert found(status) == {"foreign_objects:local": "warning"}
    (finding,) = status.findings
    assert str(finding.message).isprintable() and len(str(finding.message)) < 500
    assert status.facts.destinations[0].foreign == 900 + len(hostile)
    assert not pruned.failed and made.status == "complete"
    assert set(before) <= set(os.listdir(os.fsencode(backups)))


def test_a_name_that_could_be_taken_for_another_is_shown_quoted(backups: Path) -> None:
    api.backup()
    for name in (b"a\nb", b"\xff", b"blank "):
        (Path(os.fsdecode(os.fsencode(backups) + b"/" + name))).touch()

    (finding,) = api.status(timeout=GENEROUS).findings

    shown = str(finding.message)
    assert all(text in shown for text in (r"'a\nb'", r"'\udcff'", "'blank '"))


@pytest.mark.parametrize("kind", ["link", "broken", "loop", "pipe", "socket", "file"])
@pytest.mark.parametrize("storage", [False, True])
def test_a_backups_name_that_is_no_folder_is_passed_over(
    tmp_path: Path, settings: Any, kind: str, storage: bool
) -> None:
    root, elsewhere = tmp_path / "backups", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "manifest.json").write_text("{}")
    destination = LocalDestination(location=root)
    destination.check()
    for name in ("manual_20200101T000000Z", "monthly", f"pool/{ID}", "recover.py"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        make(path, kind, elsewhere)
    inside = root / "manual_20200102T000000Z"
    inside.mkdir()
    make(inside / "manifest.json", kind, elsewhere / "manifest.json")
    settings.STORAGES = {
        **settings.STORAGES,
        "odd": {
            "BACKEND": f"{__name__}.Scrambling",
            "OPTIONS": {"location": root},
        },
    }
    looked_at = StorageDestination(storage="odd") if storage else destination

    listed = looked_at.listing(LAYOUT)

    names = {entry.name for entry in listed.entries}
    expected = {"recover.py", "manual_20200102T000000Z/manifest.json"} if kind == "file" else set()
    assert names == expected
    assert storage or listed.foreign.count == 5 - len(expected)
    for name in (*names, "manual_20200102T000000Z/manifest.json"):
        with contextlib.suppress(DestinationError):
            looked_at.open(name).close()  # comes back, and waits for no writer


def make(path: Path, kind: str, target: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "file":
        path.touch()
    else:
        path.symlink_to({"link": str(target), "broken": "nowhere", "loop": path.name}[kind])


class TestLinkOnTheWay:
    """A folder of ours is replaced by a link: nothing is read, written or deleted behind it."""

    NAME = "monthly/mipyme_backup_202001/manifest.json"

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Path:
        elsewhere = tmp_path / "elsewhere"
        (elsewhere / "mipyme_backup_202001").mkdir(parents=True)
        (elsewhere / "mipyme_backup_202001" / "manifest.json").write_text("theirs")
        return elsewhere

    @pytest.fixture
    def destination(self, tmp_path: Path, elsewhere: Path) -> LocalDestination:
        destination = LocalDestination(location=tmp_path / "backups")
        destination.check()
        (tmp_path / "backups" / "monthly").symlink_to(elsewhere)
        return destination

    def test_it_is_not_gone_into(
        self, destination: LocalDestination, elsewhere: Path, tmp_path: Path
    ) -> None:
        before = sorted(elsewhere.rglob("*"))
        file = tmp_path / "spooled"
        file.write_bytes(b"ours")

        assert destination.size(self.NAME) is None
        assert [*destination.entries("monthly/")] == []
        with pytest.raises(DestinationError):
            destination.open(self.NAME)
        for name in (self.NAME, "monthly/mipyme_backup_202002/manifest.json"):
            with pytest.raises(DestinationError, match="is a link"):
                destination.put(name, file)
        destination.delete(self.NAME)
        destination.sweep("monthly/mipyme_backup_202001/")

        assert sorted(elsewhere.rglob("*")) == before
        assert (elsewhere / "mipyme_backup_202001" / "manifest.json").read_text() == "theirs"


def test_memory_is_bounded_by_what_is_ours(tmp_path: Path) -> None:
    destination = LocalDestination(location=tmp_path / "backups")
    destination.check()
    (tmp_path / "backups" / "pool").mkdir()
    peaks = []
    for count in (1000, 20_000):
        for number in range(count // 2):
            (tmp_path / "backups" / f"foreign_{number:06d}").touch()
            (tmp_path / "backups" / "pool" / f"foreign_{number:06d}").touch()
        tracemalloc.start()
        listed = destination.listing(LAYOUT)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (listed.entries, listed.foreign.count) == ((), count)

    assert peaks[1] < 2 * peaks[0] + 100_000


def test_many_empty_folders_of_our_names_are_no_backups(backups: Path) -> None:
    for number in range(3000):
        (backups / f"manual_20200101T{number:06d}Z").mkdir(parents=True)

    made = api.backup()
    status = api.status(timeout=GENEROUS)

    assert made.status == "complete"
    assert found(status) == {}


def found(status: api.Status) -> dict[str, str]:
    return {finding.id: finding.level for finding in status.findings}
