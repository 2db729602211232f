"""An https server on this machine, with an authority of its own, that does as it is told."""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "hooks.test"


@dataclass(frozen=True)
class Request:
    """What came: `path` with its query."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HTTPSServer:
    """Answers `status`, and `location` where set; waits `delay` seconds before; `drip` is slow.

    `size` bytes of body follow, of which `sent` were taken. `authority` is the file with the
    certificate to be trusted.
    """

    authority: Path
    port: int = 0
    status: int = 200
    location: str | None = None
    delay: float = 0
    drip: bool = False
    size: int = 2
    sent: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def context(self) -> ssl.SSLContext:
        """The context of a client that trusts this server."""
        return ssl.create_default_context(cafile=str(self.authority))

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"


@contextmanager
def https_server(folder: Path) -> Iterator[HTTPSServer]:
    """A server that runs while the block does; its certificate is made in `folder`."""
    certificate, key = _certificate(folder)
    told = HTTPSServer(authority=certificate)

    class Handler(_Handler):
        server_state = told

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server_state: HTTPSServer

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a client that does not trust us, or has gone
            super().handle()

    def do_GET(self) -> None:
        self._take()

    def do_POST(self) -> None:
        self._take()

    def _take(self) -> None:
        state = self.server_state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state.requests.append(Request(self.command, self.path, dict(self.headers), body))
        time.sleep(state.delay)
        if state.drip:
            for letter in "HTTP/1.0 200 OK\r\n":
                self.wfile.write(letter.encode())
                time.sleep(0.2)
        self.send_response(state.status)
        if state.location:
            self.send_header("Location", state.location)
        self.end_headers()
        for _ in range(0, state.size, 65536):
            self.wfile.write(b"x" * min(65536, state.size))
            state.sent += 65536

    def log_message(self, *args: object) -> None:
        pass


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of a certificate that vouches for itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    names = [
        x509.DNSName(HOST),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
