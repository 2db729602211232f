"""What is special to SFTP: host keys, temporary names, modes, and a connection that breaks off."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from mipyme_backup.destinations import StorageDestination
from mipyme_backup.errors import DestinationError
from mipyme_backup.testing import read_whole
from tests import services
from tests.proxy import Fault, Proxy, proxy

BACKEND = "storages.backends.sftpstorage.SFTPStorage"
Offsite = Callable[..., StorageDestination]


@pytest.fixture
def known_hosts(tmp_path: Path, sftp_server: services.SFTPServer) -> Path:
    file = tmp_path / "known_hosts"
    file.write_text(sftp_server.known_host)
    return file


@pytest.fixture
def root() -> str:
    return secrets.token_hex(6)


@pytest.fixture
def offsite(
    settings: Any, sftp_server: services.SFTPServer, known_hosts: Path, root: str
) -> Offsite:
    """Makes a destination of the server, with these entries of the storage's `params`."""

    def made(**params: Any) -> StorageDestination:
        options = sftp_server.options(known_hosts, root_path=root)
        options["params"] |= params
        settings.STORAGES = {
            **settings.STORAGES,
            "offsite": {"BACKEND": BACKEND, "OPTIONS": options},
        }
        return StorageDestination(storage="offsite")

    return made


@pytest.fixture
def sftp_proxy(sftp_server: services.SFTPServer, known_hosts: Path) -> Iterator[Proxy]:
    with proxy(sftp_server.port) as running:
        line = sftp_server.known_host.replace(f":{sftp_server.port} ", f":{running.port} ")
        known_hosts.write_text(line)
        yield running


@pytest.fixture
def impatient(offsite: Offsite, sftp_proxy: Proxy) -> StorageDestination:
    """A destination beyond the proxy that takes two seconds of silence for a stall."""
    destination = offsite(port=sftp_proxy.port, timeout=2)
    destination.check()
    return destination


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "spooled"
    file.write_bytes(b"content")
    return file


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large"
    file.write_bytes(secrets.token_bytes(5_000_000))
    return file


def test_a_host_that_is_not_known_is_refused_with_the_way_to_know_it(
    offsite: Offsite, known_hosts: Path, sftp_server: services.SFTPServer
) -> None:
    known_hosts.write_text("")

    with pytest.raises(DestinationError, match="is not known") as caught:
        offsite().check()

    assert caught.value.permanent
    assert "SHA256:" in str(caught.value)
    assert f"ssh-keyscan -p {sftp_server.port} 127.0.0.1" in str(caught.value.hint)
    assert known_hosts.read_text() == ""


def test_a_host_is_not_known_where_there_is_no_file(offsite: Offsite, known_hosts: Path) -> None:
    known_hosts.unlink()

    with pytest.raises(DestinationError, match="is not known"):
        offsite().check()


def test_a_host_key_that_changed_is_refused(
    offsite: Offsite, known_hosts: Path, sftp_server: services.SFTPServer, file: Path
) -> None:
    other = paramiko.ECDSAKey.generate()
    host, kind, _key = sftp_server.known_host.split()
    known_hosts.write_text(f"{host} {kind} {other.get_base64()}\n")
    destination = offsite()

    for call in (destination.check, lambda: destination.put("a", file)):
        with pytest.raises(DestinationError) as caught:
            call()
        assert caught.value.permanent
        assert "another key" in str(caught.value.hint)


def test_a_wrong_password_fails_for_good_and_stays_secret(offsite: Offsite) -> None:
    password = secrets.token_urlsafe(16)

    with pytest.raises(DestinationError, match="uthentication") as caught:
        offsite(password=password).check()

    assert caught.value.permanent
    assert password not in f"{caught.value}{caught.value.hint}"


def test_a_host_that_is_not_there_may_come_back(offsite: Offsite, known_hosts: Path) -> None:
    with pytest.raises(DestinationError) as caught:
        offsite(port=9).check()

    assert not caught.value.permanent


