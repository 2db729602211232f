"""What is mounted below the media: it stays where it is, with every file on it."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mipyme_backup.errors import BackupError, RestoreError
from mipyme_backup.sources.media import MediaTarget
from mipyme_backup.sources.media.kernel import mounts_below
from tests.conftest import Mount
from tests.unit.sources.media_trees import Saved, restored, save, texts, write

DEPTHS = ["disk", "a/disk", "a/b/c/d/with a blank"]
KINDS = ["tmpfs", "bind", "file"]


def target_for(media: Path, restore_id: str = "id") -> MediaTarget:
    return MediaTarget.prepare(location=media, restore_id=restore_id)


def mount_disk(mount: Mount, kind: str, place: Path, elsewhere: Path) -> Path:
    """Mount something at `place`; return a file on it."""
    if kind == "file":
        elsewhere.mkdir(exist_ok=True)
        write(elsewhere, "precious", b"precious")
        write(place.parent, place.name)
        mount("--bind", elsewhere / "precious", place)
        return place
    place.mkdir(parents=True, exist_ok=True)
    if kind == "tmpfs":
        mount("-t", "tmpfs", "tmpfs", place)
    else:
        elsewhere.mkdir(exist_ok=True)
        mount("--bind", elsewhere, place)
    return write(place, "precious", b"precious")


def unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(params=[False, True], ids=["folder", "mount point"])
def media(request: pytest.FixtureRequest, tmp_path: Path, mount: Mount) -> Path:
    """The media folder, with some files; renamed as a whole, or itself a mount point."""
    folder = tmp_path / "media"
    folder.mkdir()
    if request.param:
        mount("-t", "tmpfs", "tmpfs", folder)
    write(folder, "a/file", b"old")
    write(folder, "top", b"old")
    return folder


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_plan_refuses_and_names_what_is_mounted_at_any_depth(
    tmp_path: Path, media: Path, mount: Mount, kind: str, depth: str
) -> None:
    mount_disk(mount, kind, media / depth, tmp_path / "elsewhere")
    mount_disk(mount, "tmpfs", media / "other" / "one", tmp_path)

    with pytest.raises(RestoreError) as refusal:
        target_for(media).plan()

    assert str(media / depth) in str(refusal.value)
    assert str(media / "other" / "one") in str(refusal.value)
    assert "--to-media" in str(refusal.value.hint)


def test_files_below_mounts_are_saved_and_restored_elsewhere(
    tmp_path: Path, media: Path, mount: Mount
) -> None:
    mount_disk(mount, "tmpfs", media / "a" / "disk", tmp_path)
    mount_disk(mount, "bind", media / "b", tmp_path / "elsewhere")

    saved = save(media)
    out = restored(saved, tmp_path / "out")

    assert texts(out) == texts(media)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_mounted_since_the_plan_stops_the_swap_before_anything_moves(
    tmp_path: Path, media: Path, mount: Mount, kind: str, depth: str
) -> None:
    saved = save(media)
    target = target_for(media)
    target.plan()
    target.load(saved.artifacts())
    precious = mount_disk(mount, kind, media / depth, tmp_path / "elsewhere")
    before = texts(media)

    with pytest.raises(RestoreError, match="mount"):
        target.swap()

    assert texts(media) == before
    target_for(media).discard()
    assert texts(media) == before
    assert precious.read_bytes() == b"precious"
    assert mounts_below(media)


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_was_mounted_since_the_restore_stops_the_undo_until_it_is_unmounted(
    tmp_path: Path, media: Path, mount: Mount, depth: str
) -> None:
    saved, old = save(media), texts(media)
    write(media, "top", b"newer")
    newer = texts(media)
    target = target_for(media)
    target.load(saved.artifacts())
    target.swap()
    precious = mount_disk(mount, "bind", media / depth, tmp_path / "elsewhere")

    for _again in range(2):
        with pytest.raises(RestoreError, match="mount"):
            target_for(media).undo()
        assert precious.read_bytes() == b"precious"
        assert (media / "top").read_bytes() == old["top"]

    unmount(media / depth)
    target_for(media).undo()
    assert texts(media) == newer
    target_for(media).discard()
    assert (tmp_path / "elsewhere" / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["remove_replaced", "discard"])
def test_nothing_of_a_folder_goes_while_something_is_mounted_in_it(
    tmp_path: Path, media: Path, mount: Mount, kind: str, step: str
) -> None:
    """An earlier version took what was mounted along with what it replaced."""
    saved = save(media)
    target = target_for(media)
    target.load(saved.artifacts())
    if step == "remove_replaced":
        target.swap()
    folder = Path(target.state["replaced" if step == "remove_replaced" else "side"])
    precious = mount_disk(mount, kind, folder / "a" / "x" / "disk", tmp_path / "elsewhere")
    held_before = texts(folder)

    with pytest.raises(RestoreError, match="mount"):
        getattr(target_for(media), step)()

    assert texts(folder) == held_before
    assert precious.read_bytes() == b"precious"
    unmount(folder / "a" / "x" / "disk")
    getattr(target_for(media), step)()
    assert not folder.exists()


def test_undo_brings_back_what_was_mounted_in_what_was_replaced(
    tmp_path: Path, media: Path, mount: Mount
) -> None:
    saved = save(media)
    target = target_for(media)
    target.load(saved.artifacts())
    target.swap()
    mount_disk(mount, "tmpfs", Path(target.state["replaced"]) / "a" / "disk", tmp_path)

    target_for(media).undo()

    assert (media / "a" / "disk" / "precious").read_bytes() == b"precious"
    assert mounts_below(media) == [os.fsencode(media / "a" / "disk")]


def test_a_folder_of_its_own_is_not_taken_back_with_what_was_mounted_in_it(
    tmp_path: Path, mount: Mount
) -> None:
    write(tmp_path, "media/a/file", b"1")
    saved = save(tmp_path / "media")
    out = tmp_path / "out"
    target = MediaTarget.prepare(location=out, restore_id="id", to_directory=out)
    target.load(saved.artifacts())
    precious = mount_disk(mount, "tmpfs", out / "a" / "disk", tmp_path)

    with pytest.raises(RestoreError, match="mount"):
        target.discard()

    assert precious.read_bytes() == b"precious"
    assert (out / "a" / "file").read_bytes() == b"1"


@pytest.mark.parametrize("seed", range(6))
def test_files_on_mounts_survive_any_order_of_steps(
    tmp_path: Path, media: Path, mount: Mount, seed: int
) -> None:
    chance = random.Random(seed)
    saved: Saved = save(media)
    disks: list[Path] = []
    number = 0
    target = target_for(media, "0")
    for _step in range(40):
        match chance.choice(["mount", "unmount", "load", "swap", "undo", "discard", "expire"]):
            case "mount":
                number += 1
                place = media / chance.choice(["a", "b/c", ""]) / f"disk{number}"
                disks.append(tmp_path / f"elsewhere{number}")
                mount_disk(mount, "bind", place, disks[-1])
            case "unmount":
                mounted = [path for path in mounts_below(tmp_path) if path != os.fsencode(media)]
                if mounted:
                    unmount(Path(os.fsdecode(chance.choice(mounted))))
            case "load":
                target = target_for(media, str(number))
                attempt(partial(target.load, saved.artifacts()))
            case "swap":
                attempt(target.swap)
            case "undo":
                attempt(target.undo)
            case "discard":
                attempt(target.discard)
            case "expire":
                attempt(target.remove_replaced)
        for disk in disks:
            assert (disk / "precious").read_bytes() == b"precious"


def attempt(step: Callable[[], object]) -> None:
    try:
        step()
    except (BackupError, OSError):
        return


def test_mounts_of_other_folders_with_a_like_name_do_not_count(
    tmp_path: Path, mount: Mount
) -> None:
    (tmp_path / "media").mkdir()
    mount_disk(mount, "tmpfs", tmp_path / "media2" / "disk", tmp_path)

    assert mounts_below(tmp_path / "media") == []
    target_for(tmp_path / "media").plan()
