"""Restoring media: beside the live folder, whole or not at all, whatever the archive holds."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import resource
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from mipyme_backup.errors import BackupError, DamagedError, PreflightError, RestoreError
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import View
from mipyme_backup.sources.media import MediaTarget, extract
from mipyme_backup.sources.media.index import FileRecord, read_records
from mipyme_backup.sources.media.kernel import clone
from tests.unit.sources.forks import NOBODY, in_child, killed_at_line
from tests.unit.sources.media_trees import (
    INDEX,
    LONG_AGO,
    Bytes,
    Saved,
    contents,
    media_source,
    opener,
    read_all,
    restored,
    save,
    texts,
    write,
)

PACK = "0" * 32


def line(path: str, content: bytes = b"content", **changes: Any) -> dict[str, Any]:
    fields = {
        "path": path,
        "size": len(content),
        "mtime_ns": LONG_AGO,
        "mode": 0o644,
        "sha256": hashlib.sha256(content).hexdigest(),
        "pack": PACK,
    }
    return {**fields, **changes}


def pack_of(*contents: bytes, names: dict[int, str] | None = None) -> bytes:
    """Return a pack; `names` gives single members another name than their hash."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number, content in enumerate(contents):
            name = (names or {}).get(number, hashlib.sha256(content).hexdigest())
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def made(*lines: dict[str, Any], pack: bytes | None = None) -> Saved:
    """Return a backup with this index, as its author wants it."""
    index = b"".join(json.dumps(fields).encode() + b"\n" for fields in lines)
    return Saved(index=index, packs={PACK: pack_of(b"content") if pack is None else pack})


def target_for(folder: Path, **options: Any) -> MediaTarget:
    return MediaTarget.prepare(location=folder / "media", restore_id="id", **options)


