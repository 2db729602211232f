"""Links that lead out of the media folder: kept as links, never followed but by order."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.errors import BackupError, DamagedError
from mipyme_backup.sources.media import MediaTarget
from mipyme_backup.sources.media.behind import Behind
from mipyme_backup.sources.media.index import FolderRecord, LinkRecord, read_records
from tests.unit.sources.forks import NOBODY
from tests.unit.sources.media_trees import LONG_AGO, Bytes, Saved, restored, save, texts, write
from tests.unit.sources.test_media_target import line, made, target_for

INSIDE = pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    write(folder, "plain", b"plain")
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Another disk, say: three files of 1 + 2 + 3 bytes in two folders."""
    folder = tmp_path / "disk"
    for number, name in enumerate(("one", "album/two", "album/three"), start=1):
        write(folder, name, b"x" * number)
    return folder


def lines(saved: Saved) -> dict[str, dict[str, Any]]:
    found = [json.loads(text) for text in saved.index.splitlines()]
    return {fields["path"]: fields for fields in found}


def links_in(folder: Path) -> dict[str, str]:
    """Return each link below a folder with its text; none is followed."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink()
    }


def add_links(media: Path, disk: Path) -> dict[str, str]:
    """Add links of each kind that leads nowhere inside; return them."""
    (media / "deep" / "er").mkdir(parents=True)
    found = {
        "photos": str(disk),
        "deep/er/relative": "../../../disk/album",
        "file": str(disk / "one"),
        "dangling": "/nowhere/at all",
        "gone inside": "was there",
        "itself": "itself",
        "up": ".",
        "é\udcff": "\udcfe ö",
    }
    for name, text in found.items():
        os.symlink(text, media / name)
    return found


# Kept


@INSIDE
def test_links_come_back_as_they_were(
    tmp_path: Path, media: Path, disk: Path, inside: bool
) -> None:
    links = add_links(media, disk)
    os.utime(media / "photos", ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    times = {name: (media / name).lstat().st_mtime_ns for name in links}
    saved = save(media)
    for name in links:
        (media / name).unlink()
    write(media, "photos/now a folder", b"1")

    target = target_for(tmp_path, inside=inside)
    target.load(saved.artifacts())
    assert target.check(saved.facts) == []
    target.swap()

    assert links_in(media) == dict(sorted(links.items()))
    assert (media / "photos").lstat().st_mtime_ns == times["photos"]
    assert texts(disk) == {"album/three": b"xxx", "album/two": b"xx", "one": b"x"}
    assert saved.facts["links"] == len(links)
    assert saved.facts["files"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give links to others")
def test_links_belong_to_the_owner_of_the_live_folder(tmp_path: Path, media: Path) -> None:
    (media / "photos").symlink_to("/nowhere")
    saved = save(media)
    index = saved.index.replace(b'"uid"', b'"no_uid"')  # of a version that did not note it
    os.chown(media, NOBODY, NOBODY)

    target = target_for(tmp_path)
    target.load(Saved(index=index, packs=saved.packs).artifacts())
    target.swap()

    assert (media / "photos").lstat().st_uid == NOBODY


def test_the_link_of_a_folder_that_is_reached_by_a_link_still_leads_there(
    tmp_path: Path, media: Path, disk: Path
) -> None:
    """The folder is saved twice, and in its second place a relative text leads elsewhere."""
    write(media, "a/b/real/file", b"1")
    (media / "a" / "b" / "real" / "out").symlink_to("../../../../disk/album")
    (media / "short").symlink_to("a/b/real")

    out = restored(save(media), tmp_path / "out")

    assert (out / "short" / "file").read_bytes() == b"1"
    assert not (out / "short").is_symlink()
    assert os.readlink(out / "short" / "out") == str(disk / "album")
    assert os.readlink(out / "a" / "b" / "real" / "out") == "../../../../disk/album"


def test_readers_that_know_no_links_see_an_empty_folder(media: Path, disk: Path) -> None:
    (media / "photos").symlink_to(disk)

    fields = lines(save(media))["photos/"]

    assert fields["link"] == str(disk)
    assert isinstance(fields["mode"], int)
    assert "sha256" not in fields


# Counted and told


def test_what_lies_behind_is_counted_and_told(media: Path, disk: Path) -> None:
    (media / "photos").symlink_to(disk)
    (media / "again").symlink_to(disk)
    (media / "a part").symlink_to(disk / "album")
    (media / "dangling").symlink_to("/nowhere")

    saved = save(media)

    assert saved.facts["files_behind_links"] == 3
    assert saved.facts["bytes_behind_links"] == 6
    behind = "3 files of 6 bytes lie behind links that lead out of the media folder"
    behind += ", and are not in the backup"
    assert saved.warnings == [
        "3 links lead out of the media folder, and are saved as links: a part, again, photos",
        "1 links lead nowhere, and are saved as links: dangling",
        behind,
    ]
    assert b"xx" not in b"".join(saved.packs.values())


def test_counting_follows_no_link_and_comes_to_an_end(tmp_path: Path, disk: Path) -> None:
    (disk / "up").symlink_to(tmp_path)
    (disk / "self").symlink_to(".")
    behind = Behind()
    behind.add(os.fsencode(disk))
    assert (behind.files, behind.bytes, behind.more) == (3, 6, False)

    few = Behind(limit=2)
    few.add(os.fsencode(disk))
    assert few.files <= 2 and few.more

    late = Behind(seconds=0.0)
    late.add(os.fsencode(disk))
    assert late.more


def test_more_than_could_be_counted_is_said_so(
    media: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mipyme_backup.sources.media.behind.LIMIT", 2)
    (media / "photos").symlink_to(disk)

    saved = save(media)

    assert saved.warnings[-1].startswith("More than ")
    assert saved.facts["files_behind_links"] <= 2


def test_files_that_rows_name_behind_a_link_are_not_called_missing(media: Path, disk: Path) -> None:
    (media / "photos").symlink_to(disk)

    saved = save(media, expected=["photos/one", "photos/album/two", "photos/lost"])

    assert saved.facts["missing"] == 1
    told = "\n".join(saved.warnings)
    assert "do not exist: photos/lost" in told
    assert "could not be saved: photos/one, photos/album/two" in told


def test_a_folder_that_became_a_link_keeps_nothing_of_the_last_backup_below(
    tmp_path: Path, media: Path, disk: Path
) -> None:
    write(media, "photos/one", b"inside once")
    first = save(media)
    (media / "photos" / "one").unlink()
    (media / "photos").rmdir()
    (media / "photos").symlink_to(disk)

    second = save(media, first, expected=["photos/one"])

    out = restored(second, tmp_path / "out")
    assert links_in(out) == {"photos": str(disk)}
    assert texts(disk)["one"] == b"x"


# Followed by order


def test_an_option_saves_what_is_behind_them(tmp_path: Path, media: Path, disk: Path) -> None:
    write(tmp_path, "third/four", b"four")
    (disk / "album" / "on").symlink_to("../../third")
    add_links(media, disk)
    (media / "up").unlink()

    saved = save(media, follow_links=True)

    out = restored(saved, tmp_path / "out")
    assert (out / "photos" / "album" / "two").read_bytes() == b"xx"
    assert (out / "photos" / "album" / "on" / "four").read_bytes() == b"four"
    assert (out / "deep" / "er" / "relative" / "three").read_bytes() == b"xxx"
    assert (out / "file").read_bytes() == b"x"
    assert set(links_in(out)) == {"dangling", "gone inside", "itself", "é\udcff"}
    assert saved.facts["files_behind_links"] == 0


@pytest.mark.parametrize("follow", [False, True])
def test_a_link_to_what_is_no_file_stays_a_link(tmp_path: Path, media: Path, follow: bool) -> None:
    os.mkfifo(media / "pipe")
    (media / "null").symlink_to("/dev/null")
    (media / "to pipe").symlink_to("pipe")

    saved = save(media, follow_links=follow)

    assert links_in(restored(saved, tmp_path / "out")) == {"null": "/dev/null", "to pipe": "pipe"}
    assert any("pipe" in text for text in saved.warnings)


def test_followed_links_that_lead_back_or_up_come_to_an_end(
    tmp_path: Path, media: Path, disk: Path
) -> None:
    (disk / "back").symlink_to(media)
    (disk / "self").symlink_to(disk)
    (media / "photos").symlink_to(disk)
    (media / "everything").symlink_to(tmp_path)

    saved = save(media, follow_links=True)

    assert "photos/one" in lines(saved)
    assert saved.facts["files"] < 10
    assert any("lead in a circle" in text for text in saved.warnings)
    restored(saved, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two owners")
def test_root_does_not_follow_the_link_of_a_user_to_what_is_of_another(
    tmp_path: Path, media: Path, disk: Path
) -> None:
    (media / "secret").symlink_to(disk)
    os.lchown(media / "secret", NOBODY, NOBODY)
    (media / "own").symlink_to(tmp_path / "own")
    write(tmp_path, "own/file", b"own")
    os.chown(tmp_path / "own", NOBODY, NOBODY)
    os.lchown(media / "own", NOBODY, NOBODY)

    saved = save(media, follow_links=True)

    assert {"own/file", "secret/"} <= set(lines(saved))
    assert "secret/one" not in lines(saved)
    assert any("another user" in text and "secret" in text for text in saved.warnings)


# Never written through


@pytest.mark.parametrize(
    "bad",
    [
        [{"path": "a/", "link": "VICTIM"}, line("a/b")],
        [line("a/b"), {"path": "a/", "link": "VICTIM"}],
        [{"path": "a/", "link": "VICTIM"}, {"path": "a/b/"}],
        [{"path": "a/", "link": "VICTIM"}, {"path": "a/b/", "link": "x"}],
        [{"path": "a/b/", "link": "x"}, {"path": "a/", "link": "VICTIM"}],
        [{"path": "a/", "link": "VICTIM"}, line("a")],
        [{"path": "a/", "link": "VICTIM"}, {"path": "a/"}],
        [{"path": "a/", "link": "VICTIM"}, {"path": "a/", "link": "VICTIM"}],
        [{"path": "../a/", "link": "VICTIM"}],
        [{"path": "a/../../b/", "link": "VICTIM"}],
        [{"path": "/", "link": "VICTIM"}],
        [{"path": ".mipyme_backup_before_id/", "link": "VICTIM"}],
        [{"path": "a/", "link": ""}],
        [{"path": "a/", "link": "x\0y"}],
        [{"path": "a/", "link": "x" * 5000}],
        [{"path": "a/", "link": ["x"]}],
        [{"path": "a/", "link": "\ud800"}],
    ],
)
@INSIDE
def test_an_index_with_something_at_or_below_a_link_is_refused(
    tmp_path: Path, inside: bool, bad: list[dict[str, Any]]
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    write(tmp_path, "media/live", b"old")
    fields = [{"mode": 0o755, "mtime_ns": 0, **one} for one in bad]
    for one in fields:
        if one.get("link") == "VICTIM":
            one["link"] = str(victim)
    target = target_for(tmp_path, inside=inside)

    with pytest.raises(DamagedError):
        target.load(made(*fields).artifacts())

    target.discard()
    assert os.listdir(victim) == []
    assert texts(tmp_path) == {"media/live": b"old"}


@INSIDE
@pytest.mark.parametrize("seed", range(4))
def test_what_lies_behind_links_survives_any_order_of_steps(
    tmp_path: Path, media: Path, disk: Path, inside: bool, seed: int
) -> None:
    """The links are in the backup, in what is live, and in what is replaced."""
    chance = random.Random(seed)
    add_links(media, disk)
    saved, behind = save(media), texts(disk)
    number, target = 0, target_for(tmp_path, inside=inside)
    for _step in range(30):
        match chance.choice(["load", "swap", "undo", "discard", "expire", "link"]):
            case "load":
                number += 1
                target = MediaTarget.prepare(location=media, restore_id=str(number), inside=inside)
                attempt(partial(target.load, saved.artifacts()))
            case "swap":
                attempt(target.swap)
            case "undo":
                attempt(target.undo)
            case "discard":
                attempt(target.discard)
            case "expire":
                attempt(target.remove_replaced)
            case "link":
                attempt(partial(os.symlink, disk, media / f"more{_step}"))
        assert texts(disk) == behind


def attempt(step: Callable[[], object]) -> None:
    try:
        step()
    except BackupError:
        return


def test_a_target_without_links_makes_none(tmp_path: Path, media: Path, disk: Path) -> None:
    """A drill runs the project's code on what it restores: nothing there may lead out."""
    add_links(media, disk)
    saved = save(media)
    target = target_for(tmp_path, to_directory=tmp_path / "out")
    target.links = False

    target.load(saved.artifacts())

    assert target.check(saved.facts) == []
    assert links_in(tmp_path / "out") == {}


