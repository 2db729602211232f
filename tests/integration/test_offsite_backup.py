"""A whole backup goes to S3 and to SFTP, and is read back from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mipyme_backup import api
from tests import services


def test_backup_is_kept_and_verified_off_site(backups: Path, settings: Any, tmp_path: Path) -> None:
    with services.s3() as s3, services.sftp() as sftp:
        (tmp_path / "known_hosts").write_text(sftp.known_host)
        settings.STORAGES = {
            **settings.STORAGES,
            "s3": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": s3.options()},
            "sftp": {
                "BACKEND": "storages.backends.sftpstorage.SFTPStorage",
                "OPTIONS": sftp.options(tmp_path / "known_hosts"),
            },
        }
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "STATE_DIR": backups.with_name("state"),
            "DESTINATIONS": {
                alias: {
                    "BACKEND": "mipyme_backup.destinations.StorageDestination",
                    "OPTIONS": {"storage": alias},
                }
                for alias in ("s3", "sftp")
            },
        }

        made = api.backup()
        checked = api.verify(identifiers=[made.manifest.id], level="content")

        assert made.copies == {"s3": None, "sftp": None}
        assert {result.destination: result.problems for result in checked} == {"s3": (), "sftp": ()}