@pytest.fixture(params=[False, True], ids=["beside", "inside"])
def inside(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# The whole way


def test_restore_beside_then_swap_then_undo(tmp_path: Path, inside: bool) -> None:
    media = tmp_path / "media"
    write(media, "a/file", b"saved")
    write(media, "gone", b"saved")
    saved, before = save(media), contents(media)
    write(media, "a/file", b"newer than the backup")
    (media / "gone").unlink()
    newer = contents(media)

    target = target_for(tmp_path, inside=inside)
    target.plan()
    target.load(saved.artifacts())
    side = Path(target.state["side"])
    assert side.stat().st_mode & 0o777 == 0o700
    assert target.check(saved.facts) == []
    state = json.loads(json.dumps(target.state))
    MediaTarget.from_state(state).swap()

    assert contents_without_ours(media) == before
    MediaTarget.from_state(state).undo()
    assert contents_without_ours(media) == newer
    MediaTarget.from_state(state).swap()
    assert contents_without_ours(media) == before
    MediaTarget.from_state(state).remove_replaced()
    assert contents(media) == before
    assert os.listdir(tmp_path) == ["media"]


def contents_without_ours(folder: Path) -> dict[bytes, object]:
    found = contents(folder)
    return {name: what for name, what in found.items() if b".mipyme_backup_" not in name}


def test_a_location_that_is_a_link_is_swapped_where_it_leads(tmp_path: Path) -> None:
    write(tmp_path, "real/media/file", b"old")
    (tmp_path / "media").symlink_to("real/media")

    target = target_for(tmp_path)
    target.load(made(line("file")).artifacts())
    target.swap()

    assert (tmp_path / "media").is_symlink()
    assert (tmp_path / "media" / "file").read_bytes() == b"content"
    assert texts(tmp_path / "real" / ".mipyme_backup_before_id") == {"file": b"old"}


def test_a_media_folder_that_does_not_exist_is_made(tmp_path: Path) -> None:
    target = MediaTarget.prepare(location=tmp_path / "new" / "media", restore_id="id")
    assert not target.has_live()
    target.plan()
    target.load(made(line("file")).artifacts())
    target.swap()

    assert texts(tmp_path / "new" / "media") == {"file": b"content"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_files_belong_to_the_owner_of_the_live_folder(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir(mode=0o750)
    os.chown(media, NOBODY, NOBODY)

    target = target_for(tmp_path)
    target.load(made({"path": "a/", "mode": 0o700}, line("a/file")).artifacts())
    target.swap()

    for path in (media, media / "a", media / "a" / "file"):
        assert path.stat().st_uid == NOBODY
    assert media.stat().st_mode & 0o777 == 0o750


def test_one_content_at_several_paths_is_not_shared(tmp_path: Path) -> None:
    out = restored_at(tmp_path, made(line("a"), line("b/c"), line("d")))

    (out / "a").write_bytes(b"changed")
    assert (out / "b" / "c").read_bytes() == b"content"
    assert (out / "d").read_bytes() == b"content"
    assert (out / "b").stat().st_mode & 0o777 == 0o755


def restored_at(folder: Path, saved: Saved) -> Path:
    end(target_for(folder, to_directory=folder / "out"), saved)
    return folder / "out"


def test_folders_that_may_not_be_written_to_are_filled_first(workdir: Path) -> None:
    workdir.chmod(0o777)
    saved = made(
        {"path": "closed/", "mode": 0},
        {"path": "fixed/", "mode": 0o555},
        line("fixed/file"),
    )

    def restore() -> list[int]:
        target = target_for(workdir)
        target.load(saved.artifacts())
        target.swap()
        live = workdir / "media"
        return [(live / name).stat().st_mode & 0o777 for name in ("closed", "fixed", "fixed/file")]

    def remove() -> list[str]:
        target = target_for(workdir)
        target.undo()
        target.discard()
        return os.listdir(workdir)

    assert in_child(restore, nobody=True) == [0, 0o555, 0o644]
    assert in_child(remove, nobody=True) == ["media"]


def test_unchanged_live_files_are_cloned_where_the_file_system_can(tmp_path: Path) -> None:
    write(tmp_path, "one", b"1" * 4096)
    with (tmp_path / "one").open("rb") as one, (tmp_path / "two").open("wb") as two:
        if not clone(one.fileno(), two.fileno()):
            pytest.skip("the file system of the temporary folder shares no blocks")
    write(tmp_path, "media/file", b"content")

    target = target_for(tmp_path)
    target.load({INDEX: opener(made(line("file")).index)})  # no pack is at hand

    assert texts(Path(target.state["side"])) == {"file": b"content"}


def test_live_files_that_only_look_unchanged_are_not_taken(tmp_path: Path) -> None:
    write(tmp_path, "media/file", b"c0ntent")
    write(tmp_path, "elsewhere", b"content")
    (tmp_path / "media" / "link").symlink_to("../elsewhere")
    target = target_for(tmp_path)

    target.load(made(line("file"), line("link")).artifacts())
    target.swap()

    assert texts(tmp_path / "media") == {"file": b"content", "link": b"content"}
    assert not (tmp_path / "media" / "link").is_symlink()


def test_a_live_file_that_grows_while_it_is_cloned_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few file systems share blocks: a copy of the size stands in for the kernel's clone."""
    live = write(tmp_path, "media/file", b"content")
    read = 0

    def cloned(_source: int, target: int) -> bool:
        os.truncate(live, 1 << 30)
        os.truncate(target, 1 << 30)
        return True

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal read
        data = pread(descriptor, size, offset)
        read += len(data)
        return data

    pread = os.pread
    monkeypatch.setattr(extract, "clone", cloned)
    monkeypatch.setattr(os, "pread", counted)
    target = target_for(tmp_path)

    target.load(made(line("file")).artifacts())

    assert texts(Path(target.state["side"])) == {"file": b"content"}
    assert read < 1 << 20


# Kills


def test_load_killed_anywhere_starts_over(tmp_path: Path, inside: bool) -> None:
    saved = made(
        {"path": "empty/", "mode": 0o755},
        line("a"),
        line("b/c"),
        line("d", b"two"),
        pack=pack_of(b"content", b"two"),
    )
    files = {"a": b"content", "b/c": b"content", "d": b"two"}
    code = ("media/target.py", "media/extract.py", "media/wanted.py")
    for number in range(1, 100_000, 7):
        folder = tmp_path / str(number)
        write(folder, "media/live", b"old")
        target = target_for(folder, inside=inside)
        again = target_for(folder, inside=inside)
        work = load_of(target, saved)
        if not killed_at_line(number, work, code):
            assert number > 100
            return
        assert texts(folder / "media") == {"live": b"old"}

        again.load(saved.artifacts())

        assert again.check({"files": 3, "bytes": 17}) == []
        again.swap()
        assert texts(folder / "media") == files


def load_of(target: MediaTarget, saved: Saved) -> Callable[[], None]:
    return lambda: target.load(saved.artifacts())


def test_discard_after_a_killed_load_leaves_nothing(tmp_path: Path, inside: bool) -> None:
    saved = made(line("a"), line("b/c"))
    for number in (5, 50, 100, 150):
        folder = tmp_path / str(number)
        write(folder, "media/live", b"old")
        target = target_for(folder, inside=inside)
        assert killed_at_line(
            number, load_of(target, saved), ("media/target.py", "extract.py", "wanted.py")
        )

        target_for(folder, inside=inside).discard()

        assert os.listdir(folder) == ["media"]
        assert os.listdir(folder / "media") == ["live"]


def test_load_into_a_folder_can_be_repeated_after_a_kill(tmp_path: Path) -> None:
    saved = made(line("a"), line("b/c"))
    target = target_for(tmp_path, to_directory=tmp_path / "out")
    assert killed_at_line(
        100, load_of(target, saved), ("media/target.py", "extract.py", "wanted.py")
    )

    end(target_for(tmp_path, to_directory=tmp_path / "out"), saved)

    assert os.listdir(tmp_path / "out") in (["a", "b"], ["b", "a"])


def end(target: MediaTarget, saved: Saved) -> None:
    """Restore into a folder of its own, to the end."""
    target.load(saved.artifacts())
    target.swap()
    target.remove_replaced()


def killed_moves(folder: Path, saved: Saved) -> Iterator[Path]:
    """Yield a new folder as a kill before each line of the move into it leaves it."""
    for number in itertools.count(1):
        out = folder / str(number)
        target = target_for(folder, to_directory=out)
        work = lambda target=target: end(target, saved)  # noqa: E731
        if not killed_at_line(number, work, ("media/elsewhere.py", "mipyme_backup/removal.py")):
            assert number > 20
            return
        yield out


def test_load_into_a_folder_killed_before_any_line_of_the_move_is_finished(tmp_path: Path) -> None:
    saved = made(line("a"), line("b/c"), line("d"))
    for out in killed_moves(tmp_path, saved):
        if not out.exists() or sorted(os.listdir(out)) != ["a", "b", "d"]:
            again = target_for(tmp_path, to_directory=out)
            again.plan()
            end(again, saved)

        assert texts(out) == {"a": b"content", "b/c": b"content", "d": b"content"}
        assert sorted(os.listdir(out)) == ["a", "b", "d"]


def test_load_into_a_folder_killed_before_any_line_of_the_move_is_discarded(tmp_path: Path) -> None:
    saved = made(line("a"), line("b/c"), line("d"))
    for out in killed_moves(tmp_path, saved):
        write(out, "theirs", b"precious")
        if sorted(os.listdir(out)) == ["a", "b", "d", "theirs"]:
            continue  # it came to its end

        target_for(tmp_path, to_directory=out).discard()

        assert os.listdir(out) == ["theirs"]


@pytest.mark.parametrize("steps", [["discard"], ["undo", "discard"], ["undo", "undo", "discard"]])
def test_what_was_moved_into_a_folder_is_taken_back_until_the_restore_ends(
    tmp_path: Path, steps: list[str]
) -> None:
    saved, out = made(line("a"), line("b/c")), tmp_path / "out"
    target = target_for(tmp_path, to_directory=out)
    target.load(saved.artifacts())
    assert target.check({"files": 2, "bytes": 14}) == []
    assert target.swap() == 0.0
    write(out, "theirs", b"precious")

    for step in steps:
        getattr(target_for(tmp_path, to_directory=out), step)()

    assert os.listdir(out) == ["theirs"]
    (out / "theirs").unlink()
    end(target_for(tmp_path, to_directory=out), saved)
    assert texts(out) == {"a": b"content", "b/c": b"content"}
    target.discard()
    assert sorted(os.listdir(out)) == ["a", "b"]


# Refusals


def test_a_target_that_exists_is_refused(tmp_path: Path) -> None:
    mine = write(tmp_path, "out/mine", b"precious")
    target = target_for(tmp_path, to_directory=tmp_path / "out")

    for step in (target.plan, lambda: target.load(made(line("file")).artifacts())):
        with pytest.raises(RestoreError, match="exists"):
            step()
    target.discard()

    assert mine.read_bytes() == b"precious"


def test_what_was_restored_elsewhere_is_neither_swapped_nor_undone(tmp_path: Path) -> None:
    write(tmp_path, "media/live", b"old")
    target = target_for(tmp_path, to_directory=tmp_path / "out")
    target.load(made(line("file")).artifacts())

    assert target.swap() == 0.0
    target.remove_replaced()
    with pytest.raises(RestoreError, match="nothing is swapped"):
        target.undo()

    assert texts(tmp_path / "media") == {"live": b"old"}
    assert texts(tmp_path / "out") == {"file": b"content"}


def test_discard_deletes_nothing_that_others_put_into_the_new_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    saved = made(line("file"), pack=pack_of(b"c0ntent"))
    target = target_for(tmp_path, to_directory=out)
    artifacts = saved.artifacts()

    def open_after_another_user_wrote() -> Reader:
        write(out, "theirs/file", b"precious")
        return Bytes(saved.packs[PACK])

    artifacts[f"pool/{PACK}"] = open_after_another_user_wrote
    with pytest.raises(BackupError):
        target.load(artifacts)
    target.discard()

    assert texts(tmp_path) == {"out/theirs/file": b"precious"}
    assert os.listdir(out) == ["theirs"]


def test_a_file_of_others_is_not_replaced_in_the_new_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    saved = made(line("a"), line("file"))
    target = target_for(tmp_path, to_directory=out)
    artifacts = saved.artifacts()

    def open_after_another_user_wrote() -> Reader:
        write(out, "file", b"precious")
        return Bytes(saved.packs[PACK])

    artifacts[f"pool/{PACK}"] = open_after_another_user_wrote
    with pytest.raises(RestoreError, match=r"out/file is there already"):
        target.load(artifacts)

    assert (out / "file").read_bytes() == b"precious"


def test_what_cannot_be_a_new_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "file")

    with pytest.raises(RestoreError, match="exists"):
        target_for(tmp_path, to_directory=tmp_path / "file").plan()
    with pytest.raises(RestoreError, match="exists"):
        target_for(tmp_path, to_directory=tmp_path / "file" / "below").plan()


def test_an_empty_target_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    assert texts(restored_at(tmp_path, made(line("file")))) == {"file": b"content"}


def test_a_live_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "media", b"a file")

    with pytest.raises(PreflightError):
        target_for(tmp_path).plan()


@pytest.mark.parametrize("restore_id", ["", "../up", "a/b", "a\0", "x" * 65])
def test_ids_that_are_no_names_are_refused(tmp_path: Path, restore_id: str) -> None:
    with pytest.raises(RestoreError):
        MediaTarget.prepare(location=tmp_path, restore_id=restore_id)


HOSTILE_PATHS = [
    "../up",
    "a/../../up",
    "/etc/up",
    "a//b",
    "./a",
    "a/.",
    "",
    ".",
    "..",
    "nul\0byte",
    "a/" * 300 + "b",
    ".mipyme_backup_loaded_id",
    "\ud800",
    "..//",
    "../",
    "/",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    write(tmp_path, "media/live", b"old")
    fields = {"path": path, "mode": 0o755} if path.endswith("/") else line(path)

    with pytest.raises(DamagedError):
        target_for(tmp_path).load(made(line("ok"), fields).artifacts())

    assert not (tmp_path / "up").exists()
    assert texts(tmp_path / "media") == {"live": b"old"}
    target_for(tmp_path).discard()
    assert os.listdir(tmp_path) == ["media"]


@pytest.mark.parametrize(
    "lines",
    [
        [line("a"), line("a")],
        [line("a"), line("a/b")],
        [line("a/b"), line("a")],
        [{"path": "a/", "mode": 0o755}, line("a")],
    ],
)
def test_a_name_that_is_two_things_is_refused(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    with pytest.raises(DamagedError, match="contradicts itself at a"):
        target_for(tmp_path).load(made(*lines).artifacts())


@pytest.mark.parametrize(
    "changes",
    [
        {"size": -1},
        {"size": 2**63},
        {"size": "7"},
        {"size": 7.0},
        {"size": True},
        {"mtime_ns": 2**70},
        {"mode": -1},
        {"sha256": "00"},
        {"sha256": "zz" * 32},
        {"sha256": None},
        {"pack": None},
        {"path": None},
    ],
)
def test_lines_that_are_no_records_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    fields = {**line("file"), **changes}

    with pytest.raises(DamagedError):
        target_for(tmp_path).load(made(fields).artifacts())


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"L", b"x", b"S"]
)
def test_members_that_are_no_plain_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo(hashlib.sha256(b"content").hexdigest())
    member.type, member.linkname = kind, "/etc/passwd"
    header = member.tobuf(tarfile.GNU_FORMAT)

    with pytest.raises(DamagedError):
        target_for(tmp_path).load(made(line("file"), pack=header + bytes(1024)).artifacts())


@pytest.mark.parametrize("name", ["../../up", "/up", "plain", "A" * 64])
def test_members_not_named_by_a_hash_are_refused(tmp_path: Path, name: str) -> None:
    saved = made(line("file"), pack=pack_of(b"content", names={0: name}))

    with pytest.raises(DamagedError):
        target_for(tmp_path).load(saved.artifacts())


def test_content_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "media/live", b"old")
    sha256 = hashlib.sha256(b"content").hexdigest()
    saved = made(line("file"), pack=pack_of(b"c0ntent", names={0: sha256}))
    target = target_for(tmp_path)

    with pytest.raises(DamagedError, match="1 lack: file"):
        target.load(saved.artifacts())

    with pytest.raises(RestoreError):
        target.swap()
    assert texts(tmp_path / "media") == {"live": b"old"}


