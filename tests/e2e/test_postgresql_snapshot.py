"""Snapshots of real servers, with other sessions that write, truncate, alter and lock."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, connections, transaction
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import PreflightError, ProcessError, SourceBusyError, SourceError
from mipyme_backup.process import Reader
from mipyme_backup.sources.postgresql import PostgreSQLSnapshot, preflight
from mipyme_backup.sources.postgresql.archive import NotWholeError, WholeDump
from tests.services import PostgreSQLServer

ODD_NAME = 'o\'dd "näme" -o $x=1'


@pytest.fixture(autouse=True)
def _real_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def settings_dict(postgresql_server: PostgreSQLServer, postgresql_database: str) -> dict[str, Any]:
    """A database with a table `ledger` of 1,000 rows."""
    postgresql_server.execute(
        "CREATE TABLE ledger (id serial PRIMARY KEY, note text NOT NULL);"
        "INSERT INTO ledger (note) SELECT 'row ' || i FROM generate_series(1, 1000) i",
        postgresql_database,
    )
    return postgresql_server.settings(postgresql_database)


@contextlib.contextmanager
def opened(
    server: PostgreSQLServer, settings_dict: dict[str, Any], **options: Any
) -> Iterator[PostgreSQLSnapshot]:
    snapshot = PostgreSQLSnapshot("default", settings_dict, bin_dir=server.bin_dir, **options)
    try:
        yield snapshot
    finally:
        snapshot.close()


def read_all(reader: Reader) -> bytes:
    content = bytearray()
    try:
        while data := reader.read(65536):
            content += data
    finally:
        reader.close()
    return bytes(content)


@contextlib.contextmanager
def restored(server: PostgreSQLServer, dump: bytes) -> Iterator[str]:
    """The name of a new database that was loaded from `dump` with plain pg_restore."""
    name = f"test_{secrets.token_hex(6)}"
    server.create_database(name)
    try:
        subprocess.run(
            [
                server.bin_dir / "pg_restore",
                "--exit-on-error",
                f"--host={server.host}",
                f"--port={server.port}",
                f"--username={server.user}",
                f"--dbname={name}",
            ],
            input=dump,
            env={**os.environ, "PGPASSWORD": server.password},
            check=True,
            capture_output=True,
        )
        yield name
    finally:
        server.drop_database(name)


@contextlib.contextmanager
def in_thread(work: Any) -> Iterator[None]:
    """Run `work` beside the block, and fail with what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE ledger; INSERT INTO ledger (note) SELECT 'new' FROM generate_series(1, 1000)",
        "ALTER TABLE ledger ALTER COLUMN id TYPE bigint",
        "ALTER TABLE ledger RENAME TO gone; CREATE TABLE ledger AS TABLE gone; DROP TABLE gone",
    ],
    ids=["truncate", "alter", "replace"],
)
def test_a_table_that_changes_while_we_wait_for_it_is_whole_in_the_dump(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any], change: str
) -> None:
    with postgresql_server.connect(settings_dict["NAME"]) as other:
        other.execute(b"BEGIN")
        other.execute(b"LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
        other.execute(change.encode())

        def commit_later() -> None:
            time.sleep(0.7)
            other.execute(b"COMMIT")

        with in_thread(commit_later), opened(postgresql_server, settings_dict) as snapshot:
            artifact = snapshot.artifact()
            dump = read_all(artifact.open())
            facts = artifact.facts()

    assert facts["tables"] == {"public.ledger": 1000}
    with restored(postgresql_server, dump) as copy:
        assert postgresql_server.execute("SELECT count(*) FROM ledger", copy) == [(1000,)]


def test_a_table_that_appears_while_we_wait_is_in_the_dump(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    with postgresql_server.connect(settings_dict["NAME"]) as other:
        other.execute(b"BEGIN")
        other.execute(b"LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
        other.execute(b"CREATE TABLE late AS SELECT 1 AS id")

        def commit_later() -> None:
            time.sleep(0.7)
            other.execute(b"COMMIT")

        with in_thread(commit_later), opened(postgresql_server, settings_dict) as snapshot:
            with postgresql_server.connect(settings_dict["NAME"]) as another:
                another.execute(b"SET lock_timeout = '200ms'")
                with pytest.raises(Exception, match="lock timeout"):
                    another.execute(b"TRUNCATE late")
            facts = snapshot.facts()

    assert facts["tables"] == {"public.late": 1, "public.ledger": 1000}


def test_a_closed_snapshot_reads_nothing_more(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    with opened(postgresql_server, settings_dict) as snapshot:
        pass
    with pytest.raises(SourceError, match="is closed"):
        snapshot.facts()
    with pytest.raises(SourceError, match="is closed"):
        snapshot.artifact().open()


def test_a_migration_waits_no_longer_than_our_patience(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    patience = 2.0
    change = "ALTER TABLE ledger ADD COLUMN IF NOT EXISTS extra int"
    with opened(postgresql_server, settings_dict, patience=patience) as snapshot:
        started = time.monotonic()
        postgresql_server.execute(change, settings_dict["NAME"])  # or it waits until the test fails
        waited = time.monotonic() - started

        with pytest.raises(SourceBusyError) as caught:
            snapshot.check()
        assert not caught.value.permanent
        with pytest.raises(SourceBusyError):
            snapshot.artifact().open()
        with pytest.raises(SourceBusyError), snapshot.reading():
            pytest.fail("a lost snapshot cannot be read")
        with pytest.raises(SourceBusyError):
            snapshot.facts()
    assert waited > patience
    with opened(postgresql_server, settings_dict) as again:
        assert again.facts()["tables"] == {"public.ledger": 1000}


def test_a_dump_in_the_middle_gives_way_to_a_migration(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    postgresql_server.execute(
        "INSERT INTO ledger (note) SELECT repeat('x', 500) FROM generate_series(1, 100000)",
        settings_dict["NAME"],
    )
    with opened(postgresql_server, settings_dict, patience=1.0) as snapshot:
        reader = snapshot.artifact().open()
        assert reader.read(1000)

        postgresql_server.execute("ALTER TABLE ledger ADD COLUMN extra int", settings_dict["NAME"])

        with pytest.raises(SourceBusyError):
            read_all(reader)


def test_a_read_in_the_middle_gives_way_to_a_migration(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    with opened(postgresql_server, settings_dict, patience=1.0) as snapshot:
        stack = contextlib.ExitStack()
        alias = stack.enter_context(snapshot.reading())
        postgresql_server.execute("ALTER TABLE ledger ADD COLUMN extra int", settings_dict["NAME"])

        with pytest.raises(SourceBusyError), stack, connections[alias].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM ledger")


def test_a_table_that_stays_locked_makes_the_source_busy(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    with postgresql_server.connect(settings_dict["NAME"]) as other:
        other.execute(b"BEGIN")
        other.execute(b"LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")

        with (
            pytest.raises(SourceBusyError, match="could not be locked"),
            opened(postgresql_server, settings_dict, lock_timeout=0.1),
        ):
            pytest.fail("nothing can be read")

    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^mipyme_backup'"
    deadline = time.monotonic() + 60  # a server takes note a moment after we hang up
    while postgresql_server.execute(sessions) != [(0,)]:
        assert time.monotonic() < deadline


def test_the_dump_and_the_readers_see_one_moment_of_a_busy_shop(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    postgresql_server.execute(
        "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);"
        "CREATE TABLE transfer (id serial PRIMARY KEY, amount int NOT NULL);"
        "INSERT INTO account VALUES (1, 1000000), (2, 0)",
        settings_dict["NAME"],
    )
    stop = threading.Event()

    def transfer() -> None:
        with postgresql_server.connect(settings_dict["NAME"]) as connection:
            while not stop.is_set():
                with connection.transaction():
                    connection.execute(b"UPDATE account SET balance = balance - 1 WHERE id = 1")
                    connection.execute(b"UPDATE account SET balance = balance + 1 WHERE id = 2")
                    connection.execute(b"INSERT INTO transfer (amount) VALUES (1)")

    moved = "SELECT sum(balance), (SELECT count(*) FROM transfer), max(id) FROM account"
    seen: list[Any] = []

    def read(snapshot: PostgreSQLSnapshot) -> None:
        with snapshot.reading() as alias, connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT balance, (SELECT count(*) FROM transfer) FROM account ORDER BY id"
            )
            seen.append(cursor.fetchall())

    with in_thread(transfer):
        try:
            time.sleep(0.3)
            with opened(postgresql_server, settings_dict) as snapshot:
                artifact = snapshot.artifact()
                time.sleep(0.3)
                dump = read_all(artifact.open())
                with in_thread(lambda: read(snapshot)):
                    pass
                facts = artifact.facts()
        finally:
            stop.set()

    count = facts["tables"]["public.transfer"]
    assert count > 0
    assert seen == [[(1000000 - count, count), (count, count)]]
    with restored(postgresql_server, dump) as copy:
        assert postgresql_server.execute(moved, copy) == [(1000000, count, 2)]
        assert postgresql_server.execute("SELECT balance FROM account WHERE id = 2", copy) == [
            (count,)
        ]


def test_the_orm_reads_the_snapshot_in_savepoints_and_with_server_side_cursors(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    postgresql_server.execute(
        "CREATE TABLE django_content_type (id serial, app_label text, model text);"
        "INSERT INTO django_content_type (app_label, model)"
        " SELECT 'shop', 'model' || i FROM generate_series(1, 5000) i",
        settings_dict["NAME"],
    )
    pooled = {**settings_dict, "DISABLE_SERVER_SIDE_CURSORS": True, "OPTIONS": {"pool": True}}
    with opened(postgresql_server, pooled) as snapshot:
        postgresql_server.execute("DELETE FROM django_content_type", settings_dict["NAME"])

        with snapshot.reading() as alias:
            with pytest.raises(DatabaseError), transaction.atomic(using=alias):
                ContentType.objects.using(alias).create(app_label="a", model="b")
            rows = ContentType.objects.using(alias).order_by("pk").iterator(chunk_size=100)
            first = next(rows)
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_cursors WHERE name LIKE '_django_curs%'")
                assert cursor.fetchone() == (1,)
            assert [first.model, sum(1 for _row in rows)] == ["model1", 4999]

        assert alias not in connections


def test_an_unreadable_table_is_named(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    role, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    postgresql_server.create_role(role, password, createdb=False)
    mine = {**settings_dict, "USER": role, "PASSWORD": password}
    try:
        with (
            pytest.raises(SourceError, match=r"may not read public\.ledger"),
            opened(postgresql_server, mine),
        ):
            pytest.fail("the dump would lack a table")
        with pytest.raises(SourceError, match=r"may not read public\.ledger"):
            preflight("default", mine, bin_dir=postgresql_server.bin_dir)
    finally:
        postgresql_server.drop_role(role)


def test_rows_that_are_left_out_stay_out_and_the_table_stays_in(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    postgresql_server.execute(
        'CREATE TABLE "o""d.d* $t" AS SELECT 1 AS id; CREATE SCHEMA other;'
        "CREATE TABLE other.ledger AS SELECT 1 AS id",
        settings_dict["NAME"],
    )
    without = frozenset({"ledger", 'o"d.d* $t'})
    with opened(postgresql_server, settings_dict, without_rows=without) as snapshot:
        artifact = snapshot.artifact()
        dump = read_all(artifact.open())
        facts = artifact.facts()

    assert facts["tables"] == {"other.ledger": 1}
    with restored(postgresql_server, dump) as copy:
        query = 'SELECT (SELECT count(*) FROM ledger), (SELECT count(*) FROM "o""d.d* $t"),'
        assert postgresql_server.execute(f"{query} count(*) FROM other.ledger", copy) == [(0, 0, 1)]


def test_facts_say_what_a_dump_does_not_carry(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    name = settings_dict["NAME"]
    postgresql_server.execute(
        f"ALTER DATABASE {name} SET work_mem = '5MB';"
        f"ALTER DATABASE {name} SET app.secret = 'canary-secret';"
        f"ALTER DATABASE {name} CONNECTION LIMIT 33; COMMENT ON DATABASE {name} IS 'the shop';"
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;"
        "CREATE TABLE measure (day date) PARTITION BY RANGE (day);"
        "CREATE TABLE measure_1 PARTITION OF measure"
        " FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');"
        "INSERT INTO measure VALUES ('2025-05-05'); SELECT lo_create(0)",
        name,
    )
    with opened(postgresql_server, settings_dict) as snapshot:
        facts = snapshot.facts()

    assert facts["engine"] == "postgresql"
    assert facts["major"] == postgresql_server.major
    assert facts["client"].startswith(str(postgresql_server.major))
    assert (facts["encoding"], facts["locale_provider"]) == ("UTF8", "libc")
    assert facts["settings"] == [["", "work_mem=5MB"]]
    assert facts["settings_withheld"] == [["", "app.secret"]]
    assert "canary-secret" not in repr(facts)
    assert (facts["connection_limit"], facts["comment"]) == (33, "the shop")
    assert ["", "CONNECT", False] in facts["acl"]
    assert ["", "TEMPORARY", False] not in facts["acl"]
    assert facts["tables"] == {"public.ledger": 1000, "public.measure_1": 1}
    assert (facts["sequences"], facts["large_objects"]) == (1, 1)
    assert facts["sequences_behind"] == []
    assert postgresql_server.user in facts["roles"]


def test_odd_names_are_dumped_as_they_are(
    postgresql_server: PostgreSQLServer, workdir: Path
) -> None:
    role, password = f"{ODD_NAME} {secrets.token_hex(3)}", "pass:w\\ord 'x\""
    database = f"{ODD_NAME} {secrets.token_hex(3)}"
    postgresql_server.create_role(role, password)
    postgresql_server.create_database(database, role)
    mine = postgresql_server.settings(database, USER=role, PASSWORD=password)
    try:
        with opened(postgresql_server, mine) as snapshot:
            snapshot.alias = "a/b;id"
            artifact = snapshot.artifact()
            assert artifact.name == "database.a%2Fb%3Bid.dump"
            assert read_all(artifact.open()).startswith(b"PGDMP")
            assert artifact.facts()["database"] == database
    finally:
        postgresql_server.drop_database(database)
        postgresql_server.drop_role(role)


def test_no_process_shows_the_password(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    role, canary = f"app_{secrets.token_hex(4)}", f"canary{secrets.token_hex(8)}"
    postgresql_server.create_role(role, canary)
    postgresql_server.execute(
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role};"
        "INSERT INTO ledger (note) SELECT repeat('x', 500) FROM generate_series(1, 20000)",
        settings_dict["NAME"],
    )
    mine = {**settings_dict, "USER": role, "PASSWORD": canary}
    try:
        with opened(postgresql_server, mine) as snapshot:
            reader = snapshot.artifact().open()
            reader.read(1000)
            shown = [
                (Path("/proc") / pid / what).read_bytes()
                for pid in children()
                for what in ("cmdline", "environ")
            ]
            read_all(reader)
        assert any(b"pg_dump" in text for text in shown)
        assert not any(canary.encode() in text for text in shown)
    finally:
        postgresql_server.execute(f"DROP OWNED BY {role}", settings_dict["NAME"])
        postgresql_server.drop_role(role)


def test_a_dump_that_is_killed_is_an_error(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any]
) -> None:
    postgresql_server.execute(
        "INSERT INTO ledger (note) SELECT repeat('x', 500) FROM generate_series(1, 20000)",
        settings_dict["NAME"],
    )
    with opened(postgresql_server, settings_dict) as snapshot:
        reader = snapshot.artifact().open()
        reader.read(1000)
        [dumping] = [
            pid
            for pid in children()
            if b"pg_dump" in (Path("/proc") / pid / "cmdline").read_bytes()
        ]

        os.kill(int(dumping), signal.SIGKILL)

        with pytest.raises(ProcessError, match="SIGKILL"):
            read_all(reader)


@pytest.mark.parametrize(
    "last",
    [
        "SELECT lo_from_bytea('0'::oid, decode(repeat('0001', 15), 'hex'))",
        "CREATE TABLE zz AS SELECT 'text' AS words",
        "CREATE TABLE zz (id int)",
    ],
    ids=["large_object", "rows", "empty_table"],
)
def test_a_dump_cut_anywhere_is_not_whole(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any], last: str
) -> None:
    postgresql_server.execute(
        f"DELETE FROM ledger WHERE id > 20; CREATE TABLE aa (id int); {last}",
        settings_dict["NAME"],
    )
    with opened(postgresql_server, settings_dict) as snapshot:
        dump = read_all(snapshot.artifact().open())

    assert read_all(WholeDump(Bytes(dump))) == dump
    for length in [*range(0, len(dump) - 600, 501), *range(len(dump) - 600, len(dump))]:
        with pytest.raises(NotWholeError):
            read_all(WholeDump(Bytes(dump[:length])))


def test_a_client_of_another_version_is_refused_with_both_versions(
    postgresql_server: PostgreSQLServer, settings_dict: dict[str, Any], workdir: Path
) -> None:
    old = workdir / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 11.22'\n")
    old.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        patch.setattr("mipyme_backup.sources.postgresql.tools.FOLDERS", ())
        with pytest.raises(PreflightError) as caught:
            preflight("default", settings_dict, bin_dir=workdir)
    assert str(postgresql_server.major) in str(caught.value)
    assert f"11.22 ({workdir})" in str(caught.value)
    assert f"postgresql-client-{postgresql_server.major}" in str(caught.value.hint)


def test_a_server_that_does_not_answer_is_a_clear_error(settings_dict: dict[str, Any]) -> None:
    with pytest.raises(PreflightError, match="cannot be reached") as caught:
        preflight("default", {**settings_dict, "PORT": "1"})
    assert settings_dict["PASSWORD"] not in str(caught.value)


def children() -> list[str]:
    """The ids of the processes that this one started, as text."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() + [
        pid
        for thread in Path("/proc/self/task").iterdir()
        if thread.name != str(os.getpid())
        for pid in (thread / "children").read_text().split()
    ]


class Bytes:
    """A reader of bytes at hand, in small pieces, so that marks fall between two reads."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int, /) -> bytes:
        data, self._content = self._content[:301], self._content[301:]
        return data

    def close(self) -> None:
        pass
