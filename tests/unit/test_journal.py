"""The journal of restores is whole after any kill, or it says that it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.errors import RestoreError, StateError
from mipyme_backup.journal import Entry, Journal
from mipyme_backup.state import State


def entry(restore_id: str = "ab12", **changes: Any) -> Entry:
    values: dict[str, Any] = dict.fromkeys(Entry.__required_keys__)
    values |= {"id": restore_id, "backup": "feed", "phase": "loading"}
    values |= {"elsewhere": False, "merges": [], "targets": [{"type": "sqlite"}]}
    values |= {"drill": False, **changes}
    values["targets"] = [{"restore_id": restore_id, **state} for state in values["targets"]]
    return values  # type: ignore[return-value]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(State(tmp_path / "state"))


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "state" / "restores").iterdir())


def test_what_was_written_is_read(journal: Journal) -> None:
    journal.write(entry())

    assert list(journal.entries()) == [entry()]

    journal.write(entry(stays=[0]))

    assert list(journal.entries()) == [entry(stays=[0])]


def test_nothing_was_written_yet(journal: Journal) -> None:
    assert list(journal.entries()) == []
    assert journal.unfinished() == []
    assert journal.newest_done() is None


def test_writing_again_replaces(journal: Journal, tmp_path: Path) -> None:
    journal.write(entry())
    journal.write(entry(phase="swapping"))

    assert [e["phase"] for e in journal.entries()] == ["swapping"]
    assert files(tmp_path) == ["ab12.json"]


def test_removing_forgets_and_may_come_twice(journal: Journal) -> None:
    journal.write(entry("one"))
    journal.write(entry("two"))

    journal.remove(entry("one"))
    journal.remove(entry("one"))

    assert [e["id"] for e in journal.entries()] == ["two"]


def test_entries_come_in_the_order_they_were_written_last(journal: Journal) -> None:
    for restore_id in ("c", "a", "b"):
        journal.write(entry(restore_id))
        time.sleep(0.01)

    assert [e["id"] for e in journal.entries()] == ["c", "a", "b"]


def test_unfinished_are_those_without_an_end(journal: Journal) -> None:
    journal.write(entry("one", phase="done", finished_at="2025-01-01T00:00:00+00:00"))
    journal.write(entry("two", phase="swapping"))
    journal.write(entry("three", phase="undoing"))

    assert {e["id"] for e in journal.unfinished()} == {"two", "three"}


def test_the_newest_done_is_what_an_undo_takes(journal: Journal) -> None:
    for restore_id, phase in (("one", "done"), ("two", "done"), ("three", "undone")):
        journal.write(entry(restore_id, phase=phase, finished_at="2025-01-01T00:00:00+00:00"))
        time.sleep(0.01)

    newest = journal.newest_done()

    assert newest is not None
    assert newest["id"] == "two"


def test_everything_is_private_whatever_the_umask(journal: Journal, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal.write(entry())
    finally:
        os.umask(before)

    places = [
        tmp_path / "state",
        tmp_path / "state/restores",
        tmp_path / "state/restores/ab12.json",
    ]
    assert [place.stat().st_mode & 0o777 for place in places] == [0o700, 0o700, 0o600]


BAD = {
    "empty": b"",
    "half": b"{",
    "a list": b"[]",
    "no keys": b"{}",
    "no text": b"\xff",
    "some keys": b'{"id": "ab12"}',
    "deep": b"[" * 100_000,
    "a large number": b"9" * 10_000,
}
CHANGED: dict[str, Any] = {
    "id": ["other", "../ab12", "", 7, None],
    "backup": [7, None, ["feed"]],
    "phase": ["gone", 7, None, ["done"], "done", "undone"],
    "elsewhere": ["no", 0, None],
    "drill": ["yes", 1],
    "merges": ["default", [7], {}],
    "targets": [{}, "none", [7], [{"type": "media"}], [{"restore_id": "other"}]],
    "stays": [None, 0, "0", [1], [-1], ["0"], [True]],
    "safety_backup": [7, {}, []],
    "finished_at": ["yesterday", 7, "2025-01-01T00:00:00+00:00", ""],
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_entry_is_ignored_and_told(
    content: bytes, journal: Journal, tmp_path: Path
) -> None:
    journal.write(entry("good"))
    (tmp_path / "state" / "restores" / "ab12.json").write_bytes(content)

    assert [e["id"] for e in journal.entries()] == ["good"]
    (told,) = journal.ignored()
    assert "ab12.json" in str(told)
    assert "STATE_DIR" in str(told.hint)


@pytest.mark.parametrize(
    ("key", "value"), [(k, v) for k, values in CHANGED.items() for v in values]
)
def test_an_entry_with_one_wrong_value_is_ignored(
    key: str, value: Any, journal: Journal, tmp_path: Path
) -> None:
    journal.write(entry())
    (tmp_path / "state/restores/ab12.json").write_text(json.dumps({**entry(), key: value}))

    assert journal.entries() == []
    assert len(journal.ignored()) == 1


def test_what_replaces_nothing_is_never_undone(journal: Journal, tmp_path: Path) -> None:
    journal.write(entry(elsewhere=True, phase="done", finished_at="2025-01-01T00:00:00+00:00"))

    assert journal.newest_done() is None
    assert len(journal.ignored()) == 1


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    journal: Journal, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state" / "restores").mkdir(parents=True)
    (tmp_path / "state" / "restores" / "ab12.json.new").symlink_to(victim)

    journal.write(entry())

    assert victim.read_text() == "precious"
    assert list(journal.entries()) == [entry()]


def test_a_full_disk_keeps_the_entry_that_was_there(small_disk: Path) -> None:
    journal = Journal(State(small_disk))
    journal.write(entry())

    with pytest.raises(RestoreError) as caught:
        journal.write(entry(targets=[{"state": "x" * 2_000_000}]))

    assert "No space left" in str(caught.value)
    assert list(journal.entries()) == [entry()]
    assert sorted(path.name for path in (small_disk / "restores").iterdir()) == ["ab12.json"]


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StateError, match="cannot be used"):
        Journal(State(tmp_path / "file")).write(entry())


WRITER = """
import json, sys
from pathlib import Path
from mipyme_backup.journal import Journal
from mipyme_backup.state import State
journal, entry = Journal(State(Path(sys.argv[1]))), json.loads(sys.argv[2])
print("ready", flush=True)
while True:
    for size in (10, 200_000):
        state = {"restore_id": entry["id"], "state": "x" * size}
        journal.write({**entry, "targets": [state]})
"""


def test_a_kill_leaves_one_whole_entry(journal: Journal, tmp_path: Path) -> None:
    journal.write(entry(targets=[{"state": "x" * 10}]))

    for turn in range(15):
        arguments = [sys.executable, "-c", WRITER, str(tmp_path / "state"), json.dumps(entry())]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.002 * turn)
            os.kill(process.pid, signal.SIGKILL)

        (found,) = journal.entries()
        assert len(found["targets"][0]["state"]) in {10, 200_000}

    journal.write(entry())
    assert files(tmp_path) == ["ab12.json"]
