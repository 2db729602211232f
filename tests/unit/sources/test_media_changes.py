"""What tells a run that a file changed: size and time, change time and inode, or the calendar."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.errors import ConfigurationError
from mipyme_backup.sources.media import MediaSource
from mipyme_backup.sources.media.changes import Changes
from tests.unit.sources.media_trees import LONG_AGO, Saved, restored, save, write
from tests.unit.sources.test_media_target import target_for

TODAY = Changes().today


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    write(folder, "file", b"before")
    write(folder, "other", b"other!")
    return folder


def records(saved: Saved) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in saved.index.splitlines()]
    return {fields["path"]: fields for fields in found}


def changed(saved: Saved, path: str, **fields: Any) -> Saved:
    """Return the backup with other fields (None: without them) in the record of one file."""
    lines = []
    for record in records(saved).values():
        if record["path"] == path:
            record.update(fields)
        kept = {name: value for name, value in record.items() if value is not None}
        lines.append(json.dumps(kept, separators=(",", ":")).encode() + b"\n")
    return Saved(index=b"".join(lines), packs=saved.packs, facts=saved.facts)


def old(saved: Saved) -> Saved:
    """Return the backup with an index as earlier versions wrote it."""
    for name in list(records(saved)):
        saved = changed(
            saved, name, ctime_ns=None, inode=None, uid=None, gid=None, user=None, group=None
        )
    return saved


def settled(media: Path) -> None:
    for path in media.rglob("*"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))


def written(path: Path) -> None:
    path.write_bytes(b"behind")


def patched(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2)
        file.write(b"!")


def mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[0:1] = b"B"


def replaced(path: Path) -> None:
    new = path.with_name("new")
    write(path.parent, "new", b"behind")
    new.rename(path)


def copied(path: Path) -> None:
    source = write(path.parent.parent, "source", b"copied")
    shutil.copy2(source, path)


def exchanged(path: Path) -> None:
    """Two files of one size and time change places."""
    path.rename(path.with_name("aside"))
    path.with_name("other").rename(path)
    path.with_name("aside").rename(path.with_name("other"))


CHANGES = [written, patched, mapped, replaced, copied, exchanged]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_that_keeps_size_and_time_is_saved(
    tmp_path: Path, media: Path, change: Callable[[Path], None]
) -> None:
    first = save(media)
    change(media / "file")
    settled(media)
    assert (media / "file").stat().st_size == 6

    second = save(media, first)

    out = restored(second, tmp_path / "out")
    for name in ("file", "other"):
        assert (out / name).read_bytes() == (media / name).read_bytes()
    assert (out / "file").read_bytes() != b"before"


def test_what_changes_no_content_costs_a_read_and_nothing_else(media: Path) -> None:
    first = save(media)
    (media / "file").chmod(0o600)
    (media / "other").rename(media / "moved")

    second = save(media, first)

    assert second.new_packs == []
    assert records(second)["file"]["mode"] == 0o600
    assert second.facts["new_files"] == 0


def test_a_restored_folder_is_read_and_not_stored_anew(tmp_path: Path, media: Path) -> None:
    first = save(media)
    target = target_for(tmp_path)
    target.load(first.artifacts())
    target.swap()
    target.remove_replaced()

    second = save(media, first)
    third = save(media, second)

    assert second.new_packs == third.new_packs == []
    assert records(second)["file"]["inode"] != records(first)["file"]["inode"]
    assert third.index == second.index


def test_an_index_of_an_earlier_version_is_believed_once(tmp_path: Path, media: Path) -> None:
    """Else the first run after an update would read everything."""
    first = old(changed(save(media), "other", sha256=hashlib.sha256(b"before").hexdigest()))

    second = save(media, first)

    other = records(second)["other"]
    assert other["sha256"] == hashlib.sha256(b"before").hexdigest()  # it was not read
    assert other["inode"] == (media / "other").stat().st_ino
    assert other["ctime_ns"] == (media / "other").stat().st_ctime_ns
    written(media / "file")
    settled(media)
    third = save(media, second)
    assert (restored(third, tmp_path / "out") / "file").read_bytes() == b"behind"


def test_an_index_of_an_earlier_version_is_restored(tmp_path: Path, media: Path) -> None:
    first = old(save(media))
    facts = {name: first.facts[name] for name in ("files", "bytes")}
    assert set(records(first)["file"]) == {"path", "size", "mtime_ns", "mode", "sha256", "pack"}

    out = restored(Saved(index=first.index, packs=first.packs, facts=facts), tmp_path / "out")

    assert (out / "file").read_bytes() == b"before"


@pytest.mark.parametrize(
    ("option", "change", "noticed"),
    [
        ("ignore_ctime", written, False),
        ("ignore_ctime", replaced, True),
        ("ignore_inode", written, True),
        ("ignore_inode", replaced, True),  # the new file's change time differs too
    ],
)
def test_what_is_ignored_by_order_is_not_noticed(
    media: Path, option: str, change: Callable[[Path], None], noticed: bool
) -> None:
    options: Any = {option: True}
    first = save(media, **options)
    change(media / "file")
    settled(media)

    second = save(media, first, **options)

    sha256 = hashlib.sha256(b"behind" if noticed else b"before").hexdigest()
    assert records(second)["file"]["sha256"] == sha256


def test_with_both_ignored_size_and_time_decide(media: Path) -> None:
    options: Any = {"ignore_ctime": True, "ignore_inode": True}
    first = save(media, **options)
    replaced(media / "file")
    settled(media)

    second = save(media, first, **options)

    assert second.index != first.index  # what it is now is noted all the same
    assert records(second)["file"]["sha256"] == hashlib.sha256(b"before").hexdigest()


def test_a_change_of_a_file_while_it_is_read_that_keeps_its_time_is_seen(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.read
    meddled = []

    def read_then_meddle(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        if data == b"before":
            meddled.append(1)
            written(media / "file")
            settled(media)
        return data

    monkeypatch.setattr(os, "read", read_then_meddle)

    saved = save(media)

    assert meddled == [1]
    assert records(saved)["file"]["sha256"] == hashlib.sha256(b"behind").hexdigest()


# The periodic full read


def test_without_the_option_no_day_is_noted(media: Path) -> None:
    assert "read_day" not in records(save(media))["file"]


def test_each_file_is_read_again_after_the_days(media: Path) -> None:
    first = save(media, full_read_days=30)
    assert records(first)["file"]["read_day"] == TODAY
    wrong = hashlib.sha256(b"other!").hexdigest()
    fresh = changed(first, "file", sha256=wrong, read_day=TODAY - 29)
    due = changed(first, "file", sha256=wrong, read_day=TODAY - 30)

    kept, read = save(media, fresh, full_read_days=30), save(media, due, full_read_days=30)

    assert records(kept)["file"]["sha256"] == wrong
    assert records(kept)["file"]["read_day"] == TODAY - 29
    assert records(read)["file"]["sha256"] == hashlib.sha256(b"before").hexdigest()
    assert records(read)["file"]["read_day"] == TODAY


def test_turned_on_it_reads_what_was_never_noted(media: Path) -> None:
    wrong = hashlib.sha256(b"other!").hexdigest()
    first = changed(save(media), "file", sha256=wrong)

    second = save(media, first, full_read_days=30)

    assert records(second)["file"]["sha256"] == hashlib.sha256(b"before").hexdigest()


def test_a_day_in_the_future_is_not_believed(media: Path) -> None:
    first = save(media, full_read_days=30)
    wrong = hashlib.sha256(b"other!").hexdigest()
    first = changed(first, "file", sha256=wrong, read_day=TODAY + 2)

    second = save(media, first, full_read_days=30)

    assert records(second)["file"]["sha256"] != wrong


def test_a_content_that_nobody_changed_is_told(tmp_path: Path, media: Path) -> None:
    """A disk that forgets: another content, and neither time, change time nor inode say so."""
    first = save(media, full_read_days=1)
    wrong = hashlib.sha256(b"other!").hexdigest()
    first = changed(first, "file", sha256=wrong, read_day=TODAY - 1)

    second = save(media, first, full_read_days=1)

    (warning,) = second.warnings
    assert warning.startswith("1 media files") and warning.endswith(": file")
    assert "disk" in warning
    written(media / "file")
    settled(media)
    assert save(media, second, full_read_days=1).warnings == []


@pytest.mark.parametrize("days", [0, -1, 1.5, "30", True])
def test_days_that_are_none_are_refused(days: Any) -> None:
    with pytest.raises(ConfigurationError, match="full_read_days"):
        MediaSource(full_read_days=days)


@pytest.mark.parametrize(
    "fields",
    [
        {"inode": -1},
        {"inode": 2**64},
        {"inode": "1"},
        {"ctime_ns": 2**63},
        {"ctime_ns": True},
        {"read_day": -1},
        {"read_day": "today"},
    ],
)
def test_a_last_index_with_such_fields_is_damaged_and_costs_time(
    media: Path, fields: dict[str, Any]
) -> None:
    first = changed(save(media), "file", **fields)

    second = save(media, first)

    assert "last media index could not be read" in second.warnings[-1]
    assert set(records(second)) == {"file", "other"}


def test_the_largest_inode_is_kept(media: Path) -> None:
    first = changed(save(media), "file", inode=2**64 - 1)
    assert save(media, first).warnings == []
