"""The servers that other tests build on are what they say, and go away when they are done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

from tests import services
from tests.services import PostgreSQLServer

needs_private_server = pytest.mark.skipif(
    services.postgresql_majors() == [None] or services._docker_answers(),
    reason="TEST_POSTGRES_URL is set or Docker answers: no private server is started",
)

OWNER = """
import signal, sys
from tests import services
with services.postgresql(int(sys.argv[1])) as server:
    print(server.execute("SHOW data_directory")[0][0], flush=True)
    signal.pause()
"""


def test_server_and_client_tools_are_of_the_same_major(
    postgresql_server: PostgreSQLServer,
) -> None:
    version = postgresql_server.execute("SHOW server_version_num")[0][0]
    client = subprocess.run(
        [postgresql_server.bin_dir / "pg_dump", "--version"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert int(version) // 10000 == postgresql_server.major
    assert f"(PostgreSQL) {postgresql_server.major}." in client


@needs_private_server
@pytest.mark.parametrize("host", ["127.0.0.1", "socket"])
def test_wrong_password_is_refused(postgresql_server: PostgreSQLServer, host: str) -> None:
    data = Path(postgresql_server.execute("SHOW data_directory")[0][0])
    stranger = replace(
        postgresql_server,
        host=str(data.parent) if host == "socket" else host,
        password="wrong",
    )

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        stranger.execute("SELECT 1")


def test_role_logs_in_and_may_create_databases_only_when_allowed(
    postgresql_server: PostgreSQLServer, postgresql_database: str
) -> None:
    name = f"role {postgresql_database}"
    postgresql_server.create_role(name, "it's 50% ünsafe", createdb=False)
    role = replace(postgresql_server, user=name, password="it's 50% ünsafe")
    try:
        assert role.execute("SELECT current_user", postgresql_database) == [(name,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            role.create_database(f"{postgresql_database}_2")

        postgresql_server.create_role(name, "it's 50% ünsafe", createdb=True)
        role.create_database(f"{postgresql_database}_2")
    finally:
        postgresql_server.drop_database(f"{postgresql_database}_2")
        postgresql_server.drop_role(name)


def test_database_with_sessions_is_dropped(postgresql_server: PostgreSQLServer) -> None:
    name = f'odd "name"; {os.getpid()}'
    postgresql_server.create_database(name)
    with postgresql_server.connect(name) as session:
        postgresql_server.drop_database(name)

        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        postgresql_server.connect(name)


def test_settings_let_django_in(
    postgresql_server: PostgreSQLServer,
    postgresql_database: str,
    django_db_blocker: DjangoDbBlocker,
) -> None:
    connections = ConnectionHandler(
        {"default": postgresql_server.settings(postgresql_database, CONN_MAX_AGE=0)}
    )
    connection = connections["default"]
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        row = cursor.fetchone()
    connection.close()

    assert row == (postgresql_database,)


@needs_private_server
def test_private_server_leaves_nothing_behind() -> None:
    with services.postgresql() as server:
        data = Path(server.execute("SHOW data_directory")[0][0])
        pid = _postmaster(data)
        owner = data.stat().st_uid
        assert _runs(pid)

    assert owner != 0
    assert not _runs(pid)
    assert not data.parent.exists()


@needs_private_server
def test_private_server_ends_when_its_owner_is_killed() -> None:
    major = services.postgresql_majors()[-1]
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(major)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as owner:
        assert owner.stdout is not None
        data = Path(owner.stdout.readline().strip())
        pid = _postmaster(data)
        owner.send_signal(signal.SIGKILL)

    assert _within(120, lambda: not _runs(pid) and not data.parent.exists())


@needs_private_server
def test_two_servers_run_side_by_side() -> None:
    with services.postgresql() as first, services.postgresql() as second:
        first.create_database("only_here")

        assert first.port != second.port
        assert not second.execute("SELECT 1 FROM pg_database WHERE datname = 'only_here'")


@needs_private_server
def test_unknown_major_is_named() -> None:
    with pytest.raises(services.ServiceError, match="no PostgreSQL 9 "), services.postgresql(9):
        pass


def _postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().splitlines()[0])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
