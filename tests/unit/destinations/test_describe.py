"""Where a destination says that it is: enough to find it, and no secret."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.destinations import (
    Destination,
    LocalDestination,
    RsyncDestination,
    StorageDestination,
)
from mipyme_backup.destinations.retrying import RetryingDestination

S3 = "storages.backends.s3.S3Storage"
SFTP = "storages.backends.sftpstorage.SFTPStorage"
SECRET = f"canary-{secrets.token_hex(8)}"


def place(settings: Any, backend: str, **options: object) -> str:
    settings.STORAGES = {
        **settings.STORAGES,
        "offsite": {"BACKEND": backend, "OPTIONS": options},
    }
    return StorageDestination(storage="offsite").describe()


def test_a_folder_is_told_from_the_root_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert LocalDestination(location="backups").describe() == str(tmp_path / "backups")


def test_a_storage_of_files_is_its_folder(settings: Any) -> None:
    backend = "django.core.files.storage.FileSystemStorage"

    assert place(settings, backend, location="/srv/backups") == "/srv/backups"


def test_s3_is_told_with_endpoint_and_region(settings: Any) -> None:
    told = place(
        settings,
        S3,
        bucket_name="shop-backups",
        location="shop",
        endpoint_url=f"https://user:{SECRET}@s3.example.com/?key={SECRET}",
        region_name="eu-central-003",
        access_key=SECRET,
        secret_key=SECRET,
    )

    assert told == (
        "s3://shop-backups/shop/ (endpoint_url=https://s3.example.com/, region_name=eu-central-003)"
    )


def test_s3_of_amazon_needs_no_more_than_its_bucket(settings: Any) -> None:
    assert place(settings, S3, bucket_name="shop-backups") == "s3://shop-backups/"


def test_sftp_is_told_with_user_port_and_files(settings: Any) -> None:
    told = place(
        settings,
        SFTP,
        host="backup.example.com",
        root_path="/srv/shop",
        known_host_file="/etc/mipyme/known_hosts",
        params={
            "username": "shop",
            "port": 2222,
            "password": SECRET,
            "passphrase": SECRET,
            "key_filename": "/etc/mipyme/id",
        },
    )

    assert told == (
        "sftp://shop@backup.example.com:2222/srv/shop"
        " (key_filename=/etc/mipyme/id, known_host_file=/etc/mipyme/known_hosts)"
    )


def test_sftp_below_the_home_folder(settings: Any) -> None:
    told = place(settings, SFTP, host="backup.example.com", root_path="backups")

    assert told == "sftp://backup.example.com:22/~/backups"


def test_any_other_storage_is_told_by_its_alias_and_class(settings: Any) -> None:
    told = place(settings, "django.core.files.storage.InMemoryStorage")

    assert told.startswith(
        "STORAGES['offsite'] = django.core.files.storage.memory.InMemoryStorage (location="
    )


def test_rsync_is_told_with_its_files() -> None:
    destination = RsyncDestination(
        host="nas.example.com",
        user="shop",
        path="/srv/backups",
        identity_file="/etc/mipyme/id",
        known_hosts_file="/etc/mipyme/known_hosts",
    )

    assert destination.describe() == (
        "rsync shop@nas.example.com:/srv/backups/ (port=22, identity_file=/etc/mipyme/id,"
        " known_hosts_file=/etc/mipyme/known_hosts)"
    )


def test_retries_change_nothing_of_it() -> None:
    inner: Destination = LocalDestination(location="/srv/backups")

    assert RetryingDestination(inner, name="local", seconds=1).describe() == "/srv/backups"
