"""An https client for URLs that lead out of our network, and nowhere into it.

The host is resolved once, and the connection goes to an address that was looked at: a name whose
answer changes meanwhile (DNS rebinding) changes nothing. No redirect is followed, and no proxy of
the environment used.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading

from mipyme_backup import https_urls
from mipyme_backup.errors import AlertError
from mipyme_backup.messages import _

SECONDS = 10.0
ANSWER_SIZE = 64 * 1024
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def is_public(address: str) -> bool:
    """Say whether an address is one of the public internet, and so is one that it carries."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip.is_site_local:
            return False
    return ip.is_global and not (
        ip.is_private
        or ip.is_loopback
        or ip.is_link_local
        or ip.is_multicast
        or ip.is_reserved
        or ip.is_unspecified
    )


class Client:
    """Posts to https URLs, in `seconds` at most with all that belongs to it.

    `context` is the TLS context, of the system's authorities where there is none. `allow_private`
    is for tests, whose servers are on this machine.
    """

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        context: ssl.SSLContext | None = None,
        allow_private: bool = False,
    ) -> None:
        self._seconds = seconds
        self._context = context
        self._allow_private = allow_private

    def post(self, url: str, body: bytes, content_type: str) -> None:
        """Post `body`; raises AlertError unless the answer's status is 2xx.

        What the error says holds nothing of the URL but the host.
        """
        try:
            target = https_urls.parse(url)
        except ValueError as error:
            raise AlertError(_("The URL cannot be used: %(reason)s."), reason=error) from None
        exchange = _Exchange(
            target,
            body,
            content_type,
            self._context or ssl.create_default_context(),
            allow_private=self._allow_private,
        )
        # Resolving knows no time limit, and an answer may drip: only from outside is there one.
        thread = threading.Thread(target=exchange.run, name="alert", daemon=True)
        thread.start()
        thread.join(self._seconds)
        late = thread.is_alive()
        exchange.end()
        exchange.judge(self._seconds if late else None)


class _Exchange:
    """One request and its answer, in a thread of its own."""

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
        failure = OSError("no address")
        for address in self._addresses():
            try:
                raw = socket.create_connection((address, self._target.port), SECONDS)
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
