"""Saving media that lives on a remote storage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from mipyme_backup.errors import PreflightError, SourceError
from mipyme_backup.sources.media.left_out import Reason
from mipyme_backup.sources.media.remote.listing import Listing
from mipyme_backup.sources.media.remote.objects import Found
from tests.unit.sources import media_trees
from tests.unit.sources.media_trees import Saved, collect, media_source, restored, texts, write
from tests.unit.sources.remote_storages import LONG_AGO, MortalStorage, fill, memory, source

FILES = {"a/b": b"1", "a-b": b"2", "a.b": b"3", "a/c/d": b"4" * 5000, "empty": b"", "日本": b"1"}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[MortalStorage]:
    monkeypatch.setattr("mipyme_backup.sources.media.remote.tree.PAUSE_SECONDS", 0.01)
    with memory() as made:
        yield made


def paths(saved: Saved) -> list[str]:
    return [json.loads(line)["path"] for line in saved.index.splitlines()]


def opened(storage: MortalStorage) -> list[str]:
    return [name for verb, name in storage.calls if verb == "open"]


def test_all_files_come_back_into_a_folder(storage: MortalStorage, tmp_path: Path) -> None:
    fill(storage, FILES)

    saved = collect(source())

    assert texts(restored(saved, tmp_path / "out")) == FILES
    assert saved.warnings == []
    assert saved.facts["files"] == len(FILES)
    assert saved.facts["new_files"] == 5  # two files have the same content


def test_the_index_is_in_the_order_that_a_folder_is_walked_in(
    storage: MortalStorage, tmp_path: Path
) -> None:
    fill(storage, FILES)
    for name, content in FILES.items():
        write(tmp_path / "media", name, content)

    of_folder = media_trees.save(tmp_path / "media")

    in_folder = [path for path in paths(of_folder) if not path.endswith("/")]
    assert paths(collect(source())) == in_folder


def test_what_did_not_change_is_not_read_again(storage: MortalStorage) -> None:
    fill(storage, FILES)
    first = collect(source())
    fill(storage, {"a/b": b"new", "moved": b"4" * 5000})
    storage.calls.clear()

    second = collect(source(), first)

    assert sorted(opened(storage)) == ["a/b", "moved"]
    assert second.facts["new_files"] == 1
    assert second.members() == [hashlib.sha256(b"new").hexdigest()]


def test_what_changed_a_moment_before_is_looked_at_again(storage: MortalStorage) -> None:
    storage.save("fresh", ContentFile(b"1"))
    first = collect(source())
    storage.calls.clear()

    collect(source(), first)

    assert opened(storage) == ["fresh"]


def test_media_that_moved_from_a_folder_is_known_by_its_content(
    storage: MortalStorage, tmp_path: Path
) -> None:
    for name, content in FILES.items():
        write(tmp_path / "media", name, content)
    fill(storage, FILES)

    second = collect(source(), media_trees.save(tmp_path / "media"))

    assert second.new_packs == []
    assert second.facts["files"] == len(FILES)


def test_large_files_go_through_in_chunks(
    storage: MortalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mipyme_backup.sources.media.remote.tree.RemoteTree.small_bytes", 1000)
    fill(storage, {"large": b"12345678" * 100_000, "small": b"1"})

    saved = collect(source())

    assert texts(restored(saved, tmp_path / "out"))["large"] == b"12345678" * 100_000
    assert opened(storage) == ["large", "large", "small"]


@pytest.mark.parametrize("small_bytes", [1000, 10_000_000])
def test_a_file_that_changes_while_it_is_read_is_read_once_more(
    storage: MortalStorage, small_bytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "mipyme_backup.sources.media.remote.tree.RemoteTree.small_bytes", small_bytes
    )
    fill(storage, {"file": b"old" * 1000, "other": b"1"})

    def meddle(verb: str, name: str) -> None:
        if (verb, name) == ("open", "file"):
            storage.fails = lambda verb, name: None
            fill(storage, {"file": b"new" * 2000})

    storage.fails = meddle

    saved = collect(source())

    assert texts(restored(saved, tmp_path / "out")) == {"file": b"new" * 2000, "other": b"1"}


def test_a_file_that_vanishes_is_a_warning(storage: MortalStorage) -> None:
    fill(storage, {"file": b"1", "kept": b"2"})

    def meddle(verb: str, name: str) -> None:
        if (verb, name) == ("open", "file"):
            storage.fails = lambda verb, name: None
            storage.delete("file")
            raise FileNotFoundError(name)

    storage.fails = meddle

    saved = collect(source())

    assert paths(saved) == ["kept"]
    assert saved.warnings == ["1 media files vanished while they were read: file"]


def test_a_file_that_cannot_be_read_is_kept_from_the_last_backup(
    storage: MortalStorage, tmp_path: Path
) -> None:
    fill(storage, {"file": b"old", "kept": b"2"})
    first = collect(source())
    fill(storage, {"file": b"newer", "fresh": b"3"})
    storage.fails = refusing("open", "file", "fresh")

    second = collect(source(), first)

    assert second.warnings == ["2 media files could not be read: file, fresh"]
    assert texts(restored(second, tmp_path / "out")) == {"file": b"old", "kept": b"2"}
    assert second.facts["left_out"] == 1


def test_a_passing_error_is_tried_again(storage: MortalStorage) -> None:
    fill(storage, {"file": b"1"})
    left = [ConnectionError("reset"), TimeoutError("late")]

    def fail(verb: str, name: str) -> None:
        if verb == "open" and left:
            raise left.pop()

    storage.fails = fail

    assert paths(collect(source())) == ["file"]


def test_a_storage_that_goes_away_is_an_error_and_no_list_of_unreadable_files(
    storage: MortalStorage,
) -> None:
    fill(storage, FILES)

    def fail(verb: str, name: str) -> None:
        if verb == "open" or (verb == "listdir" and opened(storage)):
            raise ConnectionError("Connection refused")

    storage.fails = fail

    with pytest.raises(SourceError, match=r"memory.*Connection refused"):
        collect(source())


@pytest.mark.parametrize("folder", ["", "a"])
def test_a_listing_that_fails_is_an_error(storage: MortalStorage, folder: str) -> None:
    fill(storage, FILES)

    def fail(verb: str, name: str) -> None:
        if (verb, name) == ("listdir", folder):
            raise TimeoutError("timed out")

    storage.fails = fail

    with pytest.raises(SourceError, match="Cannot list the storage memory"):
        collect(source())


def test_preflight_says_what_to_do_where_it_cannot_be_listed(storage: MortalStorage) -> None:
    storage.fails = refusing("listdir", "")

    with pytest.raises(PreflightError, match="Cannot list the storage memory") as caught:
        list(source().preflight())

    assert "credentials must be allowed" in str(caught.value.hint)


def test_a_storage_that_cannot_list_is_refused_with_the_reason() -> None:
    with (
        memory("django.core.files.storage.Storage"),
        pytest.raises(PreflightError) as caught,
    ):
        list(source().preflight())

    assert "that can list" in str(caught.value.hint)


def test_secrets_of_the_storage_are_not_shown(storage: Any) -> None:
    storage.access_key = "AKIA-canary"

    def fail(verb: str, name: str) -> None:
        raise ConnectionError("GET https://host/?X-Amz-Signature=abc with AKIA-canary")

    storage.fails = fail

    with pytest.raises(SourceError) as caught:
        collect(source())

    assert "canary" not in str(caught.value)
    assert "Signature" not in str(caught.value)


def test_a_storage_that_tells_no_times_is_read_whole_each_time(storage: MortalStorage) -> None:
    fill(storage, {"file": b"1"})

    def fail(verb: str, name: str) -> None:
        if verb == "get_modified_time":
            raise NotImplementedError

    storage.fails = fail
    first = collect(source())
    storage.calls.clear()

    second = collect(source(), first)

    assert opened(storage) == ["file"]
    assert second.new_packs == []


def test_what_is_ours_is_no_media(storage: MortalStorage) -> None:
    fill(
        storage, {".mipyme_backup_before_x/files/0/1": b"1", ".mipyme_backup_probe": b"", "f": b""}
    )
    storage.calls.clear()

    saved = collect(source())

    assert paths(saved) == ["f"]
    assert ("listdir", ".mipyme_backup_before_x") not in storage.calls


def test_a_file_that_a_row_names_and_that_is_gone_comes_from_the_pool(
    storage: MortalStorage, tmp_path: Path
) -> None:
    fill(storage, {"a/first": b"1", "second": b"2"})
    first = collect(source())
    storage.delete("a/first")

    second = collect(source(), first, expected=["a/first", "second", "never"])

    assert texts(restored(second, tmp_path / "out")) == {"a/first": b"1", "second": b"2"}
    gone, missing = second.warnings
    assert gone.startswith("1 media files that the database names are missing")
    assert missing == "1 media files that the database names do not exist: never"


def test_memory_is_bounded_for_a_large_listing() -> None:
    names = (f"photos/{number % 997}/{number:07}.jpg" for number in range(20_000))

    with closing(Listing(Found(name, 1, 2) for name in names)) as listing:
        keys = [entry.key for entry in listing.entries()]

    assert len(keys) == 20_000
    assert keys == sorted(keys)


def test_names_that_no_file_can_have_are_left_out() -> None:
    bad = ["a//b", "/a", "dir/", "..", "a/../b", "./a", "nul\0", "\ud800", "both"]
    good = ["both/below", "new\nline", "x" * 1024, "-o", "back\\slash", "\udcff"]
    found = [Found(name, 1, 2) for name in bad + good]
    markers = [Found("folder/"), Found("a//"), Found("")]

    with closing(Listing(iter(found + markers))) as listing:
        entries = [*listing.entries()]
        unseen = {entry.path for entry in listing.unseen()}

    left_out = {entry.path for entry in entries if entry.reason is Reason.NAME}
    assert left_out == {name.encode("utf-8", "surrogatepass") for name in bad}
    kept = {entry.path for entry in entries if entry.reason is None}
    assert kept == {name.encode("utf-8", "surrogateescape") for name in good}
    assert unseen == kept


def test_names_left_out_are_told(storage: MortalStorage) -> None:
    fill(storage, {"kept": b"1"})
    storage.files |= dict.fromkeys(("a//b", "/c", "both", "both/below\n"), (b"2", LONG_AGO))

    saved = collect(source())

    (warning,) = saved.warnings
    assert warning.startswith("3 objects have names that no file can have, and are left out: ")
    assert {*warning.partition("out: ")[2].split(", ")} == {"/", "a//", "both"}
    assert paths(saved) == ["both/below\n", "kept"]


def refusing(verb: str, *names: str) -> Any:
    def fail(called: str, name: str) -> None:
        if called == verb and name in names:
            raise PermissionError("no")

    return fail


def test_a_source_knows_whether_it_is_remote(storage: Any) -> None:
    assert media_source(storage="memory").remote_key == "memory"
    assert media_source(storage="memory").location is None
