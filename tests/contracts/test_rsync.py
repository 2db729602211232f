"""The rsync destination keeps the contract, with a shell on the server and with rrsync alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mipyme_backup.destinations import Destination, RsyncDestination
from mipyme_backup.testing import DestinationContract
from tests.sshd import SSHServer, missing, program, running_sshd


@pytest.fixture(scope="module")
def server() -> Iterator[SSHServer]:
    if reason := missing():
        pytest.skip(reason)
    with running_sshd() as server:
        yield server


@pytest.fixture(scope="module")
def shell(server: SSHServer) -> Iterator[Path]:
    """The socket of a connection with a shell behind it."""
    with server.shared_connection(server.identity_file) as socket:
        yield socket


@pytest.fixture(scope="module")
def guarded(server: SSHServer) -> Iterator[Path]:
    """The socket of a connection that leads to one folder, and to rsync alone."""
    rrsync = program("rrsync")
    if rrsync is None:
        pytest.skip("this machine's package rsync brings no rrsync")
    folder = server.folder / "guarded"
    folder.mkdir()
    with server.shared_connection(server.identity(f"{rrsync} -no-lock {folder}")) as socket:
        yield socket


def _destination(server: SSHServer, path: str, socket: Path) -> Destination:
    destination = RsyncDestination(host=server.host, port=server.port, user=server.user, path=path)
    destination.control_path = str(socket)
    return destination


class TestWithAShell(DestinationContract):
    many = 5

    @pytest.fixture
    def destination(self, server: SSHServer, shell: Path, tmp_path: Path) -> Destination:
        return _destination(server, f"{tmp_path}/back/ups", shell)


class TestBelowRrsync(DestinationContract):
    many = 5

    @pytest.fixture
    def destination(self, server: SSHServer, guarded: Path, tmp_path: Path) -> Destination:
        return _destination(server, f"/{tmp_path.name}", guarded)