def test_a_void_member_before_a_good_one_does_no_harm(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"content").hexdigest()
    saved = made(line("a"), line("b"), pack=pack_of(b"c0ntent", b"content", names={0: sha256}))

    assert texts(restored_at(tmp_path, saved)) == {"a": b"content", "b": b"content"}


def test_a_member_larger_than_the_index_says_is_refused_before_it_is_written(
    tmp_path: Path,
) -> None:
    sha256 = hashlib.sha256(b"content").hexdigest()
    bomb = pack_of(b"\0" * 5_000_000, names={0: sha256})

    with pytest.raises(DamagedError, match="size"):
        target_for(tmp_path).load(made(line("file"), pack=bomb).artifacts())


@pytest.mark.parametrize("length", [0, 100, 512, 515, 1024, 1536])
def test_a_pack_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    whole = pack_of(b"content" * 100)[: 512 + 1024 + 1024]
    saved = made(line("file", b"content" * 100), pack=whole[:length])

    with pytest.raises(DamagedError):
        target_for(tmp_path).load(saved.artifacts())


def test_missing_files_are_named_and_counted(tmp_path: Path) -> None:
    lines = [line(f"file{number:02d}", b"%d" % number) for number in range(12)]
    target = target_for(tmp_path)

    with pytest.raises(RestoreError, match=r"12 media files .*file00, .*file09, …"):
        target.load(made(*lines).artifacts())
    with pytest.raises(RestoreError, match="12 media files"):
        target.load({INDEX: opener(made(*lines).index)})
    with pytest.raises(RestoreError, match="no index of the files"):
        target.load({})


