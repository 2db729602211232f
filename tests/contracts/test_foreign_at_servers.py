"""Servers on whose disk somebody left what he liked: links, deep folders, names of any bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.destinations import Destination, RsyncDestination, StorageDestination
from mipyme_backup.operations.layout import LAYOUT
from tests import services
from tests.sshd import missing, running_sshd

SFTP = "storages.backends.sftpstorage.SFTPStorage"
ID = "0123456789abcdef0123456789abcdef"
OURS = ["manual_20200101T000000Z/manifest.json", f"pool/{ID}/files.tar.zst.00000", "recover.py"]


def litter(root: Path) -> None:
    for name in OURS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"ours")
    for odd in (b"\xff", b"new\nline", b"blank ", b"x" * 255, b"-rf", b"*", b"pool/\xff"):
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + odd))
        path.mkdir()
        (path / "manifest.json").write_bytes(b"{}")
    (root / "loop").symlink_to(root)
    (root / "manual_20200102T000000Z").symlink_to(root / "manual_20200101T000000Z")
    (root / "manual_20200103T000000Z").mkdir()
    os.mkfifo(root / "manual_20200103T000000Z" / "manifest.json")
    for folder in ("deep", "manual_20200101T000000Z", "pool", f"pool/{ID}", "monthly"):
        descriptor = os.open((root / folder), os.O_RDONLY) if (root / folder).exists() else None
        if descriptor is None:
            (root / folder).mkdir()
            descriptor = os.open(root / folder, os.O_RDONLY)
        for _turn in range(300):
            os.mkdir("deeper", dir_fd=descriptor)
            below = os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        os.close(descriptor)


def look(destination: Destination) -> None:
    listed = destination.listing(LAYOUT)

    assert [entry.name for entry in listed.entries] == OURS
    assert listed.foreign.count >= 7
    assert {entry.name for entry in destination.entries("pool/")} >= {OURS[1]}


def test_sftp(sftp_server: services.SFTPServer, settings: Any, tmp_path: Path) -> None:
    litter(sftp_server.folder / "littered")
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(sftp_server.known_host)
    options = sftp_server.options(known_hosts, root_path="littered")
    settings.STORAGES = {**settings.STORAGES, "sftp": {"BACKEND": SFTP, "OPTIONS": options}}

    look(StorageDestination(storage="sftp"))


def test_rsync(workdir: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    litter(workdir / "backups")
    with running_sshd() as server, server.shared_connection(server.identity_file) as shared:
        destination = RsyncDestination(
            host=server.host, port=server.port, user=server.user, path=f"{workdir}/backups"
        )
        destination.control_path = str(shared)
        look(destination)
