"""A snapshot of an SQLite database is consistent, private, and disturbs nobody."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connections, transaction
from django.db.utils import load_backend
from django.utils import timezone
from django.utils.connection import ConnectionDoesNotExist

from mipyme_backup.errors import PreflightError, SourceBusyError, SourceError
from mipyme_backup.sources.base import artifact_name
from mipyme_backup.sources.sqlite import SQLiteSnapshot, identity
from mipyme_backup.sources.sqlite.files import django_entry
from tests.unit.sources import sqlite_ledger as ledger

ENGINE = "django.db.backends.sqlite3"
MODES = pytest.mark.parametrize("mode", ["delete", "wal"])


@pytest.fixture(autouse=True)
def _may_connect(django_db_blocker: Any) -> Iterator[None]:
    """The databases here are files of the test itself, not the project's."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "live"
    folder.mkdir()
    return folder / "db.sqlite3"


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir(mode=0o700)
    return folder


def snapshot_of(live: Path, work_dir: Path, **options: Any) -> SQLiteSnapshot:
    options.setdefault("without_rows", frozenset())
    return SQLiteSnapshot("default", {"ENGINE": ENGINE, "NAME": live}, work_dir=work_dir, **options)


def content_of(snapshot: SQLiteSnapshot) -> bytes:
    with closing(snapshot.artifact().open()) as reader:
        content = b""
        while data := reader.read(100_000):
            content += data
    return content


def saved(snapshot: SQLiteSnapshot, folder: Path) -> Path:
    path = folder / "saved.sqlite3"
    path.write_bytes(content_of(snapshot))
    return path


@MODES
def test_holds_one_moment_of_a_database_that_is_written_to(
    live: Path, work_dir: Path, tmp_path: Path, mode: str
) -> None:
    ledger.create(live, "old", mode=mode, ballast=30_000)
    log = tmp_path / "log"

    with ledger.writing(live, log):
        acknowledged = ledger.acknowledged(log, "old")
        snapshot = snapshot_of(live, work_dir)
        time.sleep(0.2)
    word, numbers = ledger.read(saved(snapshot, tmp_path))
    tables = snapshot.artifact().facts()["tables"]
    snapshot.close()

    assert word == "old"
    assert acknowledged <= numbers < ledger.acknowledged(log, "old")
    assert tables == {"entry": len(numbers), "total": 1, "ballast": 30_000}


@MODES
def test_facts_describe_the_live_database(live: Path, work_dir: Path, mode: str) -> None:
    ledger.create(live, "old", mode=mode, page_size=8192)
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("PRAGMA user_version = 7")

    with closing(snapshot_of(live, work_dir)) as snapshot:
        facts = snapshot.artifact().facts()
        size = len(content_of(snapshot))

    assert facts == {
        "engine": "sqlite",
        "version": sqlite3.sqlite_version,
        "database": "db.sqlite3",
        "journal_mode": mode,
        "size": size,
        "page_size": 8192,
        "encoding": "UTF-8",
        "user_version": 7,
        "foreign_key_violations": 0,
        "tables": {"ballast": 500, "entry": 0, "total": 1},
        "without_rows": [],
    }


