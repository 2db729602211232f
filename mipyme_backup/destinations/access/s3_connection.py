"""Connections for botocore's client, on which an answer is whole, or an error, and in time.

What is mended here:

- `read_timeout` is about silence. A byte now and then keeps it from passing, and a volume at a byte
  a second would take years, with the run's lock held.
- An answer that is cut off within its head counts for the standard library's parser as one with
  fewer lines: a size without its last digits, a listing without a body.
- Botocore waits for ever for the rest of a ``100 Continue`` that is cut off.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import socket
import time
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

from mipyme_backup.messages import Message, _

SLOWEST = 100
"""Bytes a second; an answer that comes more slowly counts as none."""
WINDOWS = 2
"""Over so many times the client's `read_timeout` the pace is measured."""


def harden(client: Any) -> None:
    """Have the client of botocore raise its errors of the connection for such answers."""
    # Botocore has no public way to its connections. Where this one is barred some day, answers
    # are what they were without us.
    with contextlib.suppress(AttributeError):
        client._endpoint.http_session._pool_classes_by_scheme.update(http=_Pool, https=_SecurePool)


class _Paced(io.RawIOBase):
    """What a socket receives; raises TimeoutError where that takes longer than it may.

    Only the time that is waited here counts: whoever reads may take a rest.
    """

    def __init__(self, raw: io.RawIOBase, seconds: float) -> None:
        super().__init__()
        self.ended = False
        self._raw = raw
        self._window = seconds
        self._waited = 0.0
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:  # type: ignore[override]
        began = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - began
        self._count += count or 0
        self.ended = count == 0
        if self._waited > self._window and not self.ended:
            if self._count < SLOWEST * self._waited:
                text = _("%(count)d bytes came in %(seconds)d s")
                raise TimeoutError(Message(text, {"count": self._count, "seconds": self._waited}))
            self._waited, self._count = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        silence = sock.gettimeout()
        seconds = math.inf if silence is None else WINDOWS * silence
        self._paced = _Paced(self.fp.detach(), seconds)
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        super().begin()
        if self._paced.ended:
            raise ConnectionResetError(_("the answer was cut off within its head"))


class _Continued:
    """A mixin: the wait for the server's word that the body may come has an end."""

    def _consume_headers(self, fp: Any) -> None:
        while (line := fp.readline()) != b"\r\n":
            if not line:
                raise ConnectionResetError(
                    _("the connection was cut before the body could be sent")
                )


class _Connection(_Continued, AWSHTTPConnection):  # type: ignore[misc]
    response_class = _Answer


class _SecureConnection(_Continued, AWSHTTPSConnection):  # type: ignore[misc]
    response_class = _Answer


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _SecureConnection
