"""A pooler before the server: what is set in a session, the site's clients would get."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_django import DjangoDbBlocker

from mipyme_backup.errors import PoolerError
from mipyme_backup.sources.postgresql import (
    InPlaceTarget,
    PostgreSQLSnapshot,
    preflight,
)
from mipyme_backup.sources.postgresql.advisory import AdvisoryLock
from mipyme_backup.sources.postgresql.server import maintenance
from tests.e2e.project import Project, postgresql_project
from tests.pooler import pgbouncer, pooler
from tests.services import PostgreSQLServer
from tests.sshd import program

REAL = [
    pytest.mark.rare,
    pytest.mark.skipif(program("pgbouncer") is None, reason="pgbouncer is not installed"),
]
POOLERS = [
    "small",
    pytest.param("transaction", marks=REAL),
    pytest.param("session", marks=REAL),
]


@pytest.fixture(autouse=True)
def _real_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture(params=POOLERS)
def pooled(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, workdir: Path
) -> Iterator[int]:
    """The port of a pooler before `postgresql_server`."""
    (workdir / "pooler").mkdir()
    with (
        pooler(postgresql_server)
        if request.param == "small"
        else pgbouncer(postgresql_server, workdir / "pooler", request.param)
    ) as port:
        yield port


@contextlib.contextmanager
def unchanged(settings_dict: dict[str, Any]) -> Iterator[None]:
    """Assert of what the site gets through the pooler that the block changes none of it."""
    before = what_a_client_gets(settings_dict)
    yield
    assert what_a_client_gets(settings_dict) ^ before == set()


def what_a_client_gets(settings_dict: dict[str, Any]) -> set[tuple[Any, ...]]:
    """Return the settings of the sessions, and the advisory locks that they hold.

    Django itself sets the time zone, which PgBouncer keeps for each client apart.
    """
    connection = psycopg.connect(
        host="127.0.0.1",
        port=settings_dict["PORT"],
        user=settings_dict["USER"],
        password=settings_dict["PASSWORD"],
        dbname=settings_dict["NAME"],
        application_name="site",
        autocommit=True,
    )
    with connection:
        settings = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name != 'TimeZone'"
        ).fetchall()
        locks = connection.execute(
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        )
        return {*settings, *locks.fetchall()}


def lock(settings_dict: dict[str, Any], _bin_dir: Path) -> None:
    with AdvisoryLock("default", settings_dict)(secrets.randbits(60), "name"):
        pass


def open_snapshot(settings_dict: dict[str, Any], bin_dir: Path) -> None:
    PostgreSQLSnapshot("default", settings_dict, bin_dir=bin_dir).close()


def preflight_backup(settings_dict: dict[str, Any], bin_dir: Path) -> None:
    preflight("default", settings_dict, bin_dir=bin_dir)


def open_maintenance(settings_dict: dict[str, Any], _bin_dir: Path) -> None:
    with maintenance("default", settings_dict, apart_from=()):
        pass


def prepare_in_place(settings_dict: dict[str, Any], bin_dir: Path) -> None:
    InPlaceTarget.prepare(
        alias="default", settings_dict=settings_dict, restore_id="1", facts={}, bin_dir=bin_dir
    )


@pytest.mark.parametrize(
    "use", [lock, open_snapshot, preflight_backup, open_maintenance, prepare_in_place]
)
def test_pooler_is_refused_before_anything_is_set(
    use: Callable[[dict[str, Any], Path], None],
    pooled: int,
    postgresql_server: PostgreSQLServer,
    postgresql_database: str,
) -> None:
    settings_dict = postgresql_server.settings(postgresql_database, PORT=str(pooled))

    with (
        unchanged(settings_dict),
        unchanged({**settings_dict, "NAME": "postgres"}),
        pytest.raises(PoolerError) as caught,
    ):
        use(settings_dict, postgresql_server.bin_dir)

    assert f"/{pooled}/" in str(caught.value)
    assert '"connections": {"default": {"HOST":' in str(caught.value.hint)


@pytest.fixture
def project(pooled: int, postgresql_server: PostgreSQLServer, tmp_path: Path) -> Iterator[Project]:
    """A populated project whose site reaches the server through the pooler."""
    with postgresql_project(tmp_path, postgresql_server, superuser=True) as made:
        made.populate()
        made.database["PORT"] = str(pooled)
        made.write()
        yield made


def test_site_goes_on_behind_a_pooler_and_each_command_says_what_to_do(project: Project) -> None:
    commands = ("backup", "prune_backups", "restore_drill", "restore --latest --no-input")

    with unchanged(project.database), unchanged({**project.database, "NAME": "postgres"}):
        checked = project.manage("check", "--deploy")
        tried = [project.manage(*command.split(), check=False) for command in commands]

    assert "mipyme_backup.W002" in checked.stderr
    for result in (checked, *tried):
        said = result.stdout + result.stderr
        assert said.count("A connection pooler stands before the database default") == 1
        assert said.count('"connections": {"default": {"HOST":') == 1
        assert "No lock" not in said
        assert "Traceback" not in said
    assert {result.returncode for result in tried} == {1}
    assert project.execute("SELECT count(*) FROM auth_user")


def test_backup_reaches_the_server_that_connections_names(project: Project) -> None:
    assert project.server is not None
    direct = {"HOST": project.server.host, "PORT": str(project.server.port)}
    database = {
        "BACKEND": "mipyme_backup.sources.DatabaseSource",
        "OPTIONS": {"connections": {"default": direct}},
    }
    project.backup_settings["SOURCES"] = {"database": database}
    project.write()

    with unchanged(project.database), unchanged({**project.database, "NAME": "postgres"}):
        assert project.backup()["status"] == "complete"
