"""Every verb of the off-site destinations, through every fault of the network and the service.

A fault that passes is overcome within the budget of seconds; one that lasts is told, with what to
do and whether trying again may help, and harms nothing that is stored. Where in the exchange a
fault strikes is random: any byte, from the first of the connection on.
"""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from django.conf import settings
from django.test import override_settings

from mipyme_backup.destinations import (
    Destination,
    LocalDestination,
    RsyncDestination,
    StorageDestination,
    retrying,
    rsync,
    rsync_command,
)
from mipyme_backup.destinations.retrying import RetryingDestination
from mipyme_backup.errors import DestinationError
from tests import services, sshd
from tests.e2e.verbs import VERBS, Place
from tests.proxy import Action, Fault, Proxy, proxy

BACKENDS = {
    "s3": "storages.backends.s3.S3Storage",
    "sftp": "storages.backends.sftpstorage.SFTPStorage",
}
SMALL = 40_000
LARGE = {"s3": 2**24 + 100_000, "sftp": 3_000_000, "rsync": 1_000_000}
SILENCE_SECONDS = 2
RSYNC_SILENCE_SECONDS = 6
PASSES_SECONDS = 240.0
LASTS_SECONDS = 1.0
"""So long may the tries that are on their way at the end of the budget take on a busy machine."""

