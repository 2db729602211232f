"""A private SSH server on loopback for tests: own keys, own configuration, gone afterwards."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

START_SECONDS = 60
STOP_SECONDS = 60
PLACES = f"/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:{os.environ.get('PATH', os.defpath)}"
"""Where programs of the system lie that are not on everybody's PATH."""

# Without a separate folder an empty one, which root's server insists on, is made by a service.
SEPARATION_FOLDER = Path("/run/sshd")

# The guard's stdin ends when the tests go away without a word; it then ends the server.
GUARD = """
read -r _ignored
[ "$(cat "$2/pid" 2>/dev/null)" = "$1" ] && kill "$1"
rm -rf "$2"
"""

# At this level bash leaves out the user's .bashrc, which may be slow, and may print.
CONFIGURATION = """
ListenAddress 127.0.0.1
Port {port}
PidFile {folder}/pid
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
PrintMotd no
SetEnv SHLVL=2
MaxStartups 50
Subsystem sftp internal-sftp
"""


class ServerMissingError(Exception):
    """This machine lacks a program that the server, or its guest, needs; says which."""


@dataclass(frozen=True, kw_only=True)
class SSHServer:
    """A server that listens on `host`:`port` and lets `user` in with `identity_file`."""

    host: str
    port: int
    user: str
    folder: Path
    pid: int
    identity_file: Path
    known_hosts_file: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def identity(self, forced_command: str) -> Path:
        """Return the private key of an account that may run nothing but `forced_command`."""
        key = self.folder / f"identity_{next(self._numbers)}"
        _authorise(self.folder, key, forced_command)
        return key

    @contextlib.contextmanager
    def shared_connection(self, identity_file: Path) -> Iterator[Path]:
        """Yield the socket (ssh's ControlPath) of a connection that stays open.

        What goes through it is spared a key exchange, which takes most of the time of a small
        transfer.
        """
        control_path = identity_file.with_name(f"{identity_file.name}.socket")
        argv = ["ssh", "-F", "none", "-M", "-N", "-S", str(control_path), "-p", str(self.port)]
        argv += ["-i", str(identity_file), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        argv += ["-o", f"UserKnownHostsFile={self.known_hosts_file}"]
        process = subprocess.Popen([*argv, f"{self.user}@{self.host}"], stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not control_path.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ServerMissingError(f"no connection to sshd: {self.log()[-2000:]}")
                time.sleep(0.02)
            yield control_path
        finally:
            _end(process)

    def session_processes(self) -> dict[int, str]:
        """Return the processes of the connections open now, and their programs by process id.

        A child comes after its parent.
        """
        return _descendants(self.pid)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def missing() -> str:
    """Return why no server can be had here, or nothing."""
    wanted = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync"}
    packages = [package for tool, package in wanted.items() if program(tool) is None]
    return f"install the Debian package {' and '.join(packages)}" if packages else ""


@contextlib.contextmanager
def running_sshd() -> Iterator[SSHServer]:
    """Yield a new server for the user who runs the tests; raises ServerMissingError."""
    if reason := missing():
        raise ServerMissingError(reason)
    folder = Path(mkdtemp(prefix="mipyme_backup_sshd_", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        make_key(folder / "host_key")
        _authorise(folder, folder / "identity", "")
        if os.geteuid() == 0:
            SEPARATION_FOLDER.mkdir(mode=0o755, exist_ok=True)
        port = _start(stack, folder)
        (folder / "known_hosts").write_text(known_hosts_line(port, folder / "host_key.pub"))
        yield SSHServer(
            host="127.0.0.1",
            port=port,
            user=getpass.getuser() if os.geteuid() else "root",
            folder=folder,
            pid=int((folder / "pid").read_text()),
            identity_file=folder / "identity",
            known_hosts_file=folder / "known_hosts",
        )


def make_key(file: Path) -> None:
    """Make a key pair without a passphrase: `file` and, beside it, its ``.pub``."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", file],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def known_hosts_line(port: int, public_key: Path) -> str:
    """Return the line that pins `public_key` for the loopback server on `port`."""
    return f"[127.0.0.1]:{port} {public_key.read_text()}"


def _authorise(folder: Path, key: Path, forced_command: str) -> None:
    make_key(key)
    options = f'restrict,command="{forced_command}" ' if forced_command else ""
    with (folder / "authorized_keys").open("a") as keys:
        keys.write(options + key.with_name(f"{key.name}.pub").read_text())


def _start(stack: contextlib.ExitStack, folder: Path) -> int:
    """Start the server on a free port, which somebody else may take first: then on another."""
    server = program("sshd")
    assert server is not None
    for _attempt in range(5):
        port = _free_port()
        (folder / "configuration").write_text(CONFIGURATION.format(port=port, folder=folder))
        process = subprocess.Popen(
            [server, "-D", "-f", folder / "configuration", "-E", folder / "log"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        if _answers(process, folder):
            stack.callback(_end, process)
            _guard(stack, process, folder)
            return port
    raise ServerMissingError(f"sshd does not start: {(folder / 'log').read_text()[-2000:]}")


def _answers(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait until the server listens; return False when it ended instead."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / "pid").exists() and (folder / "pid").read_text().strip():
            return True
        time.sleep(0.02)
    _end(process)
    return False


def _guard(stack: contextlib.ExitStack, process: subprocess.Popen[bytes], folder: Path) -> None:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "guard", str(process.pid), str(folder)],
        stdin=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )

    def stop() -> None:
        guard.kill()
        guard.wait()
        assert guard.stdin is not None
        guard.stdin.close()

    stack.callback(stop)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _descendants(pid: int) -> dict[int, str]:
    rows = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            head, _, tail = status.read_text(errors="replace").rpartition(")")
            child, _, program = head.partition(" (")
            rows.append((child, tail.split()[1], program))
    found = {pid: ""}
    while below := {
        int(child): program
        for child, parent, program in rows
        if int(parent) in found and int(child) not in found
    }:
        found |= below
    del found[pid]
    return found


def program(name: str) -> str | None:
    """Return where the program lies, on PATH or in the system's own places."""
    return shutil.which(name, path=PLACES)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
