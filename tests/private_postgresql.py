"""A PostgreSQL server of its own for tests: started from installed programs, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

START_SECONDS = 60
STOP_SECONDS = 60
MEMORY = Path("/dev/shm")
ROOM = 8 << 30
"""Bytes that must be free in memory: a restore has three times a database of 1 GB."""

# A private server outlives neither its owner nor its data: when the owner goes away without a
# word, the guard's stdin ends; it then stops the server and removes the folder.
GUARD = """
read -r _ignored
pid_file="$2/data/postmaster.pid"
[ "$(head -n 1 "$pid_file" 2>/dev/null)" = "$1" ] && kill -INT "$1"
while [ -e "$pid_file" ] && kill -0 "$1" 2>/dev/null; do sleep 0.1; done
rm -rf "$2"
"""


class StartError(Exception):
    """The server does not start; carries the end of what it said."""


@contextlib.contextmanager
def running_postgresql(bin_dir: Path) -> Iterator[tuple[int, str]]:
    """Yield (port, superuser's password) of a new server of the programs in `bin_dir`.

    It listens on 127.0.0.1 and on a socket in its folder, which lies in memory where there is
    room, otherwise below ``/tmp``; the superuser is `postgres`. Server and folder are gone
    afterwards, also when this process is killed. Raises StartError.
    """
    # Not below TMPDIR: the name of a socket may have 107 bytes, and the server, which refuses
    # to run as root, must be able to reach its folder.
    folder = Path(mkdtemp(prefix="mipyme_backup_postgresql_", dir=_roomy_place()))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        password = secrets.token_urlsafe(16)
        programs = _runnable(bin_dir, folder)
        _initialise(programs, folder, password)
        yield _listen(stack, programs, folder), password


def _roomy_place() -> Path:
    """Return where to put a server: each new database is some three hundred new files."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
        found = os.statvfs(MEMORY)
        may_run = not found.f_flag & os.ST_NOEXEC  # the programs may be copied there
        if may_run and found.f_bavail * found.f_frsize >= ROOM:
            return MEMORY
    return Path("/tmp")


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
        return _copied(bin_dir, folder / "programs", account)
    return bin_dir


def _copied(bin_dir: Path, target: Path, account: dict[str, Any]) -> Path:
    """Copy the wheel's programs, with the libraries that they look for beside the wheel."""
    installation = bin_dir.parent
    package = installation.parent
    copy = target / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):  # the guard, which runs as them, removes them
        os.chown(path, account["user"], account["group"], follow_symlinks=False)
    return copy / bin_dir.name


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
    argv: list[str | Path] = [
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
        raise StartError(f"initdb failed: {made.stdout[-1000:]}{made.stderr[-1000:]}")


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C.UTF-8"}


def _listen(stack: contextlib.ExitStack, programs: Path, folder: Path) -> int:
    """Start the server, to be stopped when `stack` closes; return its port."""
    for _attempt in range(5):
        port = _free_port()
        process = _start(programs, folder, port)
        stack.callback(_stop, process, _guard(process, folder))
        if _answers(process, folder, port):
            return port
        # Another process, most likely a parallel worker's server, was faster to take the port.
    raise StartError(f"PostgreSQL does not start: {_log_tail(folder)}")


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
    argv: list[str | Path] = [programs / "postgres", "-D", folder / "data"]
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
            raise StartError(f"PostgreSQL on port {port} is not ready: {_log_tail(folder)}")
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
