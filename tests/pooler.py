"""Poolers in transaction mode: each transaction of a client runs in whichever session is free.

`pooler` is a small one that needs nothing installed and has one session for each role and
database, so what one client sets there the next one gets. `pgbouncer` runs the real program.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.services import PostgreSQLServer
from tests.sshd import program

START_SECONDS = 30
# https://www.postgresql.org/docs/current/protocol-message-formats.html
ENCRYPTION_REQUESTS = frozenset({80877103, 80877104})
ANSWERED_BY_CLIENT = frozenset({3, 10, 11})
"""Kinds of authentication messages that the client answers: a password, SASL and what follows."""
ROLLBACK = b"Q" + struct.pack("!i", 13) + b"ROLLBACK\0"

CONFIGURATION = """\
[databases]
* = host={server.host} port={server.port} user={server.user} password={server.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 1
ignore_startup_parameters = options,extra_float_digits
"""


@dataclass
class _Session:
    """A connection to the server; `free` is held while a transaction of a client runs in it."""

    stream: BinaryIO
    free: threading.Lock = field(default_factory=threading.Lock)


class Pooler:
    """Lets each client log in to the server, then gives it the session of the first such client."""

    def __init__(self, server: PostgreSQLServer) -> None:
        self._server = server
        self._sessions: dict[bytes, _Session] = {}
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._open.append(client)
                threading.Thread(target=self._attend, args=[client], daemon=True).start()

    def close(self) -> None:
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _attend(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client, _stream(client) as stream:
            startup = _startup(stream)
            own = socket.create_connection((self._server.host, self._server.port))
            self._open.append(own)
            session = _Session(_stream(own))
            session.stream.write(startup)
            _log_in(stream, session.stream)
            parameters = startup[8:].split(b"\0")
            named = dict(zip(parameters[::2], parameters[1::2], strict=False))
            key = named[b"user"] + b"\0" + named[b"database"]
            with self._lock:
                shared = self._sessions.setdefault(key, session)
            if shared is not session:
                session.stream.close()
                own.close()
            _pass_transactions(stream, shared)


def _stream(end: socket.socket) -> BinaryIO:
    return end.makefile("rwb", buffering=0)  # type: ignore[return-value]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _message(stream: BinaryIO) -> bytes:
    head = _exactly(stream, 5)
    return head + _exactly(stream, struct.unpack("!i", head[1:])[0] - 4)


def _startup(client: BinaryIO) -> bytes:
    """Return the message with which a session begins, after the refusal of encryption."""
    while True:
        head = _exactly(client, 8)
        size, code = struct.unpack("!ii", head)
        if code not in ENCRYPTION_REQUESTS:
            return head + _exactly(client, size - 8)
        client.write(b"N")


def _log_in(client: BinaryIO, server: BinaryIO) -> None:
    while True:
        message = _message(server)
        client.write(message)
        if message[:1] == b"Z":
            return
        if message[:1] == b"E":
            raise EOFError
        if message[:1] == b"R" and struct.unpack("!i", message[5:9])[0] in ANSWERED_BY_CLIENT:
            server.write(_message(client))


def _pass_transactions(client: BinaryIO, session: _Session) -> None:
    held = False
    try:
        while (message := _message(client))[:1] != b"X":
            if not held:
                session.free.acquire()
                held = True
            session.stream.write(message)
            if message[:1] in b"QS" and _answer(session.stream, client) == b"I":
                session.free.release()
                held = False
    finally:
        if held:
            session.stream.write(ROLLBACK)
            _answer(session.stream, None)
            session.free.release()


def _answer(server: BinaryIO, client: BinaryIO | None) -> bytes:
    """Pass an answer on to its end; return whether the session is in a transaction after it."""
    while True:
        message = _message(server)
        if client is not None:
            client.write(message)
        if message[:1] == b"Z":
            return message[5:6]


@contextlib.contextmanager
def pooler(server: PostgreSQLServer) -> Iterator[int]:
    """Yield the port of a small pooler before `server`."""
    running = Pooler(server)
    thread = threading.Thread(target=running.serve, daemon=True)
    thread.start()
    try:
        yield running.port
    finally:
        running.close()
        thread.join()


@contextlib.contextmanager
def pgbouncer(server: PostgreSQLServer, folder: Path, mode: str = "transaction") -> Iterator[int]:
    """Yield the port of a PgBouncer before `server`, all of whose clients are its superuser.

    `folder` is for its configuration and log.
    """
    path = program("pgbouncer")
    assert path is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(server=server, port=port, mode=mode))
    account = [] if os.geteuid() else ["-u", "nobody"]  # it refuses to run as root
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(
            [path, *account, configuration], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait_for(process, port, folder / "pgbouncer.log")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