def test_an_error_at_the_very_end_of_a_pack_is_not_missed(tmp_path: Path) -> None:
    class Doubtful(Bytes):
        def read(self, size: int, /) -> bytes:
            if data := super().read(size):
                return data
            raise DamagedError("the sum at the end is wrong")

    saved = made(line("file"))
    artifacts = saved.artifacts()
    artifacts[f"pool/{PACK}"] = lambda: Doubtful(saved.packs[PACK])

    with pytest.raises(DamagedError, match="sum at the end"):
        target_for(tmp_path).load(artifacts)


def test_a_link_put_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """An attacker who may write to the side while it is loaded gains nothing by it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    saved = made(line("a"), line("b/c", b"two"), pack=pack_of(b"content", b"two"))
    target = target_for(tmp_path)
    artifacts = saved.artifacts()

    def open_after_meddling() -> Reader:
        folder = Path(target.state["side"]) / "b"
        folder.rmdir()
        folder.symlink_to(outside)
        return Bytes(saved.packs[PACK])

    artifacts[f"pool/{PACK}"] = open_after_meddling
    with pytest.raises(DamagedError):
        target.load(artifacts)

    assert os.listdir(outside) == []


def test_check_names_each_difference(tmp_path: Path) -> None:
    target = target_for(tmp_path)
    target.load(made(line("a"), line("b")).artifacts())
    Path(target.state["side"], "a").unlink()

    differences = [str(message) for message in target.check({"files": 2, "bytes": 14})]

    assert differences == [
        "1 media files were restored, the backup has 2",
        "7 bytes of media were restored, the backup has 14",
    ]


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    write(tmp_path, "media/live", b"old")
    saved = made(line("big", b"x" * 100_000), pack=pack_of(b"x" * 100_000))

    def load_under_limit() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            target_for(tmp_path).load(saved.artifacts())
        except BackupError as error:
            return str(error)
        return ""

    assert "Media cannot be written to" in in_child(load_under_limit)
    assert texts(tmp_path / "media") == {"live": b"old"}


# Any name, and many


@given(
    st.binary(min_size=1, max_size=80).filter(lambda name: b"/" not in name and b"\0" not in name)
)
def test_any_name_survives_the_index(name: bytes) -> None:
    record = FileRecord(name, 1, 2, 0o600, "ab" * 32, PACK)

    assert list(read_records(Bytes(record.line()))) == [record]


@pytest.mark.parametrize(
    ("count", "megabytes"),
    [(50_000, 16), pytest.param(200_000, 40, marks=pytest.mark.torture)],
)
def test_many_files_take_little_memory(tmp_path: Path, count: int, megabytes: int) -> None:
    """The last index is merged, its files are taken over, and the new one is restored from."""
    (tmp_path / "media").mkdir()
    names = [f"{number // 1000:03d}/{number:08d}-picture.jpeg" for number in range(count)]
    index = tmp_path / "index"
    randomness = random.Random(1)
    with index.open("wb") as stream:
        for name in names:
            sha256 = randomness.randbytes(32).hex()
            time = LONG_AGO + randomness.getrandbits(40)
            stream.write(FileRecord(name.encode(), 50_000, time, 0o644, sha256, PACK).line())
    expected = "\n".join(names)
    del names

    def run_and_measure() -> list[int]:
        write(tmp_path, "media/new", b"so that known contents are asked for")
        before = peak_memory()
        view = View(
            previous=lambda _name: index.open("rb", buffering=0),
            known_packs=frozenset([PACK]),
            expected_files=lines_of(expected),
        )
        with override_settings(MEDIA_ROOT=str(tmp_path / "media")):
            for artifact in media_source().artifacts(view):
                reader = artifact.open()
                while reader.read(1 << 20):
                    pass
                files = artifact.facts().get("files")
        saving = peak_memory() - before
        with pytest.raises(RestoreError, match=f"{count} media files"):
            target_for(tmp_path).load({INDEX: lambda: index.open("rb", buffering=0)})
        return [files or 0, saving, peak_memory() - before]

    files, saving, both = in_child(run_and_measure)

    assert files == count + 1
    assert saving < megabytes << 20
    assert both < megabytes * 3 // 2 << 20


def lines_of(text: str) -> Iterator[str]:
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def peak_memory() -> int:
    """Return the most memory, in bytes, that this process has held so far."""
    for field in Path("/proc/self/status").read_text().splitlines():
        if field.startswith("VmHWM:"):
            return int(field.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_round_trip_through_swap_of_a_random_tree(tmp_path: Path) -> None:
    randomness = random.Random(7)
    for number in range(300):
        depth = randomness.randrange(4)
        folder = "/".join(str(randomness.randrange(5)) for _ in range(depth))
        write(tmp_path / "media", f"{folder}/f{number}".lstrip("/"), randomness.randbytes(number))
    saved = save(tmp_path / "media", pack_size=5000)

    assert contents(restored(saved, tmp_path / "out")) == contents(tmp_path / "media")
    assert all(read_all(Bytes(pack)) for pack in saved.packs.values())


def test_a_side_that_becomes_a_link_while_it_is_loaded_leads_nowhere(
    tmp_path: Path, inside: bool
) -> None:
    (tmp_path / "media").mkdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    victim.chmod(0o711)  # whatever the umask
    target = target_for(tmp_path, inside=inside)
    openers = made(line("a")).artifacts()
    side = Path(target.state["side"])

    def swapped(opener: Callable[[], Reader]) -> Callable[[], Reader]:
        def opened() -> Reader:
            if not side.is_symlink():
                side.rename(tmp_path / "away")
                side.symlink_to(victim)
            return opener()

        return opened

    with pytest.raises(RestoreError, match="replaced"):
        target.load({name: swapped(opener) for name, opener in openers.items()})

    assert os.listdir(victim) == []
    assert victim.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("name", ["../outside", "..", "", "below/x", ".mipyme_backup_restoring_id"])
def test_a_list_of_entries_with_other_than_plain_names_is_refused(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "outside").write_bytes(b"outside")
    target = target_for(tmp_path, inside=True)
    target.load(made(line("a")).artifacts())
    journal = tmp_path / "media" / ".mipyme_backup_swap_leaving_id"
    journal.write_bytes(name.encode() + b"\0")

    with pytest.raises(RestoreError, match="not a list"):
        target.swap()

    assert (tmp_path / "outside").read_bytes() == b"outside"


def test_entries_are_not_moved_into_a_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "old").write_bytes(b"old")
    (tmp_path / "victim").mkdir()
    target = target_for(tmp_path, inside=True)
    target.load(made(line("a")).artifacts())
    (tmp_path / "media" / ".mipyme_backup_swap_leaving_id").write_bytes(b"old\0")
    Path(target.state["replaced"]).symlink_to(tmp_path / "victim")

    with pytest.raises(RestoreError):
        target.swap()

    assert os.listdir(tmp_path / "victim") == []
