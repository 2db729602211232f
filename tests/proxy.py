"""A TCP proxy on loopback that cuts, stalls, slows or garbles connections, or answers, by plan."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Way = Literal["up", "down"]
Action = Literal["cut", "reset", "stall", "trickle", "garble", "answer"]

CHUNK = 16 * 1024
ANSWER = """HTTP/1.1 {status} Planned\r
Content-Type: application/xml\r
Content-Length: {length}\r
Connection: close\r
\r
{body}"""
BODY = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>planned</Message></Error>"
ABORT = struct.pack("ii", 1, 0)
"""With this as SO_LINGER, closing a socket sends a reset, not an end."""


@dataclass(kw_only=True)
class Fault:
    """What happens to a connection once `after` bytes went this `way`, or at a `request`.

    ``cut`` closes it, ``reset`` closes it as a host does that knows of no connection, ``stall``
    keeps it open and passes nothing on, ``trickle`` passes one byte a second from then on,
    ``garble`` passes this once other bytes, ``answer`` gives an HTTP answer in place of the
    server's: `body` with `status`, by default an error of S3 with this `code`. `request` is a
    pattern of the first line of an HTTP request. It happens `times` times; `happened` counts.
    """

    action: Action
    way: Way = "up"
    after: int = 0
    request: str = ""
    status: int = 503
    code: str = "SlowDown"
    body: str | None = None
    times: int = 1
    happened: int = 0


class Proxy:
    """Passes what reaches `port` on to the server; `faults` and `rate` may be set at any time.

    `rate` is in bytes a second and way; None is as fast as can be. `passed` counts the bytes that
    have come each way since the last plan.
    """

    def __init__(self, server_port: int) -> None:
        self.faults: list[Fault] = []
        self.rate: int | None = None
        self._server_port = server_port
        self.passed: dict[Way, int] = {"up": 0, "down": 0}
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def plan(self, *faults: Fault) -> None:
        """Forget what has passed; from now on these faults are due."""
        with self._lock:
            self.passed = {"up": 0, "down": 0}
            self.faults = [*faults]

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except ConnectionRefusedError:  # it is gone, and may come back
                    client.close()
                    continue
                self._open += [client, server]
                for ends in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def close(self) -> None:
        for end in (self._listener, *self._open):
            _close(end)

    def _pass(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        with contextlib.suppress(OSError, ValueError):  # the latter of a socket that was closed
            while data := _received(source):
                fault, before = self._due(way, data)
                target.sendall(data[:before])
                data = data[before:]
                if fault is None:
                    if self.rate:
                        time.sleep(before / self.rate)
                elif fault.action == "stall":
                    return
                elif fault.action == "trickle":
                    _trickle(data, source, target)
                elif fault.action == "garble":
                    target.sendall(bytes(byte ^ 0x55 for byte in data))
                elif fault.action == "answer":
                    _answer(fault, source)
                    break
                else:
                    if fault.action == "reset":
                        for end in (source, target):
                            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                            end.close()
                    break
        _close(source)
        _close(target)

    def _due(self, way: Way, data: bytes) -> tuple[Fault | None, int]:
        """Return the fault that happens to this data, and how much of it passes before."""
        with self._lock:
            passed = self.passed[way]
            self.passed[way] += len(data)
            for fault in self.faults:
                if fault.way != way or not fault.times or self.passed[way] <= fault.after:
                    continue
                line = data.partition(b"\r\n")[0].decode("latin-1")
                if not fault.request or re.search(fault.request, line):
                    fault.times -= 1
                    fault.happened += 1
                    return fault, max(0, fault.after - passed)
        return None, len(data)


@contextlib.contextmanager
def proxy(server_port: int) -> Iterator[Proxy]:
    """Yield a proxy before the server that listens on 127.0.0.1 at this port."""
    running = Proxy(server_port)
    thread = threading.Thread(target=running.serve, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.close()
        thread.join()


def _received(source: socket.socket) -> bytes:
    # A reset is sent once nobody waits for the socket any more, so nobody waits for long.
    while not select.select([source], [], [], 0.1)[0]:
        pass
    return source.recv(CHUNK)


def _answer(fault: Fault, client: socket.socket) -> None:
    body = BODY.format(code=fault.code) if fault.body is None else fault.body
    text = ANSWER.format(status=fault.status, length=len(body), body=body)
    client.sendall(text.encode())
    client.shutdown(socket.SHUT_WR)
    while client.recv(CHUNK):  # or the answer is lost with what was not read
        pass


def _trickle(data: bytes, source: socket.socket, target: socket.socket) -> None:
    while data:
        for byte in data:
            target.sendall(bytes((byte,)))
            time.sleep(1)
        data = source.recv(1)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
