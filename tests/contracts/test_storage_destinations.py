"""Every family of storages keeps the contract of destinations, on real servers."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.destinations import Destination, StorageDestination
from mipyme_backup.errors import ConfigurationError
from mipyme_backup.testing import DestinationContract
from tests import services

S3 = "storages.backends.s3.S3Storage"
SFTP = "storages.backends.sftpstorage.SFTPStorage"


class StorageContract(DestinationContract):
    """The contract, kept by the alias ``offsite`` of STORAGES that the fixture ``entry`` gives."""

    @pytest.fixture
    def destination(self, settings: Any, entry: dict[str, Any]) -> Destination:
        settings.STORAGES = {**settings.STORAGES, "offsite": entry}
        return StorageDestination(storage="offsite")


class TestFiles(StorageContract):
    @pytest.fixture
    def entry(self, tmp_path: Path) -> dict[str, Any]:
        return {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path / "backups"},
        }


class TestAnyOtherStorage(StorageContract):
    @pytest.fixture
    def entry(self) -> dict[str, Any]:
        return {"BACKEND": "django.core.files.storage.InMemoryStorage"}


class TestS3(StorageContract):
    @pytest.fixture
    def entry(self, s3_server: services.S3Server) -> dict[str, Any]:
        return {"BACKEND": S3, "OPTIONS": s3_server.options(location=f"in/{secrets.token_hex(6)}")}


class TestS3WithChecksums(StorageContract):
    @pytest.fixture
    def entry(self, moto_server: services.S3Server) -> dict[str, Any]:
        return {"BACKEND": S3, "OPTIONS": moto_server.options(location=secrets.token_hex(6))}


class TestSFTP(StorageContract):
    @pytest.fixture
    def entry(self, sftp_server: services.SFTPServer, tmp_path: Path) -> dict[str, Any]:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(sftp_server.known_host)
        root = f"deep/{secrets.token_hex(6)}"
        return {"BACKEND": SFTP, "OPTIONS": sftp_server.options(known_hosts, root_path=root)}


def test_an_alias_that_does_not_exist_is_told_with_those_that_do(settings: Any) -> None:
    settings.STORAGES = {**settings.STORAGES, "b2": {"BACKEND": S3}}

    with pytest.raises(ConfigurationError, match="'offsite'") as caught:
        StorageDestination(storage="offsite").check()

    assert "DESTINATIONS" in str(caught.value) and "OPTIONS.storage" in str(caught.value)
    assert "b2, default, staticfiles" in str(caught.value.hint)


@pytest.mark.parametrize(
    "entry",
    [
        {"BACKEND": "no.such.Storage"},
        {"BACKEND": S3, "OPTIONS": {"no_option": 1}},
        {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"no_option": 1}},
    ],
    ids=["no such class", "odd option", "odd option of Django"],
)
def test_a_storage_that_cannot_be_built_is_a_matter_of_settings(
    settings: Any, entry: dict[str, Any]
) -> None:
    settings.STORAGES = {**settings.STORAGES, "offsite": entry}

    with pytest.raises(ConfigurationError, match="offsite"):
        StorageDestination(storage="offsite").check()


def test_clients_are_imported_only_where_they_are_used() -> None:
    code = (
        "import sys, mipyme_backup.destinations.storage;"
        "print(sorted({'boto3', 'botocore', 'paramiko', 'storages'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
