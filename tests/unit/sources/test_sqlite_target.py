"""A restore into an SQLite file survives kills, loses nothing, and keeps what it replaced."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.errors import DestinationError, PreflightError, RestoreError
from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Target
from mipyme_backup.sources.sqlite import SQLiteSnapshot, SQLiteTarget, files
from tests.unit.sources import sqlite_ledger as ledger
from tests.unit.sources.sqlite_killer import Killer, killer

ENGINE = "django.db.backends.sqlite3"
NAME = "database.default.sqlite3"
MODES = pytest.mark.parametrize("mode", ["delete", "wal"])


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "live"
    folder.mkdir()
    return folder / "db.sqlite3"


@pytest.fixture(scope="module")
def the_killer() -> Iterator[Killer]:
    with killer() as instance:
        yield instance


def target_of(live: Path, **options: Any) -> SQLiteTarget:
    settings_dict = {"ENGINE": ENGINE, "NAME": live}
    return SQLiteTarget.prepare(
        alias="default", settings_dict=settings_dict, restore_id="ab12", **options
    )


def beside(live: Path, word: str) -> Path:
    return live.with_name(f"{live.name}.{word}_ab12")


def artifacts_of(content: bytes) -> dict[str, Callable[[], Reader]]:
    return {NAME: lambda: io.BytesIO(content)}


def loaded(live: Path, *, word: str = "new", **options: Any) -> SQLiteTarget:
    """Return a target that holds another ledger beside `live`."""
    saved = live.parent.parent / "saved.sqlite3"
    saved.unlink(missing_ok=True)
    ledger.create(saved, word, **options)
    target = target_of(live, busy_timeout=10)
    target.load(artifacts_of(saved.read_bytes()))
    return target


def journal_mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def assert_nothing_left_over(live: Path, *kept: str) -> None:
    """Assert that only the live file and what is kept on purpose are there, without markers."""
    names = {path.name for path in live.parent.iterdir()}
    # SQLite's own: it empties or removes them when it next writes.
    sidecars = {f"{live.name}{suffix}" for suffix in ("-wal", "-shm", "-journal")}
    assert names - sidecars == {live.name, *(beside(live, word).name for word in kept)}
    assert ledger.table_names(live) == {"entry", "total", "ballast"}


@MODES
@pytest.mark.parametrize("page_size", [1024, 4096, 16384])
def test_swap_replaces_the_content_and_keeps_the_old(live: Path, mode: str, page_size: int) -> None:
    ledger.create(live, "old", mode=mode)
    live.chmod(0o640)
    target = loaded(live, page_size=page_size, ballast=900)

    began = time.monotonic()
    seconds = target.swap()

    assert 0 < seconds <= time.monotonic() - began
    assert ledger.read(live)[0] == "new"
    assert ledger.read(beside(live, "before"))[0] == "old"
    assert journal_mode(live) == mode
    assert live.stat().st_mode & 0o777 == 0o640
    assert beside(live, "before").stat().st_mode & 0o777 == 0o600
    assert_nothing_left_over(live, "before")


@MODES
def test_swap_into_a_larger_database_shrinks_it(live: Path, mode: str) -> None:
    ledger.create(live, "old", mode=mode, ballast=8000)
    old_size = live.stat().st_size

    loaded(live, ballast=10).swap()

    assert ledger.read(live)[0] == "new"
    assert live.stat().st_size < old_size / 10


def test_a_second_swap_changes_nothing(live: Path) -> None:
    ledger.create(live, "old")
    target = loaded(live)
    target.swap()
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute("INSERT INTO entry VALUES (1, 'after the restore')")
        connection.execute("UPDATE total SET count = 1")

    target.swap()

    assert ledger.read(live) == ("new", {1})
    assert ledger.read(beside(live, "before"))[0] == "old"


@MODES
def test_open_connections_see_the_new_content(live: Path, mode: str) -> None:
    ledger.create(live, "old", mode=mode)
    with closing(sqlite3.connect(live)) as reader:
        words = [reader.execute("SELECT word FROM total").fetchone()[0]]

        loaded(live, page_size=1024).swap()

        words.append(reader.execute("SELECT word FROM total").fetchone()[0])
    assert words == ["old", "new"]


@MODES
def test_nothing_committed_before_the_cut_over_is_lost(
    live: Path, tmp_path: Path, mode: str
) -> None:
    ledger.create(live, "old", mode=mode, ballast=5000)
    target = loaded(live, ballast=5000)
    log = tmp_path / "log"

    with ledger.writing(live, log):
        target.swap()
        time.sleep(0.3)

    assert ledger.acknowledged(log, "old") <= ledger.read(beside(live, "before"))[1]
    word, numbers = ledger.read(live)
    assert word == "new"
    assert ledger.acknowledged(log, "new") <= numbers
    assert ledger.acknowledged(log, "new"), "the writer went on after the swap"


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        pytest.param("swap", "delete", marks=pytest.mark.rare),
        ("swap", "wal"),
        ("swap", "absent"),
        ("swap", "garbage"),
        pytest.param("undo", "delete", marks=pytest.mark.rare),
        ("undo", "wal"),
    ],
)
def test_a_kill_at_any_call_leaves_all_old_or_all_new(
    live: Path, tmp_path: Path, the_killer: Killer, kind: str, method: str
) -> None:
    templates = {word: _template(tmp_path / word, word, kind) for word in ("old", "new")}
    call, outcome, states = 0, "killed", set()
    while outcome == "killed":
        call += 1
        _start_over(live)
        if kind != "absent":
            live.write_bytes(b"garbage" * 1000 if kind == "garbage" else templates["old"])
        target = target_of(live)
        target.load(artifacts_of(templates["new"]))
        if method == "undo":
            target.swap()
        outcome = the_killer.run(target, method, call=call)

        states.add(_word_of(live))
        getattr(SQLiteTarget.from_state(target.state), method)()

        after, kept = ("new", "before") if method == "swap" else ("old", "restoring")
        assert ledger.read(live)[0] == after, f"killed at call {call}"
        assert _word_of(beside(live, kept)) == {"new": _first(kind), "old": "new"}[after], call
        assert_nothing_left_over(live, kept)

    assert outcome == "finished"
    assert call > 20
    assert states == {_first(kind), "new"} if method == "swap" else {"new", "old"}


@pytest.mark.parametrize("kind", ["delete", "wal", "absent", "garbage"])
def test_swap_that_was_killed_before_it_began_is_rolled_back_whole(
    live: Path, tmp_path: Path, the_killer: Killer, kind: str
) -> None:
    templates = {word: _template(tmp_path / word, word, kind) for word in ("old", "new")}
    call, outcome, ways = 0, "killed", set()
    while outcome == "killed":
        call += 1
        _start_over(live)
        if kind != "absent":
            live.write_bytes(b"garbage" * 1000 if kind == "garbage" else templates["old"])
        if kind == "garbage":
            files.sidecar(live, "-wal").write_bytes(b"its log")
        target = target_of(live)
        target.load(artifacts_of(templates["new"]))
        outcome = the_killer.run(target, "swap", call=call)

        has_begun = SQLiteTarget.from_state(target.state).swap_has_begun()
        ways.add(has_begun)
        if not has_begun:
            the_killer.run(target, "discard", call=1 + call % 20)  # it is killed as well, or ends
            SQLiteTarget.from_state(target.state).discard()

            left = [path.name for path in live.parent.iterdir() if "ab12" in path.name]
            assert left == [], f"killed at call {call}"
            assert _word_of(live) == _first(kind), f"killed at call {call}"
            if kind == "garbage":
                assert files.sidecar(live, "-wal").read_bytes() == b"its log"

    assert outcome == "finished"
    assert ways == {True, False}


def _start_over(live: Path) -> None:
    for path in live.parent.iterdir():
        path.unlink()


def _template(path: Path, word: str, kind: str, ballast: int = 60) -> bytes:
    ledger.create(path, word, mode="wal" if kind == "wal" else "delete", ballast=ballast)
    return path.read_bytes()


def _first(kind: str) -> str:
    return {"absent": "nothing", "garbage": "garbage"}.get(kind, "old")


def _word_of(path: Path) -> str:
    if not path.exists() or not path.stat().st_size:
        return "nothing"
    if path.read_bytes()[:7] == b"garbage":
        return "garbage"
    return ledger.read(path)[0]


@MODES
def test_a_kill_at_a_random_moment_loses_nothing_committed(
    live: Path, tmp_path: Path, the_killer: Killer, mode: str, torture_random: random.Random
) -> None:
    log = tmp_path / "log"
    templates = {word: _template(tmp_path / word, word, mode, 8000) for word in ("old", "new")}
    outcomes = []
    longest = 0.4
    for _round in range(15):
        _start_over(live)
        log.write_text("")
        live.write_bytes(templates["old"])
        target = target_of(live)
        target.load(artifacts_of(templates["new"]))

        with ledger.writing(live, log):
            delay = torture_random.uniform(0.05, 1.0) * longest
            outcomes.append(the_killer.run(target, "swap", delay=delay))
            # How long a swap takes differs from machine to machine, and with their load.
            longest *= 1.3 if outcomes[-1] == "killed" else 0.6
            time.sleep(0.05)
            SQLiteTarget.from_state(target.state).swap()

        word, numbers = ledger.read(live)
        assert word == "new"
        assert ledger.acknowledged(log, "new") <= numbers
        assert ledger.acknowledged(log, "old") <= ledger.read(beside(live, "before"))[1]
        assert_nothing_left_over(live, "before")

    assert "failed" not in outcomes
    assert "killed" in outcomes


@pytest.mark.parametrize(("mode", "lock"), [("delete", "BEGIN"), ("wal", "BEGIN IMMEDIATE")])
def test_a_lock_without_end_is_an_error_and_changes_nothing(
    live: Path, mode: str, lock: str
) -> None:
    ledger.create(live, "old", mode=mode)
    target = loaded(live)
    target.state["busy_timeout"] = 1

    with closing(sqlite3.connect(live, isolation_level=None)) as other:
        other.execute(lock)
        other.execute("SELECT * FROM total").fetchall()
        with pytest.raises(RestoreError, match="stayed locked") as caught:
            target.swap()

    assert str(live) in str(caught.value)
    assert caught.value.hint.text
    assert ledger.read(live)[0] == "old"
    target.swap()
    assert ledger.read(live)[0] == "new"


def test_a_reader_does_not_stop_a_swap_in_wal_mode(live: Path) -> None:
    ledger.create(live, "old", mode="wal")
    target = loaded(live)

    with closing(sqlite3.connect(live, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT word FROM total").fetchone()
        target.swap()
        still = reader.execute("SELECT word FROM total").fetchone()[0]
        reader.execute("COMMIT")
        then = reader.execute("SELECT word FROM total").fetchone()[0]

    assert (still, then) == ("old", "new")


def test_a_stale_journal_is_not_played_into_a_new_file(live: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite3"
    ledger.create(other, "other", mode="wal")
    with closing(sqlite3.connect(other, isolation_level=None)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE total SET word = 'stale'")
        for suffix in ("-wal", "-shm"):
            content = other.with_name(other.name + suffix).read_bytes()
            live.with_name(live.name + suffix).write_bytes(content)

    loaded(live, mode="wal").swap()

    assert ledger.read(live)[0] == "new"


def test_an_unreadable_live_file_is_kept_with_its_journal(live: Path) -> None:
    live.write_bytes(b"garbage" * 1000)
    live.chmod(0o604)
    live.with_name("db.sqlite3-wal").write_bytes(b"its log")

    loaded(live).swap()

    assert ledger.read(live)[0] == "new"
    assert live.stat().st_mode & 0o777 == 0o604
    assert beside(live, "before").read_bytes() == b"garbage" * 1000
    assert live.with_name("db.sqlite3.before_ab12-wal").read_bytes() == b"its log"


def test_a_truncated_live_file_is_replaced(live: Path) -> None:
    ledger.create(live, "old")
    os.truncate(live, live.stat().st_size // 2)

    loaded(live).swap()

    assert ledger.read(live)[0] == "new"
    assert beside(live, "before").exists()


def test_a_missing_live_file_comes_back_in_its_mode(live: Path) -> None:
    target = loaded(live)
    target.check({"journal_mode": "wal"})

    target.swap()

    assert ledger.read(live)[0] == "new"
    assert journal_mode(live) == "wal"
    assert live.stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_during_the_swap_changes_nothing(live: Path) -> None:
    ledger.create(live, "old", ballast=100)
    target = loaded(live, ballast=4000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(RestoreError) as caught:
            target.swap()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert caught.value.hint.text
    assert ledger.read(live)[0] == "old"
    target.swap()
    assert ledger.read(live)[0] == "new"


@MODES
def test_undo_brings_back_the_old_and_keeps_what_came_after(live: Path, mode: str) -> None:
    ledger.create(live, "old", mode=mode)
    target = loaded(live)
    target.swap()

    target.undo()
    target.undo()

    assert ledger.read(live)[0] == "old"
    assert ledger.read(beside(live, "restoring"))[0] == "new"
    assert journal_mode(live) == mode
    assert_nothing_left_over(live, "restoring")


@MODES
def test_swap_whose_last_step_is_blocked_is_in_and_cleaned_up_later(
    live: Path, mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.create(live, "old", mode=mode)
    target = loaded(live)
    target.state["busy_timeout"] = 0.2
    remove = files.remove
    with closing(sqlite3.connect(live, isolation_level=None)) as writer:

        def remove_while_somebody_writes(path: Path) -> None:
            if path == beside(live, "restoring") and not writer.in_transaction:
                writer.execute("BEGIN IMMEDIATE")
            remove(path)

        with monkeypatch.context() as patched:
            patched.setattr(files, "remove", remove_while_somebody_writes)
            target.swap()

        assert "is exchanged; the table mipyme_backup_restored_ab12 stays" in caplog.text
        assert writer.execute("SELECT word FROM total").fetchone() == ("new",)
        writer.execute("ROLLBACK")
    assert ledger.read(beside(live, "before"))[0] == "old"

    target.remove_replaced()

    assert ledger.read(live)[0] == "new"
    assert_nothing_left_over(live)


def test_what_was_replaced_can_be_removed_and_then_not_undone(live: Path) -> None:
    ledger.create(live, "old")
    target = loaded(live)
    target.swap()

    target.remove_replaced()
    target.remove_replaced()

    assert_nothing_left_over(live)
    with pytest.raises(RestoreError, match=r"nothing at .*before_ab12"):
        target.undo()
    assert ledger.read(live)[0] == "new"


def test_undo_to_an_unreadable_file_names_where_it_is(live: Path) -> None:
    live.write_bytes(b"garbage" * 1000)
    target = loaded(live)
    target.swap()

    with pytest.raises(RestoreError, match="before_ab12: file is not a database"):
        target.undo()

    assert ledger.read(live)[0] == "new"


def test_discard_leaves_the_live_file_alone(live: Path) -> None:
    ledger.create(live, "old")
    target = loaded(live)

    target.discard()
    target.discard()

    assert ledger.read(live)[0] == "old"
    assert_nothing_left_over(live)
    with pytest.raises(RestoreError, match=r"nothing at .*restoring_ab12"):
        target.swap()


def test_load_again_starts_over(live: Path, tmp_path: Path) -> None:
    ledger.create(live, "old")
    loaded(live, word="first")
    beside(live, "restoring").with_name("db.sqlite3.restoring_ab12-journal").write_bytes(b"stale")

    target = loaded(live, word="second")

    assert ledger.read(beside(live, "restoring"))[0] == "second"
    assert beside(live, "restoring").stat().st_mode & 0o777 == 0o600
    assert Path(target.side_settings()["NAME"]) == beside(live, "restoring")


def test_load_that_breaks_off_leaves_nothing(live: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1_000_000:
                raise DestinationError("the line is cut")
            return super().read(size)

    ledger.create(live, "old")

    with pytest.raises(DestinationError):
        target_of(live).load({NAME: lambda: Broken(bytes(3_000_000))})

    assert_nothing_left_over(live)


@pytest.mark.parametrize(
    "content", [b"no database at all" * 1000, b"SQLite format 3\0" + b"x" * 99]
)
def test_load_of_something_else_is_refused(live: Path, content: bytes) -> None:
    ledger.create(live, "old")

    with pytest.raises(RestoreError, match="restoring_ab12: file is not a database"):
        target_of(live).load(artifacts_of(content))

    assert_nothing_left_over(live)


def test_a_backup_without_this_database_is_refused(live: Path) -> None:
    with pytest.raises(RestoreError, match=NAME):
        target_of(live).load({"database.other.sqlite3": lambda: io.BytesIO(b"")})


def test_check_agrees_with_the_facts_of_a_snapshot(live: Path, tmp_path: Path) -> None:
    ledger.create(live, "old", mode="wal")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("CREATE TABLE child (parent INTEGER REFERENCES entry (number))")
        connection.execute("INSERT INTO child VALUES (99)")
        connection.commit()
    snapshot = SQLiteSnapshot(
        "default",
        {"ENGINE": ENGINE, "NAME": live},
        work_dir=tmp_path,
        without_rows=frozenset({"total"}),
    )
    with closing(snapshot):
        target = target_of(live)
        target.load({NAME: snapshot.artifact().open})
        facts = json.loads(json.dumps(snapshot.artifact().facts()))

    assert facts["foreign_key_violations"] == 1
    assert target.check(facts) == []


def test_check_names_every_difference(live: Path) -> None:
    target = loaded(live)
    with closing(sqlite3.connect(beside(live, "restoring"))) as side:
        side.execute("CREATE TABLE child (parent INTEGER REFERENCES entry (number))")
        side.execute("INSERT INTO child VALUES (99)")
        side.commit()
    facts = {
        "tables": {"entry": 3, "total": 5, "ballast": 500, "gone": 0, "left_out": 0},
        "without_rows": ["total", "left_out"],
        "foreign_key_violations": 0,
    }

    differences = [str(difference) for difference in target.check(facts)]

    assert differences == [
        "1 rows refer to rows that do not exist, when saved it was 0",
        "table child was not in the database that was saved",
        "table entry has 0 rows, 3 were saved",
        "table gone is missing",
        "table left_out is missing",
    ]


def test_check_finds_damage(live: Path) -> None:
    target = loaded(live)
    with beside(live, "restoring").open("r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096)

    differences = target.check({"tables": {"entry": 0, "total": 1, "ballast": 500}})

    assert "Page 21" in str(differences[0])


def test_a_new_file_is_made_beside_nothing(live: Path, tmp_path: Path) -> None:
    ledger.create(live, "old")
    new = tmp_path / "new.sqlite3"
    target = target_of(live, to_database=str(new))
    target.plan()
    target.load(artifacts_of(live.read_bytes()))

    target.swap()
    target.plan()

    assert ledger.read(new)[0] == "old"
    assert ledger.read(live)[0] == "old"


def test_an_existing_file_is_no_new_one(live: Path, tmp_path: Path) -> None:
    existing = tmp_path / "existing.sqlite3"
    existing.touch()

    with pytest.raises(RestoreError, match=r"existing\.sqlite3 exists already"):
        target_of(live, to_database=str(existing)).plan()


def test_the_plan_says_what_happens_and_how_much_it_takes(live: Path) -> None:
    ledger.create(live, "old")
    size = live.stat().st_size

    (message,) = target_of(live, raw_size=1000).plan()

    assert str(live) in str(message)
    assert str(1000 + 2 * size) in str(message)


def test_lack_of_space_is_in_the_plan(live: Path) -> None:
    with pytest.raises(PreflightError, match=str(2**60)):
        target_of(live, raw_size=2**60).plan()


def test_a_missing_folder_is_in_the_plan(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="not_there"):
        target_of(tmp_path / "not_there" / "db.sqlite3").plan()


def test_a_database_in_memory_is_no_target() -> None:
    with pytest.raises(RestoreError, match="lives in memory"):
        SQLiteTarget.prepare(
            alias="default", settings_dict={"ENGINE": ENGINE, "NAME": ":memory:"}, restore_id="a"
        )


def test_the_state_is_json_and_makes_the_same_target(live: Path) -> None:
    ledger.create(live, "old")
    target = loaded(live)

    again: Target = SQLiteTarget.from_state(json.loads(json.dumps(target.state)))

    assert again.state == target.state
    again.swap()
    assert ledger.read(live)[0] == "new"
