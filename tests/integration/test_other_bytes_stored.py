"""A service answers that all went well and holds other bytes, or none: found before the commit."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mipyme_backup import api
from mipyme_backup.destinations import StorageDestination
from mipyme_backup.errors import DestinationError
from tests import services
from tests.integration.conftest import LOCAL
from tests.proxy import Fault, proxy

BACKENDS = ("s3", "moto", "sftp")
S3 = "storages.backends.s3.S3Storage"
SFTP = "storages.backends.sftpstorage.SFTPStorage"


class Tampered(StorageDestination):
    """A storage whose service changes a byte of what it has just stored, `times` times."""

    times: ClassVar[int] = 0

    def put(self, name: str, file: Path) -> None:
        super().put(name, file)
        if name.startswith("pool/") and type(self).times:
            type(self).times -= 1
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.with_name("tampered").write_bytes(content)
            super().put(name, file.with_name("tampered"))
            file.with_name("tampered").unlink()


@pytest.fixture(scope="module", params=BACKENDS)
def server(request: pytest.FixtureRequest, s3_models: None) -> Iterator[Any]:
    """A server that attests checksums (moto), or attests nothing."""
    started = {"s3": services.s3, "moto": services.moto_s3, "sftp": services.sftp}[request.param]
    with started() as server:
        yield server


@pytest.fixture
def entry(server: Any, tmp_path: Path) -> dict[str, Any]:
    """An entry of STORAGES for an empty place on the server."""
    empty = secrets.token_hex(6)
    if isinstance(server, services.S3Server):
        return {"BACKEND": S3, "OPTIONS": server.options(location=empty)}
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(server.known_host)
    return {"BACKEND": SFTP, "OPTIONS": server.options(known_hosts, root_path=empty)}


def place(settings: Any, backups: Path, entry: dict[str, Any], *, local: bool) -> None:
    far = {
        "BACKEND": f"{__name__}.Tampered",
        "OPTIONS": {"storage": "far"},
        "RETRY_FOR": 5,
    }
    near = {"BACKEND": LOCAL, "OPTIONS": {"location": backups}}
    settings.STORAGES = {**settings.STORAGES, "far": entry}
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "STATE_DIR": backups.with_name("state"),
        "DESTINATIONS": {"far": far, "local": near} if local else {"far": far},
    }


def test_bytes_changed_by_the_only_service_are_no_backup(
    backups: Path, settings: Any, entry: dict[str, Any]
) -> None:
    place(settings, backups, entry, local=False)
    Tampered.times = 10**6

    with pytest.raises(DestinationError, match=r"not what was written|other bytes"):
        api.backup()

    assert api.backups(sync=True) == [] or api.backups()[0].to_dict()["status"] == "failed"
    Tampered.times = 0
    made = api.backup()
    assert [found.problems for found in api.verify(identifiers=[made.manifest.id])] == [()]


def test_bytes_changed_once_are_sent_again_or_told(
    backups: Path, settings: Any, entry: dict[str, Any]
) -> None:
    place(settings, backups, entry, local=True)
    Tampered.times = 1

    first = api.backup()

    verified = api.verify(identifiers=[first.manifest.id])
    sound = {found.destination for found in verified if not found.problems}
    assert Tampered.times == 0
    assert sound == {name for name, error in first.copies.items() if error is None}
    assert "local" in sound
    api.backup()
    verified = api.verify()
    assert [found.problems for found in verified] == [()] * 4, verified


def test_an_answer_of_success_for_nothing_is_no_backup(backups: Path, settings: Any) -> None:
    with services.s3() as server, proxy(server.port) as between:
        url = f"http://127.0.0.1:{between.port}"
        entry = {"BACKEND": S3, "OPTIONS": server.options(endpoint_url=url)}
        place(settings, backups, entry, local=False)
        Tampered.times = 0
        lie = Fault(action="answer", request="^PUT .*pool/", status=200, body="", times=10**6)
        between.plan(lie)

        with pytest.raises(DestinationError):
            api.backup()

        assert lie.happened
        assert server.folder is not None
        assert not [*server.folder.rglob("manifest.json")]
        between.plan()
        made = api.backup()
        assert [found.problems for found in api.verify(identifiers=[made.manifest.id])] == [()]