BROKEN: tuple[Action, ...] = ("cut", "reset", "stall", "trickle")
PASSING_ANSWERS = {"InternalError": 500, "SlowDown": 503, "TooManyRequests": 429}
LASTING_ANSWERS = {"AccessDenied": 403, "NoSuchBucket": 404, "ExpiredToken": 400}
REQUEST = r"^(GET|HEAD|PUT|POST|DELETE) "


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A fault before we know where it strikes: what it does, and in which way."""

    name: str
    fault: Fault

    def at(self, offset: int, times: int) -> Fault:
        after = 0 if self.fault.action == "answer" else offset
        return replace(self.fault, after=after, times=times)


KINDS = {
    kind.name: kind
    for kind in (
        *(
            Kind(name=f"{action} {way}", fault=Fault(action=action, way=way))
            for action in BROKEN
            for way in ("up", "down")
        ),
        *(
            Kind(
                name=code,
                fault=Fault(action="answer", request=REQUEST, status=status, code=code),
            )
            for code, status in PASSING_ANSWERS.items()
        ),
    )
}
# An SFTP server vouches for nothing, and is not asked.
CALLS = [
    (service, verb)
    for service in ("s3", "sftp")
    for verb in VERBS
    if (service, verb) != ("sftp", "vouch")
]
BREAKS = [kind for kind in KINDS if kind not in PASSING_ANSWERS]
KINDS_OF = {"s3": [*KINDS], "sftp": BREAKS, "rsync": BREAKS}
CASES = [
    (service, kind, verb)
    for service, verb in (*CALLS, *(("rsync", verb) for verb in VERBS))
    for kind in KINDS_OF[service]
]


@pytest.fixture(scope="module")
def s3(s3_models: None) -> Iterator[services.S3Server]:
    with services.s3() as server:
        yield server


@pytest.fixture(scope="module")
def sftp() -> Iterator[services.SFTPServer]:
    with services.sftp() as server:
        yield server


@pytest.fixture(scope="module", name="rsync")
def rsync_server() -> Iterator[sshd.SSHServer]:
    if reason := sshd.missing():
        pytest.skip(reason)
    with sshd.running_sshd() as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    files = {}
    for name, length in {"small": SMALL, **LARGE}.items():
        files[name] = folder / name
        files[name].write_bytes(secrets.token_bytes(length))
    return files


class Site:
    """One service with a proxy before it; `place` makes destinations anew, as a new run does."""

    def __init__(self, service: str, server: Any, files: dict[str, Path], folder: Path) -> None:
        self._service = service
        self._server = server
        self._files = files
        self._folder = folder

    def place(self, proxy: Proxy, seconds: float) -> Place:
        """Return a place that tries passing errors again for so many seconds."""
        far, near = self._destinations(proxy.port)
        near.check()  # makes the folder
        return Place(
            far=RetryingDestination(far, name="far", seconds=seconds),
            near=near,
            small=self._files["small"],
            large=self._files[self._service],
        )

    def _destinations(self, port: int) -> tuple[Destination, Destination]:
        """Return the destination by way of this port, and the same by a way of its own."""
        if self._service == "rsync":
            folder = self._folder / "kept"
            return self._rsync(port, folder), LocalDestination(location=folder)
        options = self._s3_options if self._service == "s3" else self._sftp_options
        entries = {
            alias: {"BACKEND": BACKENDS[self._service], "OPTIONS": options(at)}
            for alias, at in (("far", port), ("near", self._server.port))
        }
        with override_settings(STORAGES={**settings.STORAGES, **entries}):
            pair = StorageDestination(storage="far"), StorageDestination(storage="near")
            assert all(destination.remote for destination in pair)  # looks the alias up
        return pair

    def _rsync(self, port: int, folder: Path) -> RsyncDestination:
        known = self._folder / "known_hosts"
        known.write_text(sshd.known_hosts_line(port, self._server.folder / "host_key.pub"))
        return RsyncDestination(
            host=self._server.host,
            port=port,
            user=self._server.user,
            path=str(folder),
            identity_file=self._server.identity_file,
            known_hosts_file=known,
        )

    def _s3_options(self, port: int) -> dict[str, Any]:
        config = Config(
            s3={"addressing_style": "path"},
            connect_timeout=SILENCE_SECONDS,
            read_timeout=SILENCE_SECONDS,
            retries={"total_max_attempts": 1},
        )
        options: dict[str, Any] = self._server.options(
            endpoint_url=f"http://127.0.0.1:{port}", client_config=config
        )
        return options

    def _sftp_options(self, port: int) -> dict[str, Any]:
        known = self._folder / "known_hosts"
        with known.open("a") as lines:
            lines.write(self._server.known_host.replace(f":{self._server.port} ", f":{port} "))
        options: dict[str, Any] = self._server.options(known)
        options["params"] |= {"port": port, "timeout": SILENCE_SECONDS}
        return options


@pytest.fixture
def site(
    service: str, request: pytest.FixtureRequest, files: dict[str, Path], tmp_path: Path
) -> Site:
    return Site(service, request.getfixturevalue(service), files, tmp_path)


@pytest.fixture
def between(service: str, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with proxy(request.getfixturevalue(service).port) as between:
        yield between


@pytest.fixture(autouse=True)
def soon_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries, and the silence that rsync and ssh take for a stall."""
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.1)
    defaults = RsyncDestination._run.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "stall_seconds", RSYNC_SILENCE_SECONDS)
    monkeypatch.setitem(defaults, "seconds", 5 * RSYNC_SILENCE_SECONDS)
    monkeypatch.setattr(rsync_command, "STALL_SECONDS", RSYNC_SILENCE_SECONDS)
    monkeypatch.setattr(rsync, "SLOWEST", 100_000)
    shorter = {"ConnectTimeout": RSYNC_SILENCE_SECONDS, "ServerAliveInterval": 2}
    kept = [o for o in rsync_command.SSH_OPTIONS if o.partition("=")[0] not in shorter]
    options = (*kept, *(f"{name}={value}" for name, value in shorter.items()))
    monkeypatch.setattr(rsync_command, "SSH_OPTIONS", options)


def traffic(site: Site, between: Proxy, verb: str, way: str) -> int:
    """Return how many bytes go this way in the undisturbed verb, on a new connection."""
    place = site.place(between, PASSES_SECONDS)
    place.make_ready()
    between.plan()
    VERBS[verb](place)
    return between.passed[way]  # type: ignore[index]


