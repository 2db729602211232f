"""A TCP proxy on loopback that cuts, stalls or slows connections, or answers them, by plan."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Way = Literal["up", "down"]

CHUNK = 16 * 1024
ANSWER = """HTTP/1.1 {status} Planned\r
Content-Type: application/xml\r
Content-Length: {length}\r
Connection: close\r
\r
{body}"""
BODY = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>planned</Message></Error>"


@dataclass(kw_only=True)
class Fault:
    """What happens to a connection once `after` bytes went this `way`, or at a `request`.

    ``cut`` closes it, ``stall`` keeps it open and passes nothing on, ``answer`` gives an HTTP
    answer in place of the server's. `request` is a pattern of the first line of an HTTP request.
    It happens `times` times.
    """

    action: Literal["cut", "stall", "answer"]
    way: Way = "up"
    after: int = 0
    request: str = ""
    status: int = 503
    code: str = "SlowDown"
    times: int = 1


class Proxy:
    """Passes what reaches `port` on to the server; `faults` and `rate` may be set at any time.

    `rate` is in bytes a second and way; None is as fast as can be.
    """

    def __init__(self, server_port: int) -> None:
        self.faults: list[Fault] = []
        self.rate: int | None = None
        self._server_port = server_port
        self._passed = {"up": 0, "down": 0}
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def plan(self, *faults: Fault) -> None:
        """Forget what has passed; from now on these faults are due."""
        with self._lock:
            self._passed = {"up": 0, "down": 0}
            self.faults = [*faults]

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                for way in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._pass, args=way, daemon=True).start()

    def close(self) -> None:
        for end in (self._listener, *self._open):
            _close(end)

    def _pass(
        self, source: socket.socket, target: socket.socket, way: Literal["up", "down"]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                fault = self._due(way, data)
                if fault is None:
                    target.sendall(data)
                    if self.rate:
                        time.sleep(len(data) / self.rate)
                elif fault.action == "stall":
                    return
                elif fault.action == "cut":
                    break
                else:
                    body = BODY.format(code=fault.code)
                    text = ANSWER.format(status=fault.status, length=len(body), body=body)
                    source.sendall(text.encode())
                    source.shutdown(socket.SHUT_WR)
                    while source.recv(CHUNK):  # or the answer is lost with what was not read
                        pass
                    break
        _close(source)
        _close(target)

    def _due(self, way: str, data: bytes) -> Fault | None:
        with self._lock:
            self._passed[way] += len(data)
            for fault in self.faults:
                if fault.way != way or not fault.times or self._passed[way] <= fault.after:
                    continue
                line = data.partition(b"\r\n")[0].decode("latin-1")
                if not fault.request or re.search(fault.request, line):
                    fault.times -= 1
                    return fault
        return None


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


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