def test_temporary_names_are_never_listed_and_can_be_swept(
    offsite: Offsite, root: str, file: Path
) -> None:
    destination = offsite()
    destination.check()
    for name in ("app/1", "app/3.part"):
        destination.put(name, file)
    sftp = destination._access._connection.sftp  # type: ignore[attr-defined]
    left = [f"{name}.mipyme_backup-0123456789abcdef.part" for name in ("1", "2")]
    for name in left:
        sftp.open(f"{root}/app/{name}", "w").close()

    assert [entry.name for entry in destination.entries()] == ["app/1", "app/3.part"]
    destination.sweep("app/1")
    assert sorted(sftp.listdir(f"{root}/app")) == ["1", left[1], "3.part"]
    destination.sweep("")
    assert sorted(sftp.listdir(f"{root}/app")) == ["1", "3.part"]


def test_a_root_that_is_gone_never_looks_empty(offsite: Offsite) -> None:
    with pytest.raises(DestinationError, match="does not exist"):
        list(offsite().entries())


@pytest.mark.parametrize("action", ["cut", "stall"])
def test_a_put_that_breaks_off_leaves_no_object_and_the_next_connects_anew(
    impatient: StorageDestination, sftp_proxy: Proxy, large: Path, action: Any
) -> None:
    sftp_proxy.plan(Fault(action=action, after=2_000_000))

    with pytest.raises(DestinationError) as caught:
        impatient.put("backup/large", large)

    assert not caught.value.permanent
    assert list(impatient.entries()) == []
    impatient.put("backup/large", large)
    impatient.sweep("backup/")
    assert read_whole(impatient.open("backup/large")) == large.read_bytes()


@pytest.mark.parametrize("action", ["cut", "stall"])
def test_a_reading_that_breaks_off_never_looks_like_an_end(
    impatient: StorageDestination, sftp_proxy: Proxy, large: Path, action: Any
) -> None:
    impatient.put("backup/large", large)
    sftp_proxy.plan(Fault(action=action, way="down", after=2_000_000))
    reader = impatient.open("backup/large")

    with pytest.raises(DestinationError) as caught:
        read_whole(reader)

    assert not caught.value.permanent
    assert read_whole(impatient.open("backup/large")) == large.read_bytes()


def test_a_reading_that_breaks_off_anywhere_prints_no_traceback(
    impatient: StorageDestination, sftp_proxy: Proxy, large: Path
) -> None:
    impatient.put("backup/large", large)
    for after in range(20_000, 4_000_000, 400_000):  # of an unhandled error pytest makes a failure
        sftp_proxy.plan(Fault(action="cut", way="down", after=after))

        with pytest.raises(DestinationError):
            read_whole(impatient.open("backup/large"))


def test_a_cut_at_any_moment_of_the_login_may_pass(
    offsite: Offsite, sftp_proxy: Proxy, file: Path
) -> None:
    offsite(port=sftp_proxy.port, timeout=5).check()
    sftp_proxy.plan()
    assert offsite(port=sftp_proxy.port, timeout=5).size("a") is None
    passed = dict(sftp_proxy.passed)
    for way in ("up", "down"):
        for eighth in range(8):
            destination = offsite(port=sftp_proxy.port, timeout=5)
            after = passed[way] * eighth // 8
            sftp_proxy.plan(Fault(action="cut", way=way, after=after))

            with pytest.raises(DestinationError) as caught:
                destination.size("a")

            assert not caught.value.permanent, f"{caught.value} ({way} {after})"
            assert destination.size("a") is None


def test_a_stall_while_the_session_begins_is_noticed(offsite: Offsite, sftp_proxy: Proxy) -> None:
    offsite(port=sftp_proxy.port)._access._connection.sftp  # type: ignore[attr-defined]  # noqa: B018
    for before in (10, 100):
        after = sftp_proxy.passed["down"] - before  # within the answers to what begins it
        destination = offsite(port=sftp_proxy.port, timeout=2)
        sftp_proxy.plan(Fault(action="stall", way="down", after=after))

        with pytest.raises(DestinationError) as caught:
            destination.size("a")

        assert not caught.value.permanent


def test_two_objects_are_read_and_written_side_by_side(
    offsite: Offsite, large: Path, file: Path
) -> None:
    destination = offsite()
    destination.check()
    destination.put("a", large)
    reader = destination.open("a")

    first = reader.read(10)
    destination.put("b", file)
    assert read_whole(destination.open("b")) == b"content"

    assert first + read_whole(reader) == large.read_bytes()