def assert_overcome(site: Site, between: Proxy, verb: str, kind: Kind, rng: random.Random) -> None:
    """Two faults of a kind, the second somewhere in what the first made necessary, pass."""
    bytes_passed = traffic(site, between, verb, kind.fault.way)
    first = rng.randrange(bytes_passed)
    second = first + rng.randrange(bytes_passed)
    place = site.place(between, PASSES_SECONDS)
    place.make_ready()
    between.plan(kind.at(first, 1), kind.at(second, 1))

    for _fault in range(2 if verb == "check" else 0):  # it alone is not tried again by itself
        with contextlib.suppress(DestinationError):
            place.far.check()
    VERBS[verb](place)

    between.plan()
    place.assert_unharmed()


def assert_told(site: Site, between: Proxy, verb: str, kind: Kind, rng: random.Random) -> None:
    """A fault that lasts is told in time, harms nothing, and is over when it is over."""
    bytes_passed = traffic(site, between, verb, kind.fault.way)
    place = site.place(between, LASTS_SECONDS)
    place.make_ready()
    # Near its end an exchange may be good enough all the same.
    fault = kind.at(rng.randrange(bytes_passed // 2), 10**6)
    between.plan(fault)

    with pytest.raises(DestinationError) as caught:
        VERBS[verb](place)

    assert not caught.value.permanent, caught.value
    assert str(caught.value.hint)
    between.plan()
    place.assert_unharmed()
    place.make_ready()
    VERBS[verb](place)


@pytest.mark.parametrize(("service", "verb"), CALLS)
def test_passing_fault_is_overcome(
    site: Site, between: Proxy, service: str, verb: str, torture_random: random.Random
) -> None:
    kind = torture_random.choice(KINDS_OF[service])

    assert_overcome(site, between, verb, KINDS[kind], torture_random)


@pytest.mark.parametrize(("service", "verb"), CALLS)
def test_lasting_fault_is_told(
    site: Site, between: Proxy, service: str, verb: str, torture_random: random.Random
) -> None:
    kind = torture_random.choice(KINDS_OF[service])

    assert_told(site, between, verb, KINDS[kind], torture_random)


@pytest.mark.parametrize("service", ["rsync"])
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.rare)])
def test_passing_and_lasting_faults_on_the_way_to_rsync(
    site: Site, between: Proxy, number: int, torture_random: random.Random
) -> None:
    for assert_right in (assert_overcome, assert_told):
        verb, kind = torture_random.choice([*VERBS]), torture_random.choice(BREAKS)
        assert_right(site, between, verb, KINDS[kind], torture_random)


@pytest.mark.torture
@pytest.mark.parametrize(("service", "kind", "verb"), CASES)
def test_every_passing_fault_is_overcome(
    site: Site, between: Proxy, kind: str, verb: str, torture_random: random.Random
) -> None:
    assert_overcome(site, between, verb, KINDS[kind], torture_random)


@pytest.mark.torture
@pytest.mark.parametrize(("service", "kind", "verb"), CASES)
def test_every_lasting_fault_is_told(
    site: Site, between: Proxy, kind: str, verb: str, torture_random: random.Random
) -> None:
    assert_told(site, between, verb, KINDS[kind], torture_random)


@pytest.mark.parametrize("service", ["s3"])
@pytest.mark.parametrize("code", LASTING_ANSWERS)
@pytest.mark.parametrize("verb", VERBS)
def test_what_will_not_pass_is_told_at_once(
    site: Site, between: Proxy, verb: str, code: str
) -> None:
    place = site.place(between, PASSES_SECONDS)
    place.make_ready()
    fault = Fault(
        action="answer", request=REQUEST, status=LASTING_ANSWERS[code], code=code, times=10**6
    )
    between.plan(fault)

    with pytest.raises(DestinationError) as caught:
        VERBS[verb](place)

    assert caught.value.permanent
    assert str(caught.value.hint)
    assert fault.happened <= 2, "it was tried again"
    between.plan()
    place.assert_unharmed()
