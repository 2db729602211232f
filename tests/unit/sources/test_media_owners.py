"""Owners, groups and special bits of media: they come back where this user may set them."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.errors import DamagedError
from mipyme_backup.sources.media import MediaTarget
from mipyme_backup.sources.media.index import (
    FileRecord,
    FolderRecord,
    LinkRecord,
    Record,
    read_records,
)
from mipyme_backup.sources.media.owners import Owner
from tests.unit.sources.forks import NOBODY, in_child
from tests.unit.sources.media_trees import Bytes, Saved, save, texts, write
from tests.unit.sources.test_media_target import line, made, target_for

SITE, WEB = pwd.getpwnam("daemon"), grp.getgrnam("www-data")
NO_USER = 1_234_567
"""A number that no user and no group has."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")


@pytest.fixture(params=[False, True], ids=["beside", "inside"])
def inside(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def given(path: Path, uid: int, gid: int, mode: int) -> Path:
    os.chown(path, uid, gid, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(mode)
    return path


def site(folder: Path) -> Path:
    """Return a media folder as a web server shares it: ``site:www-data``, 2750, files 0640."""
    media = folder / "media"
    write(media, "a/b/file", b"1")
    write(media, "mine", b"2")
    (media / "drop").mkdir()
    (media / "out").symlink_to("/nowhere")
    given(media, SITE.pw_uid, WEB.gr_gid, 0o2750)
    given(media / "a", SITE.pw_uid, WEB.gr_gid, 0o2750)
    given(media / "a" / "b", SITE.pw_uid, WEB.gr_gid, 0o2770)
    given(media / "a" / "b" / "file", SITE.pw_uid, WEB.gr_gid, 0o640)
    given(media / "mine", NO_USER, NO_USER, 0o600)
    given(media / "drop", 0, WEB.gr_gid, 0o3773)
    given(media / "out", SITE.pw_uid, WEB.gr_gid, 0)
    return media


def owned(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return user, group and mode of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        mode = oct(stat.S_IMODE(status.st_mode))
        found[str(path.relative_to(folder))] = (status.st_uid, status.st_gid, mode)
    return {name: what for name, what in found.items() if ".mipyme_backup_" not in name}


def reindexed(saved: Saved, change: Callable[[dict[str, Any]], object]) -> Saved:
    """Return the backup with each record of its index changed."""
    records = [json.loads(text) for text in saved.index.splitlines()]
    for record in records:
        change(record)
    index = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    return Saved(index=index, packs=saved.packs, facts=saved.facts)


def loaded(folder: Path, saved: Saved, **options: Any) -> MediaTarget:
    target = target_for(folder, **options)
    target.load(saved.artifacts())
    return target


# As root


def test_root_brings_back_owners_groups_and_special_bits(tmp_path: Path, inside: bool) -> None:
    media = site(tmp_path)
    saved, before = save(media), owned(media)
    for path in (media / "a", media / "mine"):
        given(path, 0, 0, 0o700)

    target = loaded(tmp_path, saved, inside=inside)
    target.swap()

    assert owned(media) == before
    assert before["a"] == (SITE.pw_uid, WEB.gr_gid, "0o2750")
    assert stat.S_IMODE(media.stat().st_mode) == 0o2750
    assert target.remarks() == []


def test_a_new_folder_gets_them_too(tmp_path: Path) -> None:
    media = site(tmp_path)

    loaded(tmp_path, save(media), to_directory=tmp_path / "out").swap()

    assert owned(tmp_path / "out") == owned(media)


def test_the_name_counts_before_the_number(tmp_path: Path) -> None:
    """The same user has another number on the new host."""
    media = site(tmp_path)

    def renumber(record: dict[str, Any]) -> None:
        record["uid"] += 40_000
        record["gid"] += 40_000

    target = loaded(tmp_path, reindexed(save(media), renumber), inside=False)

    side = Path(target.state["side"])
    assert owned(side)["a"] == (SITE.pw_uid, WEB.gr_gid, "0o2750")
    assert owned(side)["mine"][:2] == (NO_USER + 40_000, NO_USER + 40_000)


def test_a_number_goes_to_no_user_of_another_name(tmp_path: Path) -> None:
    """A user of the old host is unknown here, and somebody else has the number."""
    media = site(tmp_path)
    other = pwd.getpwnam("nobody")

    def rename(record: dict[str, Any]) -> None:
        record.update(user="no-such-user", uid=other.pw_uid, group="no-such-group", gid=NO_USER)

    saved = save(media)
    given(media, SITE.pw_uid, WEB.gr_gid, 0o2750)

    target = loaded(tmp_path, reindexed(saved, rename), inside=False)

    side = Path(target.state["side"])
    # The user falls back to the live folder's owner; the number of the group is nobody's here.
    assert {what[:2] for what in owned(side).values()} == {(SITE.pw_uid, NO_USER)}
    (remark,) = map(str, target.remarks())
    assert remark.startswith("The owner or group of 6 restored media files")


def test_without_a_live_folder_such_a_file_stays_roots(tmp_path: Path) -> None:
    saved = save(site(tmp_path / "old"))
    saved = reindexed(saved, lambda record: record.update(user="no-such-user", uid=NOBODY))

    target = loaded(tmp_path, saved)

    assert {what[0] for what in owned(Path(target.state["side"])).values()} == {0}


def test_an_index_without_owners_gives_all_to_the_owner_of_the_live_folder(
    tmp_path: Path, inside: bool
) -> None:
    """As earlier versions wrote it, so that their backups come back as they always did."""
    (tmp_path / "media").mkdir()
    given(tmp_path / "media", SITE.pw_uid, WEB.gr_gid, 0o750)
    saved = made({"path": "a/", "mode": 0o755}, line("a/file", mode=0o640))

    target = loaded(tmp_path, saved, inside=inside)
    target.swap()

    assert owned(tmp_path / "media") == {
        "a": (SITE.pw_uid, WEB.gr_gid, "0o755"),
        "a/file": (SITE.pw_uid, WEB.gr_gid, "0o640"),
    }
    assert target.remarks() == []


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711])
def test_no_file_gets_a_set_id_bit_and_that_is_told(tmp_path: Path, mode: int) -> None:
    media = site(tmp_path)
    write(media, "tool", b"#!")
    given(media / "tool", SITE.pw_uid, WEB.gr_gid, mode)
    saved = save(media)

    target = loaded(tmp_path, saved, inside=False)

    assert owned(Path(target.state["side"]))["tool"][2] == oct(mode & 0o777)
    (remark,) = map(str, target.remarks())
    assert "set-user-ID" in remark and remark.endswith(": tool")


# As another user


def as_user(work: Callable[[], Any], *, uid: int, gid: int, groups: list[int]) -> Any:
    def work_as_user() -> Any:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
        return work()

    return in_child(work_as_user)


def restored_as(
    workdir: Path, saved: Saved, *, uid: int, gid: int, groups: list[int]
) -> tuple[dict[str, list[Any]], list[str]]:
    workdir.chmod(0o777)

    def work() -> list[Any]:
        target = loaded(workdir, saved, to_directory=workdir / "out")
        target.swap()
        return [owned(workdir / "out"), [str(remark) for remark in target.remarks()]]

    found, remarks = as_user(work, uid=uid, gid=gid, groups=groups)
    return found, remarks


def test_the_owner_brings_back_groups_that_it_belongs_to(workdir: Path) -> None:
    media = site(workdir / "old")
    (media / "mine").unlink()
    (media / "drop").rmdir()
    saved = save(media)

    found, remarks = restored_as(
        workdir, saved, uid=SITE.pw_uid, gid=SITE.pw_gid, groups=[WEB.gr_gid]
    )

    expected = {name: list(what) for name, what in owned(media).items()}
    assert found == expected
    assert remarks == []


def test_a_user_outside_the_group_sets_no_setgid_for_its_own_and_is_told(workdir: Path) -> None:
    saved = save(site(workdir / "old"))

    found, remarks = restored_as(workdir, saved, uid=SITE.pw_uid, gid=SITE.pw_gid, groups=[])

    assert found["a"] == [SITE.pw_uid, SITE.pw_gid, "0o750"]
    assert found["a/b/file"] == [SITE.pw_uid, SITE.pw_gid, "0o640"]
    assert found["drop"] == [SITE.pw_uid, SITE.pw_gid, "0o1773"]
    (remark,) = remarks
    assert remark.startswith("The owner or group of 6 restored media files")
    assert "a/b/file" in remark


def test_another_user_keeps_the_files_and_is_told(workdir: Path) -> None:
    saved = save(site(workdir / "old"))

    found, remarks = restored_as(workdir, saved, uid=NOBODY, gid=NOBODY, groups=[])

    assert {tuple(what[:2]) for what in found.values()} == {(NOBODY, NOBODY)}
    assert all(int(what[2], 8) & 0o6000 == 0 for what in found.values())
    assert len(remarks) == 1


# The index


def test_owners_survive_the_index() -> None:
    owner = Owner(7, 8, "sité", "")
    records: list[Record] = [
        FileRecord(b"a", 1, 2, 0o2640, "ab" * 32, "p", owner=owner),
        FolderRecord(b"b", 0o3770, owner),
        LinkRecord(b"c", b"x", 3, owner),
        FolderRecord(b"d", 0o755, Owner(2**32 - 2, 0, "", "x")),
    ]

    index = b"".join(record.line() for record in records)

    assert list(read_records(Bytes(index))) == records


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": -1, "gid": 0},
        {"uid": 2**32 - 1, "gid": 0},
        {"uid": 0, "gid": 2**32},
        {"uid": 0},
        {"uid": "0", "gid": 0},
        {"uid": True, "gid": 0},
        {"uid": 0, "gid": 0, "user": 5},
        {"uid": 0, "gid": 0, "user": "a\0b"},
        {"uid": 0, "gid": 0, "group": "\ud800"},
        {"uid": 0, "gid": 0, "group": "x" * 300},
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_owners_that_are_none_are_refused(
    tmp_path: Path, fields: dict[str, Any], kind: str
) -> None:
    record = {
        "file": line("a"),
        "folder": {"path": "a/", "mode": 0o755},
        "link": {"path": "a/", "mode": 0o777, "link": "x", "mtime_ns": 0},
    }[kind]

    with pytest.raises(DamagedError):
        target_for(tmp_path).load(made({**record, **fields}).artifacts())


def test_readers_of_plain_modes_see_the_permission_bits(tmp_path: Path) -> None:
    (fields,) = [
        record
        for record in map(json.loads, save(site(tmp_path)).index.splitlines())
        if record["path"] == "a/"
    ]
    assert fields["mode"] & 0o777 == 0o750
    assert fields["mode"] == 0o2750
    assert (fields["user"], fields["group"]) == (SITE.pw_name, WEB.gr_name)


def test_a_changed_owner_is_saved_without_reading_twice(tmp_path: Path) -> None:
    media = site(tmp_path)
    first = save(media)
    given(media / "a" / "b" / "file", 0, 0, 0o600)

    second = save(media, first)

    assert second.new_packs == []
    target = loaded(tmp_path, second, inside=False)
    assert owned(Path(target.state["side"]))["a/b/file"] == (0, 0, "0o600")
    assert texts(Path(target.state["side"]))["a/b/file"] == b"1"


# The media folder itself


def test_a_media_folder_that_is_gone_comes_back_as_it_was(tmp_path: Path) -> None:
    media = site(tmp_path)
    saved, before = save(media), owned(tmp_path)
    media.rename(tmp_path / "gone")

    target = loaded(tmp_path, saved, inside=False)
    assert target.check(saved.facts) == []
    side = Path(target.state["side"])
    assert stat.S_IMODE(side.stat().st_mode) == 0o700  # until the swap nobody else may enter
    MediaTarget.from_state(target.state).swap()

    assert before["media"] == (SITE.pw_uid, WEB.gr_gid, "0o2750")
    assert {name: what for name, what in owned(tmp_path).items() if "gone" not in name} == before
    MediaTarget.from_state(target.state).undo()
    assert texts(media) == {}


def test_a_media_folder_that_is_there_keeps_what_it_has(tmp_path: Path) -> None:
    media = site(tmp_path)
    saved = save(media)
    given(media, 0, 0, 0o711)

    target = loaded(tmp_path, saved, inside=False)
    assert target.check(saved.facts) == []
    target.swap()

    assert owned(tmp_path)["media"] == (0, 0, "0o711")


@pytest.mark.parametrize(
    "fact",
    [None, "x", 5, {}, {"mode": "x"}, {"mode": -1}, {"mode": 0o700, "uid": "x", "gid": 0}, []],
    ids=repr,
)
def test_a_backup_that_does_not_say_how_its_folder_was_gets_one_for_all_to_read(
    tmp_path: Path, fact: Any
) -> None:
    saved = save(site(tmp_path / "old"))
    facts = {**saved.facts, "folder": fact}
    if fact is None:
        del facts["folder"]

    target = loaded(tmp_path, saved)
    assert target.check(facts) == []
    target.swap()

    assert owned(tmp_path)["media"] == (0, 0, "0o755")


def test_a_new_media_folder_gets_no_set_group_bit_without_its_group(workdir: Path) -> None:
    saved = save(site(workdir / "old"))
    workdir.chmod(0o777)

    def work() -> list[Any]:
        target = loaded(workdir, saved)
        differences = target.check(saved.facts)
        target.swap()
        mode = stat.S_IMODE((workdir / "media").stat().st_mode)
        return [len(differences), mode, [str(remark) for remark in target.remarks()]]

    differences, mode, remarks = as_user(work, uid=NOBODY, gid=NOBODY, groups=[])

    assert differences == 0
    assert mode == 0o750
    assert len(remarks) == 1