def test_holds_what_is_committed_to_the_wal_only(
    live: Path, work_dir: Path, tmp_path: Path
) -> None:
    ledger.create(live, "old", mode="wal")
    with closing(sqlite3.connect(live, isolation_level=None)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("INSERT INTO entry VALUES (1, 'in the log')")
        writer.execute("UPDATE total SET count = 1")

        with closing(snapshot_of(live, work_dir)) as snapshot:
            word, numbers = ledger.read(saved(snapshot, tmp_path))

        assert (word, numbers) == ("old", {1})
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_copy_is_private_and_gone_after_close(live: Path, work_dir: Path) -> None:
    ledger.create(live, "old")
    mask = os.umask(0)
    try:
        snapshot = snapshot_of(live, work_dir)
    finally:
        os.umask(mask)

    modes = [path.stat().st_mode & 0o777 for path in work_dir.iterdir()]
    snapshot.close()
    snapshot.close()

    assert modes == [0o600]
    assert list(work_dir.iterdir()) == []


def test_rows_that_are_left_out_leave_no_trace(live: Path, work_dir: Path) -> None:
    ledger.create(live, "old")
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE Secret (word TEXT)")
        connection.execute("INSERT INTO Secret VALUES ('a canary in the rows')")

    without_rows = frozenset({"secret", "not_there"})
    with closing(snapshot_of(live, work_dir, without_rows=without_rows)) as snapshot:
        content = content_of(snapshot)
        facts = snapshot.artifact().facts()

    assert facts["tables"] == {"Secret": 0, "ballast": 500, "entry": 0, "total": 1}
    assert facts["without_rows"] == ["Secret"]
    assert b"a canary in the rows" not in content
    assert b"a canary in the rows" in live.read_bytes()


def test_virtual_tables_and_functions_of_django_are_no_obstacle(live: Path, work_dir: Path) -> None:
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.create_function("REGEXP", 2, lambda pattern, text: True)
        connection.execute("CREATE TABLE checked (word TEXT CHECK (word REGEXP '^a'))")
        connection.execute("INSERT INTO checked VALUES ('abc')")
        connection.execute("CREATE VIRTUAL TABLE found USING fts5(body)")
        connection.execute("INSERT INTO found VALUES ('some words')")

    with closing(snapshot_of(live, work_dir)) as snapshot:
        tables = snapshot.artifact().facts()["tables"]

    assert "found" not in tables
    assert tables["checked"] == 1
    assert tables["found_content"] == 1


def test_a_missing_file_is_named_and_not_created(live: Path, work_dir: Path) -> None:
    with pytest.raises(SourceError, match=r"no database file .*db\.sqlite3") as caught:
        snapshot_of(live, work_dir)

    assert "NAME" in str(caught.value.hint)
    assert not live.exists()
    assert list(work_dir.iterdir()) == []


def test_a_file_that_is_no_database_is_named(live: Path, work_dir: Path) -> None:
    live.write_bytes(b"this is no database" * 1000)

    with pytest.raises(SourceError, match=r"db\.sqlite3: file is not a database") as caught:
        snapshot_of(live, work_dir)

    assert caught.value.hint.text
    assert list(work_dir.iterdir()) == []


def test_a_damaged_page_is_found(live: Path, work_dir: Path) -> None:
    ledger.create(live, "old", ballast=2000)
    with live.open("r+b") as file:
        file.seek(4096 * 100)
        file.write(b"\xff" * 4096)

    with pytest.raises(SourceError, match=r"default \(db\.sqlite3\) is damaged: Page 101:"):
        snapshot_of(live, work_dir)

    assert list(work_dir.iterdir()) == []


def test_a_lock_is_waited_for_within_a_bound(live: Path, work_dir: Path) -> None:
    ledger.create(live, "old")
    with closing(sqlite3.connect(live, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()

        with pytest.raises(SourceBusyError) as caught:
            snapshot_of(live, work_dir, busy_timeout=0.5)

        assert time.monotonic() - started > 0.4
    assert not caught.value.permanent
    assert str(live) in str(caught.value)
    assert list(work_dir.iterdir()) == []


def test_a_lock_that_ends_in_time_is_no_error(live: Path, work_dir: Path) -> None:
    ledger.create(live, "old")
    other = sqlite3.connect(live, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.5, other.close)
    release.start()

    with closing(snapshot_of(live, work_dir, busy_timeout=60)) as snapshot:
        tables = snapshot.artifact().facts()["tables"]
    release.join()

    assert tables["total"] == 1


def test_reading_serves_the_orm_from_any_thread(live: Path, work_dir: Path) -> None:
    connections["live"] = load_backend(ENGINE).DatabaseWrapper(
        django_entry(ENGINE, str(live), None), "live"
    )
    found: list[str] = []

    def read() -> None:
        for _time in range(2):
            with snapshot.reading() as alias:
                found.extend(Session.objects.using(alias).values_list("session_key", flat=True))

    try:
        with connections["live"].schema_editor() as editor:
            editor.create_model(Session)
        sessions = Session.objects.using("live")
        sessions.create(session_key="before", expire_date=timezone.now())
        with closing(snapshot_of(live, work_dir)) as snapshot:
            sessions.create(session_key="after", expire_date=timezone.now())
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
            read()
    finally:
        connections["live"].close()
        del connections["live"]

    assert found == ["before"] * 4
    with pytest.raises(ConnectionDoesNotExist):
        connections["mipyme_backup_default_snapshot"]


def test_reading_cannot_change_the_copy(live: Path, work_dir: Path) -> None:
    ledger.create(live, "old")
    with closing(snapshot_of(live, work_dir)) as snapshot:
        before = content_of(snapshot)

        with snapshot.reading() as alias, connections[alias].cursor() as cursor:
            with pytest.raises(DatabaseError, match="readonly"):
                cursor.execute("DELETE FROM ballast")

        assert content_of(snapshot) == before


@pytest.mark.parametrize("name", [":memory:", "file:ledger?mode=memory&cache=shared"])
def test_a_database_in_memory_is_copied_inside_an_open_transaction(
    work_dir: Path, name: str
) -> None:
    entry = django_entry(ENGINE, name, None)
    connections["memory"] = wrapper = load_backend(ENGINE).DatabaseWrapper(entry, "memory")
    try:
        with transaction.atomic("memory"), wrapper.cursor() as cursor:
            cursor.execute("CREATE TABLE word (text TEXT)")
            cursor.execute("INSERT INTO word VALUES ('uncommitted')")
            snapshot = SQLiteSnapshot("memory", entry, work_dir=work_dir, without_rows=frozenset())
    finally:
        del connections["memory"]
        wrapper.connection.close()

    with closing(snapshot):
        facts = snapshot.artifact().facts()
    assert (facts["database"], facts["tables"]) == (":memory:", {"word": 1})


def test_a_database_in_memory_of_another_thread_is_refused(work_dir: Path) -> None:
    entry = django_entry(ENGINE, ":memory:", None)
    connections["memory"] = load_backend(ENGINE).DatabaseWrapper(entry, "memory")
    try:
        with pytest.raises(SourceError, match="not open in this thread"):
            SQLiteSnapshot("memory", entry, work_dir=work_dir, without_rows=frozenset())
    finally:
        del connections["memory"]

    assert list(work_dir.iterdir()) == []


def test_lack_of_space_is_told_before_anything_is_copied(live: Path, work_dir: Path) -> None:
    live.touch()
    os.truncate(live, 2**42)  # sparse: takes no room itself

    with pytest.raises(PreflightError, match=str(2**42)) as caught:
        snapshot_of(live, work_dir)

    assert "STATE_DIR" in str(caught.value.hint)
    assert list(work_dir.iterdir()) == []


def test_a_write_that_fails_names_the_copy_and_leaves_nothing(live: Path, work_dir: Path) -> None:
    ledger.create(live, "old", ballast=4000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(SourceError) as caught:
            snapshot_of(live, work_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert caught.value.hint.text
    assert list(work_dir.iterdir()) == []


@MODES
def test_a_kill_leaves_files_in_the_work_folder_only(
    live: Path, work_dir: Path, mode: str, torture_random: random.Random
) -> None:
    ledger.create(live, "old", mode=mode, ballast=20_000)
    code = (
        "import sys; from pathlib import Path; from mipyme_backup.sources.sqlite import *\n"
        "print('started', flush=True)\n"
        f"SQLiteSnapshot('default', {{'ENGINE': {ENGINE!r}, 'NAME': sys.argv[1]}},"
        " work_dir=Path(sys.argv[2]), without_rows=frozenset())"
    )
    killed = 0
    for _round in range(8):
        child = subprocess.Popen([sys.executable, "-c", code, live, work_dir], stdout=-1)
        assert child.stdout is not None
        with child:
            child.stdout.readline()
            time.sleep(torture_random.uniform(0, 0.15))
            child.kill()
        killed += child.returncode == -signal.SIGKILL

    names = {path.name for path in live.parent.iterdir()}
    assert killed
    assert names <= {"db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"}
    assert ledger.read(live)[0] == "old"
    assert {path.stat().st_mode & 0o777 for path in work_dir.iterdir()} <= {0o600}


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("default", "database.default.sqlite3"),
        ("a_b-C9", "database.a_b-C9.sqlite3"),
        ("../x.y~", "database.%2E%2E%2Fx%2Ey%7E.sqlite3"),
        ("ñ\n", "database.%C3%B1%0A.sqlite3"),
    ],
)
def test_artifact_names_escape_the_alias(alias: str, expected: str) -> None:
    assert artifact_name(alias, "sqlite3") == expected


def test_identity_is_that_of_the_file(live: Path) -> None:
    live.touch()
    link = live.with_name("link.sqlite3")
    link.symlink_to(live)

    assert identity({"NAME": str(link)}) == identity({"NAME": live})
    assert identity({"NAME": f"{live.as_uri()}?mode=rw"}) == identity({"NAME": live})
    assert identity({"NAME": live.with_name("other")}) != identity({"NAME": live})