def test_a_restore_that_lacks_a_link_is_not_called_whole(
    tmp_path: Path, media: Path, disk: Path
) -> None:
    (media / "photos").symlink_to(disk)
    saved = save(media)
    target = target_for(tmp_path)
    target.load(saved.artifacts())
    (Path(target.state["side"]) / "photos").unlink()

    (difference,) = target.check(saved.facts)

    assert str(difference) == "0 links were restored, the backup has 1"


def test_a_backup_of_a_version_that_saved_no_links_tells_which_of_the_live_ones_go(
    tmp_path: Path, media: Path, disk: Path
) -> None:
    saved = save(media)
    facts = {name: saved.facts[name] for name in ("files", "bytes")}
    (media / "photos").symlink_to(disk)
    (media / "inside").symlink_to("plain")
    target = target_for(tmp_path)
    target.load(saved.artifacts())

    assert target.check(facts) == []

    (remark,) = map(str, target.remarks())
    assert remark.startswith("1 links lead out of the live media folder")
    assert remark.endswith(": photos")
    assert target_for(tmp_path).remarks() == []


def test_records_of_links_survive_the_index() -> None:
    record = LinkRecord(b"a/\xff", b"\xfe /..", -5)
    assert list(read_records(Bytes(record.line()))) == [record]
    folder = FolderRecord(b"a", 0o755)
    assert list(read_records(Bytes(folder.line()))) == [folder]
