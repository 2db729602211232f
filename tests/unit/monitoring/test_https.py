"""The client of webhooks: it goes out of our network, never into it, and never waits for long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mipyme_backup.errors import AlertError
from mipyme_backup.monitoring.addresses import is_public
from mipyme_backup.monitoring.https import Client
from tests.https_server import HOST, HTTPSServer, https_server

TOKEN = "canary-5f2e"
SECONDS = 2.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HTTPSServer]:
    with https_server(tmp_path_factory.mktemp("https")) as server:
        yield server


@pytest.fixture
def server(running: HTTPSServer) -> Iterator[HTTPSServer]:
    yield running
    fresh = HTTPSServer(authority=running.authority, port=running.port)
    vars(running).update(vars(fresh))


def client(server: HTTPSServer, **changes: Any) -> Client:
    return Client(
        **{"context": server.context, "allow_private": True, "seconds": SECONDS, **changes}
    )


def failure(client: Client, url: str) -> str:
    """Return why a post fails; it says nothing of the URL but the host."""
    with pytest.raises(AlertError) as caught:
        client.post(url, b"{}", "application/json")
    assert TOKEN not in f"{caught.value!r} {caught.value}"
    return str(caught.value)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to each answer in turn; return the list of what was asked for."""
    real, asked = socket.getaddrinfo, []
    left = list(answers)

    def resolve(host: str, port: int, *args: Any, **options: Any) -> Any:
        try:
            return real(host, port, *args, **options | {"flags": socket.AI_NUMERICHOST})
        except socket.gaierror:
            asked.append(host)
            found = left.pop(0) if len(left) > 1 else left[0]
            return [entry for item in found for entry in real(item, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


class TestPost:
    def test_body_arrives_with_its_type(self, server: HTTPSServer) -> None:
        client(server).post(server.url("/hook?a=b"), b'{"a": 1}', "application/json")

        (request,) = server.requests
        assert (request.method, request.path, request.body) == ("POST", "/hook?a=b", b'{"a": 1}')
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["Host"] == f"127.0.0.1:{server.port}"

    @pytest.mark.parametrize("status", [201, 202, 204])
    def test_any_success_is_one(self, status: int, server: HTTPSServer) -> None:
        server.status = status

        client(server).post(server.url(), b"", "text/plain")

    @pytest.mark.parametrize("status", [400, 404, 500])
    def test_any_other_answer_is_told(self, status: int, server: HTTPSServer) -> None:
        server.status = status

        assert failure(client(server), server.url(f"/{TOKEN}")) == f"127.0.0.1 answers {status}."

    def test_server_that_is_away_is_told(self, server: HTTPSServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]

        text = failure(client(server), f"https://127.0.0.1:{port}/{TOKEN}")

        assert text == "127.0.0.1: Connection refused"


class TestTrust:
    def test_certificate_of_an_unknown_authority_is_refused(self, server: HTTPSServer) -> None:
        text = failure(Client(allow_private=True), server.url(f"/{TOKEN}"))

        assert "certificate" in text
        assert server.requests == []

    def test_certificate_of_another_host_is_refused(
        self, server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolving(monkeypatch, ["127.0.0.1"])

        text = failure(client(server), server.url(f"/{TOKEN}", host="other.test"))

        assert "certificate" in text
        assert server.requests == []

    def test_certificate_of_the_named_host_is_taken(
        self, server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolving(monkeypatch, ["127.0.0.1"])

        client(server).post(server.url(host=HOST), b"", "text/plain")

        assert server.requests[0].headers["Host"] == f"{HOST}:{server.port}"


class TestWhereItLeads:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fe80::1%lo",
            "fc00::1",
            "fec0::1",
            "ff0e::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "2002:7f00:1::",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "64:ff9b:1::808:808",
            "64:ff9b:1:ffff::a00:1",
            "::ffff:0:10.0.0.1",
            "::ffff:0:8.8.8.8",
            "::10.0.0.1",
            "::8.8.8.8",
            "2002:a9fe:a9fe::1",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "5f00::1",
            "4000::1",
            "fd00:ec2::254",
            "100::1",
            "2001:2::1",
            "2606:4700:4700::1111%1",
            "64:ff9b::808:808%1",
            "192.0.0.8",
            "192.0.0.170",
            "192.88.99.1",
            "203.0.113.1",
        ],
    )
    def test_address_of_no_public_host_is_known(self, address: str) -> None:
        assert not is_public(address)

    @pytest.mark.parametrize(
        "address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808"]
    )
    def test_address_of_a_public_host_is_known(self, address: str) -> None:
        assert is_public(address)

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "[::ffff:0:7f00:1]",
            "[64:ff9b:1::7f00:1]",
            "[fe80::1%lo]",
            "127.1",
            "0",
            "[::1]",
            "[::ffff:7f00:1]",
        ],
    )
    def test_this_machine_is_refused_by_whatever_name(self, host: str, server: HTTPSServer) -> None:
        text = failure(client(server, allow_private=False), server.url(f"/{TOKEN}", host=host))

        assert "not of the public internet" in text
        assert server.requests == []

    @pytest.mark.parametrize("host", ["127.0.0.1.", "localhost.", "[fe80::1%25lo]"])
    def test_name_with_more_to_it_does_not_reach_it(self, host: str, server: HTTPSServer) -> None:
        failure(client(server, allow_private=False), server.url(f"/{TOKEN}", host=host))

        assert server.requests == []

    @pytest.mark.parametrize(
        "answer",
        [
            ["8.8.8.8", "::ffff:7f00:1"],
            ["2606:4700:4700::1111", "10.0.0.1"],
            ["2606:4700:4700::1111", "64:ff9b:1::7f00:1"],
            ["8.8.8.8"] * 50 + ["127.0.0.1"],
        ],
    )
    def test_any_address_inside_is_enough_to_refuse(
        self, answer: list[str], server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolving(monkeypatch, answer)

        assert "public" in failure(client(server, allow_private=False), server.url(host=HOST))

    def test_name_that_leads_inside_is_refused(
        self, server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolving(monkeypatch, ["127.0.0.1"])

        text = failure(client(server, allow_private=False), server.url(host=HOST))

        assert text == f"{HOST} has an address that is not of the public internet."

    def test_one_address_inside_is_enough_to_refuse(
        self, server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolving(monkeypatch, ["8.8.8.8", "127.0.0.1"])

        assert "public" in failure(client(server, allow_private=False), server.url(host=HOST))

    def test_name_is_resolved_once_so_a_second_answer_changes_nothing(
        self, server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = resolving(monkeypatch, ["127.0.0.1"], ["10.255.255.1"])

        client(server).post(server.url(host=HOST), b"", "text/plain")

        assert asked == [HOST]
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirect_is_not_followed(self, status: int, server: HTTPSServer) -> None:
        server.status, server.location = status, server.url("/inside")

        text = failure(client(server), server.url(f"/{TOKEN}"))

        assert text == "127.0.0.1 redirects, which is not followed."
        assert [request.path for request in server.requests] == [f"/{TOKEN}"]

    def test_proxy_of_the_environment_is_not_used(
        self, server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")

        client(server).post(server.url(), b"", "text/plain")

        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "url",
        [
            f"http://example.org/{TOKEN}",
            f"https://user:{TOKEN}@example.org/",
            f"https://{TOKEN}@example.org/",
            f"https:///{TOKEN}",
            f"https://example.org:99999/{TOKEN}",
            f"https://[::1/{TOKEN}",
            f"https://example.org/{TOKEN}\r\nHost: inside",
            f"https://example.org\\@inside/{TOKEN}",
            f"file:///{TOKEN}",
        ],
    )
    def test_url_that_is_none_to_call_is_refused(self, url: str, server: HTTPSServer) -> None:
        assert failure(client(server), url).startswith("The URL cannot be used")


class TestTime:
    def test_slow_answer_ends_in_time(self, server: HTTPSServer) -> None:
        server.delay = 10 * SECONDS

        text = failure(client(server), server.url(f"/{TOKEN}"))

        assert text == "127.0.0.1 has not answered within 2 seconds."

    def test_answer_that_drips_ends_in_time(self, server: HTTPSServer) -> None:
        server.drip = True

        assert "within" in failure(client(server, seconds=1), server.url())

    def test_server_that_never_shakes_hands_ends_in_time(self, server: HTTPSServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}/"

            assert "within" in failure(client(server, seconds=1), url)

        assert not _alive()

    def test_name_that_resolves_slowly_ends_in_time_and_nothing_is_sent_later(
        self, server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, asked = socket.getaddrinfo, threading.Event()

        def resolve(*args: Any, **options: Any) -> Any:
            asked.wait(120)
            return real(*args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert "within" in failure(client(server, seconds=0.5), server.url())

        asked.set()

        assert not _alive()
        assert server.requests == []

    def test_huge_answer_is_not_read_to_its_end(self, server: HTTPSServer) -> None:
        server.size = 10**9

        client(server, seconds=60).post(server.url(), b"", "text/plain")

        assert server.sent < server.size / 10  # the client has gone, and took the connection along


def test_no_thread_is_left(server: HTTPSServer) -> None:
    client(server).post(server.url(), b"", "text/plain")

    assert not _alive()


def _alive() -> list[threading.Thread]:
    """Return the exchanges that are still at work after a moment."""
    threads = [thread for thread in threading.enumerate() if thread.name == "alert"]
    for thread in threads:
        thread.join(60)
    return [thread for thread in threads if thread.is_alive()]
