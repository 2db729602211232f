"""A backup is one moment, and a restore swaps at one moment, while others never stop to write.

Writers move money between accounts: the balances sum up to the same, and each of them is what
its transfers say. A backup that reads two tables at two moments breaks that.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.e2e import writer
from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.services import PostgreSQLServer

WRITERS = 3
CHURN_SECONDS = 6
TOTAL = 50 * 1000
# The order of names lets the accounts be read before the bulk, the transfers after it.
BULK = (
    "CREATE TABLE zoo_bulk AS WITH RECURSIVE series (n) AS"
    " (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < 40000)"
    " SELECT n, {noise} AS noise FROM series"
)
NOISE = {
    "sqlite": "hex(randomblob(300))",
    "postgresql": (
        "(SELECT string_agg(md5(concat(series.n, i)), '') FROM generate_series(1, 18) AS i)"
    ),
}
WRONG_BALANCES = """
    SELECT a.id FROM zoo_account a WHERE a.balance <> 1000
        + (SELECT coalesce(sum(amount), 0) FROM zoo_transfer WHERE receiver_id = a.id)
        - (SELECT coalesce(sum(amount), 0) FROM zoo_transfer WHERE sender_id = a.id)
"""


class Writing:
    """The promises; each engine's class below says where `project` lives."""

    def test_backup_under_writes_is_one_moment(self, project: Project) -> None:
        other = f"{project.database['NAME']}_other"
        with writers(project):
            before = _transfers(project)
            report = project.backup("--only", "database")
            after = _transfers(project)
        project.restore(report["id"], "--to-database", other)

        assert before < _transfers(project, other) < after
        assert _broken(project, other) == []

    def test_restore_under_writes_swaps_at_one_moment(self, project: Project) -> None:
        report = project.backup("--only", "database")
        saved = _transfers(project)
        with writers(project):
            _wait_for_more(project, saved + 50)
            restored = project.restore(report["id"])
            # They found their way to what was restored, and go on there.
            _wait_for_more(project, _transfers(project) + 50)

        assert _broken(project) == []
        replaced = restored["replaced"]["database:default"]
        assert _broken(project, replaced) == []
        assert _transfers(project, replaced) > saved + 50
        self.check_downtime(restored["downtime_seconds"], restored["seconds"])

    def test_safety_backup_under_writes_is_one_moment(self, project: Project) -> None:
        other = f"{project.database['NAME']}_other"
        report = project.backup("--only", "database")
        with writers(project):
            saved = _transfers(project)
            restored = project.restore(report["id"])
        project.restore(restored["safety_backup"], "--to-database", other)

        assert _transfers(project, other) > saved
        assert _broken(project, other) == []

    def test_undo_under_writes_swaps_at_one_moment(self, project: Project) -> None:
        report = project.backup("--only", "database")
        project.restore(report["id"])
        with writers(project):
            _wait_for_more(project, _transfers(project) + 50)
            project.manage("restore", "--undo", "--no-input")
            _wait_for_more(project, _transfers(project) + 50)

        assert _broken(project) == []

    def check_downtime(self, seconds: float, whole: float) -> None:
        assert 0 <= seconds < whole


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with sqlite_project(tmp_path_factory.mktemp("sqlite")) as project:
        _fill(project)
        yield project


