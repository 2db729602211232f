"""Every small file that is replaced is whole at any moment, and lasts once that is told."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mipyme_backup
from mipyme_backup.encryption import GPG
from mipyme_backup.former_state import adopt
from mipyme_backup.private_files import replace_file, unfinished, write_file
from mipyme_backup.sources.media.folders import held
from mipyme_backup.sources.media.lists import write_list
from mipyme_backup.state import State
from mipyme_backup.testing import BytesReader

PACKAGE = Path(mipyme_backup.__file__).parent
Replace = Callable[[Path, bytes], None]
"""Replaces the file called `note` in a folder."""


def by_path(folder: Path, content: bytes) -> None:
    replace_file(folder / "note", content)


def by_descriptor(folder: Path, content: bytes) -> None:
    with held(folder) as opened:
        replace_file("note", content, dir_fd=opened.descriptor)


def by_stream(folder: Path, content: bytes) -> None:
    replace_file(folder / "note", BytesReader(content))


WAYS = {way.__name__: way for way in (by_path, by_descriptor, by_stream)}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def replace(request: pytest.FixtureRequest) -> Replace:
    return request.param  # type: ignore[no-any-return]


class Recorder:
    """What the kernel is asked for: syncs, by the path of what is synced, and changes of names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, ...]] = []
        for name in ("fsync", "rename", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._recorded(name, getattr(os, name)))

    def _recorded(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def recorded(*arguments: Any, **named: Any) -> None:
            paths = [
                os.readlink(f"/proc/self/fd/{item}") if name == "fsync" else self._path(item, named)
                for item in arguments
            ]
            real(*arguments, **named)
            self.calls.append((name, *paths))

        return recorded

    @staticmethod
    def _path(item: Any, named: dict[str, Any]) -> str:
        descriptors = {value for key, value in named.items() if key.endswith("dir_fd")} - {None}
        folder = os.readlink(f"/proc/self/fd/{descriptors.pop()}") if descriptors else ""
        return os.path.join(folder, os.fspath(item))


def a_record(place: Path) -> Path:
    State(place).write("runs/one.json", {"name": "one"})
    return place / "runs/one.json"


def the_host_secret(place: Path) -> Path:
    encryption = GPG(recipients=["A" * 40])
    encryption.host_secret_file = place / "host_secret"
    encryption.host_secret_file.parent.mkdir(mode=0o700, exist_ok=True)
    encryption._host_secret(make=True)
    return encryption.host_secret_file


def a_former_record(place: Path) -> Path:
    former = place / "backups/.state"
    State(former).write("runs/two.json", {"name": "two"})
    State(former).write("newest", 7)
    adopt(State(place / "state"), former)
    return place / "state/runs/two.json"


def a_list_of_media(place: Path) -> Path:
    with held(place) as folder:
        write_list(folder, ".mipyme_backup_moving_id", ["one", "two"])
    return place / ".mipyme_backup_moving_id"


NOTES: dict[str, Callable[[Path], Path]] = {
    note.__name__: note for note in (a_record, the_host_secret, a_former_record, a_list_of_media)
}


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_each_note_is_synced_before_it_is_named_and_its_folder_after(
    note: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)

    file = note(tmp_path)

    calls = recorder.calls
    renamed = [call for call in calls if call[0] in {"rename", "replace"}]
    assert ("rename", unfinished(file), str(file)) in renamed
    for _name, source, target in renamed:
        place = calls.index(("rename", source, target))
        assert ("fsync", source) in calls[:place]
        assert calls[place + 1] == ("fsync", str(Path(target).parent))


def test_record_that_moved_is_never_there_by_half(tmp_path: Path) -> None:
    former, state = tmp_path / "backups/.state", State(tmp_path / "state")
    State(former).write("runs/one.json", {"name": "x" * 9999})
    os.utime(former / "runs/one.json", ns=(7 * 10**18, 10**18))
    state.make("runs")
    write_file(tmp_path / "state/runs/one.json.new", b'{"na')  # as a kill leaves it

    adopt(state, former)

    assert state.read("runs/one.json") == {"name": "x" * 9999}
    assert (tmp_path / "state/runs/one.json").stat().st_mtime_ns == 10**18
    assert not (tmp_path / "state/runs/one.json.new").exists()


def test_what_is_replaced_is_private_whatever_the_umask(replace: Replace, tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(b"old")
    (tmp_path / "note").chmod(0o644)
    before = os.umask(0)
    try:
        replace(tmp_path, b"new")
    finally:
        os.umask(before)

    assert (tmp_path / "note").read_bytes() == b"new"
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600


def test_full_disk_leaves_the_old_one_and_nothing_else(replace: Replace, small_disk: Path) -> None:
    replace(small_disk, b"old")

    with pytest.raises(OSError) as caught:
        replace(small_disk, bytes(2**21))

    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in small_disk.iterdir()] == ["note"]
    assert (small_disk / "note").read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_failure_at_any_step_leaves_the_old_one_and_nothing_else(
    call: str, replace: Replace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(tmp_path, b"old")

    def failing(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match="Input/output"):
        replace(tmp_path, b"new")

    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    assert (tmp_path / "note").read_bytes() == b"old"


def test_interrupt_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    replace_file(tmp_path / "note", b"old")

    class Interrupted(BytesReader):
        def read(self, size: int, /) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "note", Interrupted(b"new"))

    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_link_is_neither_written_through_nor_followed(replace: Replace, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "note").symlink_to(victim)
    Path(unfinished(folder / "note")).symlink_to(victim)

    replace(folder, b"new")

    assert victim.read_bytes() == b"precious"
    assert not (folder / "note").is_symlink() and (folder / "note").read_bytes() == b"new"
    assert [path.name for path in folder.iterdir()] == ["note"]


MOVES = {
    "destinations/local.py": "an object of any size, from the root of the destination to its place",
    "operations/spool.py": "a volume of the spool, which no later process trusts",
    "private_files.py": "the one function",
    "recover.py": "a program of one file",
    "sources/media/folders.py": "entries and folders of media",
    "sources/media/kernel.py": "entries of media, never onto another",
    "sources/sqlite/exchange.py": "whole databases",
    "state.py": "what is not ours, out of the way",
}
"""Where something else than a note is renamed, and what."""


def test_no_module_replaces_a_note_by_hand() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if _renames(node.func, len(node.args))
    }

    assert found == {*MOVES}


def _renames(called: ast.Attribute, arguments: int) -> bool:
    """Say whether it is a call of `os` that renames, or one of `Path` with one argument."""
    of = called.value.id if isinstance(called.value, ast.Name) else ""
    if of == "os":
        return called.attr in {"rename", "replace", "renames", "link"}
    return called.attr in {"rename", "replace"} and arguments == 1
