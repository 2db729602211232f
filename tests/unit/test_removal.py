"""Removing a folder of ours takes what is in it, and nothing that is elsewhere."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path

import pytest

from mipyme_backup.removal import place_of, remove_tree
from tests.conftest import Mount
from tests.unit.sources.forks import in_child

DEEP = 1200


def tree(folder: Path) -> Path:
    """Make a folder with files, folders, links out of it and a pipe."""
    (folder / "a" / "b" / "empty").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("ours")
    (folder / "a" / "not utf-8 \udcff").write_text("ours")
    (folder / "a" / "to file").symlink_to(folder.parent / "kept" / "file")
    (folder / "to folder").symlink_to(folder.parent / "kept")
    (folder / "to nowhere").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    kept = folder.parent / "kept"
    kept.mkdir()
    (kept / "file").write_text("not ours")
    return folder


def test_a_folder_goes_with_all_it_holds_and_no_link_is_followed(tmp_path: Path) -> None:
    remove_tree(tree(tmp_path / "ours"))
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").read_text() == "not ours"
    remove_tree(tmp_path / "ours")
    remove_tree(tmp_path / "ours" / "ours")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    if kind == "link":
        (tmp_path / "ours").symlink_to("kept")
    else:
        (tmp_path / "ours").touch()
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "ours")
    assert os.path.lexists(tmp_path / "ours")
    assert (tmp_path / "kept" / "file").exists()


def test_any_depth_is_removed_with_few_descriptors(tmp_path: Path) -> None:
    def dig() -> None:
        top = os.open(tmp_path, os.O_RDONLY)
        for name in ["ours", *("folder with a long name" for _level in range(DEEP))]:
            os.mkdir(name, dir_fd=top)
            below = os.open(name, os.O_RDONLY, dir_fd=top)
            os.close(top)
            top = below
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=top))
        os.close(top)

    def work() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        dig()
        remove_tree(tmp_path / "ours")
        return os.path.lexists(tmp_path / "ours")

    assert in_child(work) is False


def test_folders_that_may_not_be_entered_or_written_to_go_too(workdir: Path) -> None:
    os.chmod(workdir, 0o777)

    def work() -> list[str]:
        for number, mode in enumerate((0, 0o100, 0o200, 0o400, 0o500)):
            folder = workdir / "ours" / f"{number}" / "below"
            folder.mkdir(parents=True)
            (folder / "file").touch()
            os.chmod(folder, mode)
            os.chmod(folder.parent, mode)
        os.chmod(workdir / "ours", 0o500)
        remove_tree(workdir / "ours")
        return os.listdir(workdir)

    assert in_child(work, nobody=True) == []


@pytest.mark.parametrize("bind", [False, True], ids=["device", "bind mount"])
def test_what_is_mounted_below_stays_and_is_named(tmp_path: Path, mount: Mount, bind: bool) -> None:
    ours = tree(tmp_path / "ours")
    place = ours / "a" / "b" / "mounted"
    place.mkdir()
    if bind:
        mount("--bind", tmp_path / "kept", place)
    else:
        mount("-t", "tmpfs", "tmpfs", place)
        (place / "file").write_text("not ours")

    with pytest.raises(OSError) as caught:
        remove_tree(ours)

    assert caught.value.errno == errno.EBUSY
    assert caught.value.filename == str(place)
    assert (place / "file").read_text() == "not ours"
    assert [str(path.relative_to(ours)) for path in ours.rglob("*")] == [
        "a",
        "a/b",
        "a/b/mounted",
        "a/b/mounted/file",
    ]


def test_a_folder_on_which_something_is_mounted_stays(tmp_path: Path, mount: Mount) -> None:
    ours = tree(tmp_path / "ours")
    mount("--bind", tmp_path / "kept", ours)
    with pytest.raises(OSError, match="mounted"):
        remove_tree(ours)
    assert (tmp_path / "kept" / "file").read_text() == "not ours"


def test_the_mode_of_what_is_mounted_is_not_changed(workdir: Path, mount: Mount) -> None:
    place = workdir / "ours" / "mounted"
    place.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", "mode=000,uid=65534", "tmpfs", place)
    for path in (workdir, workdir / "ours"):
        os.chmod(path, 0o777)

    def work() -> bool:
        try:
            remove_tree(workdir / "ours")
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    assert in_child(work, nobody=True) is True
    assert place.stat().st_mode & 0o777 == 0


def test_a_bind_mount_of_the_same_device_is_another_place(tmp_path: Path, mount: Mount) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    mount("--bind", tmp_path / "one", tmp_path / "other")
    places = []
    for path in (tmp_path, tmp_path / "one", tmp_path / "other"):
        descriptor = os.open(path, os.O_RDONLY)
        places.append(place_of(descriptor))
        os.close(descriptor)
    assert len({place.device for place in places}) == 1
    assert places[0] == places[1] != places[2]


def test_what_stays_does_not_keep_the_rest(tmp_path: Path) -> None:
    """A file that cannot go (a mount on it) is an error; all else is gone."""
    ours = tree(tmp_path / "ours")
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    target = ours / "a" / "b" / "file"
    if subprocess.run(["mount", "--bind", tmp_path / "kept" / "file", target]).returncode != 0:
        pytest.skip("this machine does not let us mount")
    try:
        with pytest.raises(OSError) as caught:
            remove_tree(ours)
        assert caught.value.filename == str(target)
        assert [path.name for path in ours.rglob("*")] == ["a", "b", "file"]
        assert target.read_text() == "not ours"
    finally:
        subprocess.run(["umount", target], check=True)