@pytest.fixture(scope="module")
def on_postgresql(
    postgresql_server: PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    with postgresql_project(tmp_path_factory.mktemp("postgresql"), postgresql_server) as project:
        _fill(project)
        yield project


class TestSQLite(Writing):
    @pytest.fixture(params=["wal", "delete"])
    def project(self, request: pytest.FixtureRequest, on_sqlite: Project, workdir: Path) -> Project:
        project = on_sqlite.clone(workdir)
        project.execute(f"PRAGMA journal_mode = {request.param}")
        return project


class TestPostgreSQL(Writing):
    @pytest.fixture
    def project(self, on_postgresql: Project, workdir: Path) -> Project:
        return on_postgresql.clone(workdir)

    def check_downtime(self, seconds: float, whole: float) -> None:
        assert 0 < seconds < whole / 5

    def test_table_that_is_truncated_and_filled_again_is_whole(self, project: Project) -> None:
        """Without locks a snapshot sees the truncated table empty, and a dump loses its rows."""
        other = f"{project.database['NAME']}_other"
        project.execute("CREATE TABLE zoo_refilled AS SELECT n FROM generate_series(1, 500) AS n")
        statement = (
            "BEGIN; TRUNCATE zoo_refilled;"
            " INSERT INTO zoo_refilled SELECT generate_series(1, 500); COMMIT"
        )
        with repeating(project, statement):
            report = project.backup("--only", "database")
        project.restore(report["id"], "--to-database", other)

        assert project.execute("SELECT count(*) FROM zoo_refilled", name=other) == [(500,)]

    def test_tables_that_come_and_go_do_not_break_a_backup(self, project: Project) -> None:
        statement = (
            "CREATE TABLE zoo_passing (id serial PRIMARY KEY, n int REFERENCES zoo_account);"
            " INSERT INTO zoo_passing (n) VALUES (1); DROP TABLE zoo_passing"
        )
        with repeating(project, statement), writers(project):
            report = project.backup("--only", "database")

        assert report["status"] == "complete"
        other = f"{project.database['NAME']}_other"
        project.restore(report["id"], "--to-database", other)
        assert _broken(project, other) == []


@contextlib.contextmanager
def writers(project: Project) -> Iterator[None]:
    """Let `WRITERS` processes write for the length of the block; raise if one gave up."""
    kind = "sqlite" if project.server is None else "postgresql"
    argv = [sys.executable, str(Path(writer.__file__)), kind]
    processes = [_start(project, argv) for _ in range(WRITERS)]
    try:
        _wait_for_more(project, _transfers(project) + 20)
        yield
        assert [process.poll() for process in processes] == [None] * WRITERS
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def repeating(project: Project, statement: str) -> Iterator[None]:
    """Let a process of its own run `statement` over and over for `CHURN_SECONDS`.

    A backup gives way to who waits for a lock behind it and tries again: it succeeds when the
    locks leave it alone, which they must do in the end.
    """
    code = (
        "import os, sys, time, psycopg\n"
        "end = time.monotonic() + float(sys.argv[2])\n"
        "with psycopg.connect(os.environ['DSN'], autocommit=True) as connection:\n"
        "    while time.monotonic() < end:\n"
        "        connection.execute(sys.argv[1])\n"
    )
    process = _start(project, [sys.executable, "-c", code, statement, str(CHURN_SECONDS)])
    try:
        yield
        assert process.wait(CHURN_SECONDS) == 0, process.communicate()[1].decode()
    finally:
        process.kill()
        process.communicate()


def _start(project: Project, argv: list[str]) -> subprocess.Popen[bytes]:
    environment = {**project.environment(), "DSN": _dsn(project)}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def _dsn(project: Project) -> str:
    if project.server is None:
        return str(project.database["NAME"])
    return psycopg.conninfo.make_conninfo(
        host=project.database["HOST"],
        port=project.database["PORT"],
        user=project.database["USER"],
        password=project.database["PASSWORD"],
        dbname=project.database["NAME"],
    )


def _fill(project: Project) -> None:
    project.manage("migrate", "--verbosity=0")
    noise = NOISE["sqlite" if project.server is None else "postgresql"]
    project.execute(BULK.format(noise=noise))
    for number in range(1, 51):
        project.execute(f"INSERT INTO zoo_account (id, balance) VALUES ({number}, 1000)")


def _transfers(project: Project, name: str | None = None) -> int:
    count: int = project.execute("SELECT count(*) FROM zoo_transfer", name=name)[0][0]
    return count


def _wait_for_more(project: Project, count: int) -> None:
    """Wait until there are more than `count` transfers; raises after a minute."""
    deadline = time.monotonic() + 120
    while _transfers(project) <= count:
        assert time.monotonic() < deadline, "the writers do not write"
        time.sleep(0.02)


def _broken(project: Project, name: str | None = None) -> list[str]:
    """Return what does not hold of the accounts and transfers."""
    broken = []
    total = project.execute("SELECT sum(balance) FROM zoo_account", name=name)[0][0]
    if total != TOTAL:
        broken.append(f"the balances sum up to {total}")
    wrong = project.execute(WRONG_BALANCES, name=name)
    return broken + [f"account {number} is not what its transfers say" for (number,) in wrong]
