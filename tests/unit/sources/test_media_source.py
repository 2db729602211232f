"""Saving media: every name and every kind of file, changes between and during runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
from pathlib import Path

import pytest
from django.test import override_settings

from mipyme_backup.errors import ConfigurationError, DamagedError, PreflightError, SourceError
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import View
from mipyme_backup.sources.media import MediaTarget
from tests.unit.sources.forks import in_child
from tests.unit.sources.media_trees import (
    Bytes,
    Saved,
    contents,
    media_source,
    read_all,
    restored,
    save,
    view_after,
    write,
)

LARGE = 9 * 1024 * 1024


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


def paths(saved: Saved) -> list[str]:
    return [json.loads(line)["path"] for line in saved.index.splitlines()]


def hashes(saved: Saved) -> list[str]:
    return [json.loads(line).get("sha256") for line in saved.index.splitlines()]


def test_odd_names_come_back_byte_for_byte(media: Path, tmp_path: Path) -> None:
    names = [
        b"new\nline",
        b"\xff\xfe raw",
        b"x" * 255,
        "é-composed".encode(),
        "e\u0301-decomposed".encode(),
        b"-o",
        b"$(id);'\"\\",
        b"a/b",
        b"a-b",
        b"a.b",
        b" ",
        "日本/語".encode(),
        b"\x01\x7f",
    ]
    for name in names:
        write(media, name, b"content of " + name)

    saved = save(media)

    assert contents(restored(saved, tmp_path / "out")) == contents(media)
    assert saved.index.isascii()


def test_empty_files_empty_folders_modes_and_times_come_back(media: Path, tmp_path: Path) -> None:
    write(media, "empty")
    write(media, "script", b"#!").chmod(0o750)
    (media / "hollow" / "below").mkdir(parents=True)
    (media / "hollow").chmod(0o711)
    write(media, "old", b"1", mtime_ns=-1_000_000_001)

    saved = save(media)

    assert contents(restored(saved, tmp_path / "out")) == contents(media)
    assert saved.facts["files"] == 3
    assert saved.facts["directories"] == 2


def test_setuid_bit_is_not_brought_back(media: Path, tmp_path: Path) -> None:
    write(media, "tool", b"x").chmod(0o4755)

    out = restored(save(media), tmp_path / "out")

    assert (out / "tool").stat().st_mode & 0o7777 == 0o755


def test_packs_open_with_plain_tar_and_members_are_named_by_hash(media: Path) -> None:
    write(media, "a", b"one")
    write(media, "b", b"two" * 1000)

    saved = save(media)

    (pack,) = saved.packs.values()
    with tarfile.open(fileobj=io.BytesIO(pack)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            assert hashlib.sha256(content.read()).hexdigest() == member.name
    assert len(saved.members()) == 2


def test_links_inside_are_saved_as_what_they_lead_to(media: Path, tmp_path: Path) -> None:
    write(media, "real/file", b"content")
    (media / "file_link").symlink_to("real/file")
    (media / "folder_link").symlink_to(media / "real")

    saved = save(media)

    out = restored(saved, tmp_path / "out")
    assert (out / "file_link").read_bytes() == b"content"
    assert not (out / "file_link").is_symlink()
    assert (out / "folder_link" / "file").read_bytes() == b"content"
    assert saved.warnings == []
    assert len(saved.members()) == 1


def test_links_elsewhere_and_in_circles_are_left_out_and_named(media: Path, tmp_path: Path) -> None:
    write(tmp_path, "secret", b"not media")
    write(media, "kept", b"1")
    (media / "outside").symlink_to(tmp_path / "secret")
    (media / "dangling").symlink_to("nowhere")
    (media / "self").symlink_to("self")
    (media / "up").symlink_to(".")
    (media / "one").mkdir()
    (media / "two").mkdir()
    (media / "one" / "to_two").symlink_to("../two")
    (media / "two" / "to_one").symlink_to("../one")

    saved = save(media)

    assert b"not media" not in b"".join(saved.packs.values())
    text = "\n".join(saved.warnings)
    for name in ("outside", "dangling", "self", "up", "one/to_two/to_one", "two/to_one/to_two"):
        assert name in text
        assert name not in paths(saved)
    assert saved.facts["left_out"] == 2  # no text of a link says where the two circles would be
    assert saved.facts["links"] == 4
    assert saved.facts["files"] == 1


def test_links_that_multiply_come_to_an_end(media: Path) -> None:
    for number in range(40):
        folder = media / f"d{number}"
        folder.mkdir()
        (folder / "x").symlink_to(f"../d{number + 1}")
        (folder / "y").symlink_to(f"../d{number + 1}")
    (media / "d40").mkdir()

    saved = save(media)

    assert saved.facts["directories"] < 41 * 64


def test_pipes_sockets_and_devices_are_never_opened(media: Path) -> None:
    os.mkfifo(media / "pipe")
    write(media, "file", b"1")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(media / "socket"))
        saved = save(media)

    assert paths(saved) == ["file"]
    assert "pipe, socket" in saved.warnings[0]


def test_our_own_side_folders_are_left_out_in_silence(media: Path) -> None:
    write(media, ".mipyme_backup_before_x/old", b"1")
    write(media, ".mipyme_backup", b"mine")

    saved = save(media)

    assert paths(saved) == [".mipyme_backup"]
    assert saved.warnings == []


def test_absent_unset_and_linked_media_folders(media: Path, tmp_path: Path) -> None:
    write(media, "file", b"1")
    (tmp_path / "link").symlink_to(media)

    assert save(tmp_path / "absent").facts["files"] == 0
    assert paths(save(tmp_path / "link")) == ["file"]
    with override_settings(MEDIA_ROOT=""):
        assert media_source().location is None
        (artifact,) = media_source().artifacts(View())
        assert read_all(artifact.open()) == b""


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "file", b"1")

    with override_settings(MEDIA_ROOT=str(file)):
        with pytest.raises(PreflightError):
            list(media_source().preflight())
        with pytest.raises(SourceError):
            list(media_source().artifacts(View()))


def test_storages_that_are_unknown_or_cannot_be_made_are_refused() -> None:
    broken = {"BACKEND": "tests.absent.Storage"}
    with override_settings(STORAGES={"broken": broken}):
        with pytest.raises(ConfigurationError, match="broken") as refusal:
            list(media_source(storage="broken").preflight())
        assert "mipyme_backup[s3]" in str(refusal.value.hint)
        with pytest.raises(ConfigurationError, match="absent"):
            list(media_source(storage="absent").preflight())


def test_names_in_warnings_stay_on_one_line_and_are_few(media: Path) -> None:
    for number in range(25):
        os.symlink("nowhere", os.fsencode(media) + b"/bad\n\xff\x1b%d" % number)

    (warning,) = save(media).warnings

    assert warning.startswith("25 links")
    assert warning.isprintable()
    assert warning.count("bad\\n\\xff\\x1b") == 10


# One run after the other


def test_second_run_reads_no_file(media: Path) -> None:
    files = [write(media, f"{number}/file", b"before") for number in range(20)]
    first = save(media)
    for file in files:
        write(media, file.relative_to(media).as_posix(), b"behind")  # same size, same time

    second = save(media, first, ignore_ctime=True)

    assert second.new_packs == []
    assert hashes(second) == hashes(first)
    assert second.facts["new_files"] == 0


def test_changed_files_alone_are_stored_anew(media: Path, tmp_path: Path) -> None:
    write(media, "same", b"1")
    write(media, "longer", b"2")
    write(media, "newer", b"3")
    first = save(media)
    write(media, "longer", b"22")
    write(media, "newer", b"4", mtime_ns=1_600_000_000_000_000_000)

    second = save(media, first)

    assert second.facts["new_files"] == 2
    assert contents(restored(second, tmp_path / "out")) == contents(media)


def test_moved_and_copied_files_are_not_stored_twice(media: Path, tmp_path: Path) -> None:
    write(media, "z/original", b"content")
    first = save(media)
    (media / "a").mkdir()
    (media / "z" / "original").rename(media / "a" / "moved")
    write(media, "b", b"content")
    write(media, "c", b"fresh")
    write(media, "d", b"fresh")

    second = save(media, first)

    assert second.facts["new_files"] == 1
    assert contents(restored(second, tmp_path / "out")) == contents(media)


def test_a_file_is_read_again_when_its_time_may_hide_a_change(media: Path, tmp_path: Path) -> None:
    file = media / "file"
    file.write_bytes(b"before")
    moment = file.stat().st_mtime_ns
    first = save(media)
    write(media, "file", b"behind", mtime_ns=moment)

    second = save(media, first)

    assert (restored(second, tmp_path / "out") / "file").read_bytes() == b"behind"


def test_files_of_a_pack_that_is_no_longer_good_are_stored_anew(media: Path) -> None:
    write(media, "file", b"1")
    first = save(media)
    first.packs.clear()

    second = save(media, first)

    assert second.facts["new_files"] == 1


@pytest.mark.parametrize("index", [b"not json\n", b'{"path": 1, "mode": 2}\n', b'{"path"'])
def test_an_unreadable_last_index_costs_time_and_nothing_else(
    media: Path, tmp_path: Path, index: bytes
) -> None:
    write(media, "file", b"1")
    first = save(media)
    first.index = index

    second = save(media, first)

    assert contents(restored(second, tmp_path / "out")) == contents(media)
    assert "last media index could not be read" in second.warnings[0]


def test_packs_are_cut_at_their_size_and_a_larger_file_is_its_own(
    media: Path, tmp_path: Path
) -> None:
    for number in range(10):
        write(media, f"small{number}", b"%d" % number * 10_000)
    write(media, "huge", b"h" * 200_000)

    saved = save(media, pack_size=50_000)

    sizes = sorted(len(pack) for pack in saved.packs.values())
    assert sizes[-1] > 200_000
    assert len(sizes) >= 3
    assert all(size < 60_000 for size in sizes[:-1])
    assert contents(restored(saved, tmp_path / "out")) == contents(media)
    assert saved.facts["packs"] == sorted(saved.packs)


def test_the_next_artifact_is_refused_while_a_pack_is_half_read(media: Path) -> None:
    write(media, "file", b"1" * 1000)
    with override_settings(MEDIA_ROOT=str(media)):
        artifacts = media_source().artifacts(View())
        next(artifacts).open().read(10)

        with pytest.raises(RuntimeError):
            next(artifacts)


# Files that rows of the database name


def test_a_named_file_that_is_gone_comes_from_the_pool(media: Path, tmp_path: Path) -> None:
    for name in ("a/first", "b/second", "c", "d"):
        write(media, name, name.encode())
    first = save(media)
    (media / "b" / "second").unlink()
    (media / "b").rmdir()
    (media / "d").unlink()
    (media / "a" / "first").unlink()

    second = save(media, first, expected=["b/second", "c", "d"])

    out = restored(second, tmp_path / "out")
    assert (out / "b" / "second").read_bytes() == b"b/second"
    assert (out / "d").read_bytes() == b"d"
    assert not (out / "a" / "first").exists()
    (warning,) = second.warnings
    assert warning.startswith("2 media files that the database names are missing")
    assert warning.endswith("b/second, d")
    assert second.facts["gone"] == 2
    third = save(media, second, expected=["b/second", "c", "d"])
    assert third.facts["files"] == 3
    assert third.index == second.index


def test_a_named_file_that_was_never_there_is_a_warning(media: Path) -> None:
    write(media, "there", b"1")
    names = ["there", *(f"lost/{number}" for number in range(12)), "lost/0", "../up", "", "."]

    saved = save(media, expected=iter(names))

    (warning,) = saved.warnings
    assert warning.startswith("13 media files that the database names")
    assert "lost/0, lost/1, " in warning
    assert saved.facts["missing"] == 13


def test_a_named_file_does_not_come_back_below_a_file(media: Path, tmp_path: Path) -> None:
    write(media, "a/b", b"1")
    first = save(media)
    (media / "a" / "b").unlink()
    (media / "a").rmdir()
    write(media, "a", b"now a file")

    second = save(media, first, expected=["a/b"])

    assert contents(restored(second, tmp_path / "out")) == contents(media)
    assert "a/b" in second.warnings[0]


def test_a_named_file_whose_pack_is_gone_is_a_warning(media: Path) -> None:
    write(media, "file", b"1")
    first = save(media)
    first.packs.clear()
    (media / "file").unlink()

    second = save(media, first, expected=["file"])

    assert "file" in second.warnings[0]
    assert second.facts["files"] == 0


# While others write


def test_a_large_file_that_changes_between_two_reads_is_read_again(
    media: Path, tmp_path: Path
) -> None:
    file = write(media, "large", os.urandom(LARGE))

    def change_then_read(reader: Reader) -> bytes:
        write(media, "large", os.urandom(LARGE))
        return read_all(reader)

    saved = save(media, read=change_then_read)

    assert len(saved.members()) == 2
    assert (restored(saved, tmp_path / "out") / "large").read_bytes() == file.read_bytes()


def test_a_large_file_cut_short_between_two_reads_is_read_again(
    media: Path, tmp_path: Path
) -> None:
    write(media, "large", os.urandom(LARGE))

    def cut_then_read(reader: Reader) -> bytes:
        os.truncate(media / "large", LARGE - 12_345)
        return read_all(reader)

    saved = save(media, read=cut_then_read)

    out = restored(saved, tmp_path / "out")
    assert (out / "large").read_bytes() == (media / "large").read_bytes()


def change_all_the_while(file: Path, reader: Reader) -> bytes:
    """Read a pack, changing the end of `file` before each step."""
    parts: list[bytes] = []
    while True:
        with file.open("r+b") as stream:
            stream.seek(-8, os.SEEK_END)
            stream.write(os.urandom(8))
        data = reader.read(1_000_000)
        if not data:
            return b"".join(parts)
        parts.append(data)


def test_a_large_file_that_never_stands_still_is_left_out_with_a_warning(
    media: Path, tmp_path: Path
) -> None:
    file = write(media, "large", os.urandom(LARGE))
    write(media, "other", b"1")

    saved = save(media, read=lambda reader: change_all_the_while(file, reader))

    assert paths(saved) == ["other"]
    assert "large" in saved.warnings[0]
    assert (restored(saved, tmp_path / "out") / "other").read_bytes() == b"1"


def test_a_large_file_that_never_stands_still_comes_from_the_pool(
    media: Path, tmp_path: Path
) -> None:
    old = os.urandom(LARGE)
    file = write(media, "large", old)
    first = save(media)
    write(media, "large", os.urandom(LARGE + 1))

    second = save(media, first, read=lambda reader: change_all_the_while(file, reader))

    assert (restored(second, tmp_path / "out") / "large").read_bytes() == old
    assert "large" in second.warnings[0]


def test_a_large_file_that_grows_is_saved_as_it_was(media: Path, tmp_path: Path) -> None:
    old = os.urandom(LARGE)
    file = write(media, "log", old)

    def append_then_read(reader: Reader) -> bytes:
        with file.open("ab") as stream:
            stream.write(b"more")
        return read_all(reader)

    saved = save(media, read=append_then_read)

    assert (restored(saved, tmp_path / "out") / "log").read_bytes() == old
    assert saved.warnings == []


def test_files_that_vanish_or_turn_into_links_during_the_walk(media: Path, tmp_path: Path) -> None:
    write(tmp_path, "secret", b"not media")
    for name in ("a", "gone", "link", "pipe"):
        write(media, name, name.encode())

    def meddle_then_read(reader: Reader) -> bytes:
        (media / "gone").unlink()
        (media / "link").unlink()
        (media / "link").symlink_to(tmp_path / "secret")
        (media / "pipe").unlink()
        os.mkfifo(media / "pipe")
        return read_all(reader)

    saved = save(media, read=meddle_then_read)

    assert paths(saved) == ["a", "link/"]
    assert len(saved.warnings) == 4
    assert b"not media" not in b"".join(saved.packs.values())
    assert (saved.facts["left_out"], saved.facts["links"]) == (2, 1)


def test_a_known_file_that_vanishes_during_the_walk_comes_from_the_pool(
    media: Path, tmp_path: Path
) -> None:
    write(media, "gone", b"still known")
    first = save(media)
    write(media, "a", b"new")

    def unlink_then_read(reader: Reader) -> bytes:
        (media / "gone").unlink()
        return read_all(reader)

    second = save(media, first, read=unlink_then_read)

    assert (restored(second, tmp_path / "out") / "gone").read_bytes() == b"still known"


def test_what_may_not_be_read_is_warned_about_and_taken_from_the_pool(workdir: Path) -> None:
    media = workdir / "media"
    write(media, "closed/known", b"known")
    write(media, "open", b"1")
    write(media, "forbidden", b"2")
    first = save(media)
    write(media, "forbidden", b"22").chmod(0)
    write(media, "unknown", b"3").chmod(0)
    (media / "closed").chmod(0)
    workdir.chmod(0o755)

    def save_again() -> list[object]:
        saved = save(media, first)
        return [paths(saved), saved.warnings, saved.facts["left_out"]]

    found, warnings, left_out = in_child(save_again, nobody=True)
    (media / "closed").chmod(0o700)

    assert found == ["closed/", "closed/known", "forbidden", "open"]
    assert warnings == [
        "1 media folders could not be read: closed",
        "2 media files could not be read: forbidden, unknown",
    ]
    assert left_out == 2


@pytest.mark.rare
def test_a_sparse_file_of_a_gigabyte_takes_seconds_and_stays_sparse(
    media: Path, tmp_path: Path
) -> None:
    with (media / "sparse").open("wb") as stream:
        stream.seek(500_000_001)
        stream.write(b"island")
        stream.truncate(1 << 30)

    packs: dict[str, list[tuple[bytes, int]]] = {}

    def read_thriftily(reader: Reader) -> bytes:
        """Keep runs of equal chunks once: a gigabyte of zeros does not fit into a test."""
        runs = packs.setdefault("sparse", [])
        while data := reader.read(1 << 20):
            if runs and runs[-1][0] == data:
                runs[-1] = (data, runs[-1][1] + 1)
            else:
                runs.append((data, 1))
        return b""

    saved = save(media, read=read_thriftily)
    (pack,) = saved.packs
    artifacts = saved.artifacts()
    artifacts[f"pool/{pack}"] = lambda: Runs(packs["sparse"])
    out = tmp_path / "out"
    MediaTarget.prepare(location=media, restore_id="r", to_directory=out).load(artifacts)

    status = (out / "sparse").stat()
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 < 1 << 20
    with (out / "sparse").open("rb") as copy:
        copy.seek(500_000_000)
        assert copy.read(8) == b"\0island\0"


class Runs:
    """A reader of chunks with how often each is repeated."""

    def __init__(self, runs: list[tuple[bytes, int]]) -> None:
        self._chunks = (data for data, count in runs for _ in range(count))
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        self._rest = b""


def test_a_reader_that_fails_half_way_through_the_last_index_is_survived(
    media: Path, tmp_path: Path
) -> None:
    for number in range(50):
        write(media, f"file{number:02d}", b"%d" % number)
    first = save(media)

    class Failing(Bytes):
        def read(self, size: int, /) -> bytes:
            if data := super().read(1000):
                return data
            raise DamagedError("the stream is cut")

    view = view_after(first)
    failing = View(previous=lambda _name: Failing(first.index[:3000]), known_packs=view.known_packs)
    second = Saved(packs=dict(first.packs))
    with override_settings(MEDIA_ROOT=str(media)):
        for artifact in media_source().artifacts(failing):
            content = read_all(artifact.open())
            if artifact.pool:
                second.packs[artifact.pool] = content
            else:
                second.index, second.facts = content, artifact.facts()

    assert contents(restored(second, tmp_path / "out")) == contents(media)
