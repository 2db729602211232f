"""Folders and files that are nobody else's from their first moment. Imports no Django."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mipyme_backup.process import CHUNK, Reader


def make_folder(folder: Path) -> None:
    """Make `folder` and what lacks above it, each 0700, and sync what names them.

    `Path.mkdir` leaves parents open.
    """
    if not folder.exists():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)


def write_file(file: Path, content: bytes | Reader) -> None:
    """Make `file`, which must not exist, 0600, and sync it to the disk."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        if isinstance(content, bytes):
            output.write(content)
        else:
            while piece := content.read(CHUNK):
                output.write(piece)
        output.flush()
        os.fsync(output.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
