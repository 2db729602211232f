"""One request by https, to an address that was looked at.

The host is resolved once, and the connection goes to what that gave: a name whose answer changes
meanwhile (DNS rebinding) changes nothing. No redirect is followed, and no proxy of the environment
used.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading

from mipyme_backup import https_urls
from mipyme_backup.errors import AlertError
from mipyme_backup.messages import _
from mipyme_backup.monitoring.addresses import is_public

CONNECT_SECONDS = 10.0
ANSWER_SIZE = 64 * 1024


class Exchange:
    """One request and its answer: `run` is for a thread of its own, the rest for who started it.

    With `allow_private` any address will do.
    """

    def __init__(
        self,
        target: https_urls.Target,
        body: bytes,
        content_type: str,
        context: ssl.SSLContext,
        *,
        allow_private: bool,
    ) -> None:
        self._target = target
        self._body = body
        self._content_type = content_type
        self._context = context
        self._allow_private = allow_private
        self._ended = False
        self._guard = threading.Lock()
        self._socket: socket.socket | None = None
        self._status: int | None = None
        self._error: AlertError | None = None

    def run(self) -> None:
        host = self._target.host
        try:
            with self._connected() as raw, self._secured(raw) as secured:
                self._talk(secured)
        except AlertError as error:
            self._error = error
        except ssl.SSLCertVerificationError as error:
            self._error = AlertError(
                _("%(host)s has a certificate that is not to be trusted: %(reason)s"),
                host=host,
                reason=error.verify_message,
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            self._error = AlertError(_("%(host)s: %(reason)s"), host=host, reason=reason)

    def end(self) -> None:
        """Break off what still goes on; a request that has not begun is not made any more."""
        with self._guard:
            self._ended = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Not the method of SSLSocket, which leaves the other thread without TLS.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def judge(self, late: float | None) -> None:
        """Return where the answer's status is good, even if its end was not waited for.

        `late` are the seconds that were waited for an end which did not come.
        """
        host, status = self._target.host, self._status
        if status is None and late is not None:
            raise AlertError(
                _("%(host)s has not answered within %(seconds)g seconds."), host=host, seconds=late
            )
        if status is None:
            raise self._error or AlertError(_("%(host)s has not answered."), host=host)
        if 300 <= status < 400:
            raise AlertError(_("%(host)s redirects, which is not followed."), host=host)
        if not 200 <= status < 300:
            raise AlertError(_("%(host)s answers %(status)d."), host=host, status=status)

    def _addresses(self) -> list[str]:
        """Return the addresses of the host; raises AlertError where one is not public."""
        target = self._target
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AlertError(
                _("%(host)s has an address that is not of the public internet."), host=target.host
            )
        return addresses

    def _connected(self) -> socket.socket:
        failure = OSError(_("no address"))
        for address in self._addresses():
            try:
                raw = socket.create_connection((address, self._target.port), CONNECT_SECONDS)
            except OSError as error:
                failure = error
            else:
                self._keep(raw)
                return raw
        raise failure

    def _secured(self, raw: socket.socket) -> ssl.SSLSocket:
        secured = self._context.wrap_socket(
            raw, server_hostname=self._target.host, do_handshake_on_connect=False
        )
        self._keep(secured)
        try:
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _keep(self, current: socket.socket) -> None:
        """Let `end` reach the connection; where it has been already, there is none any more."""
        with self._guard:
            if self._ended:
                current.close()
                raise TimeoutError
            self._socket = current

    def _talk(self, secured: ssl.SSLSocket) -> None:
        target = self._target
        connection = http.client.HTTPSConnection(target.host, target.port, context=self._context)
        connection.sock = secured  # so that it resolves nothing, and connects nowhere
        headers = {"Content-Type": self._content_type, "User-Agent": "mipyme_backup"}
        connection.request("POST", target.path, body=self._body, headers=headers)
        with connection.getresponse() as response:
            self._status = response.status
            response.read(ANSWER_SIZE)
