"""The SHA-256 checksums that an S3 service keeps of its objects, computed from a file.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from mipyme_backup.process import CHUNK


def whole(file: Path) -> str:
    """Return the checksum of an object that was put in one piece."""
    with file.open("rb") as content:
        return _text(hashlib.file_digest(content, "sha256").digest())


def composite(file: Path, part_size: int) -> str:
    """Return the checksum of one put in parts: that of the parts' own, and their number."""
    digests = []
    with file.open("rb") as content:
        while piece := content.read(min(CHUNK, part_size)):
            digest, left = hashlib.sha256(piece), part_size - len(piece)
            while left and (piece := content.read(min(CHUNK, left))):
                digest.update(piece)
                left -= len(piece)
            digests.append(digest.digest())
    return f"{_text(hashlib.sha256(b''.join(digests)).digest())}-{len(digests)}"


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
