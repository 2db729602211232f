"""Real inputs of each parser, small and with each of its features."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from backports import zstd

from mipyme_backup import journal, manifest
from mipyme_backup.authentication import MARKER
from mipyme_backup.sources.media.index import FileRecord, FolderRecord
from tests.unit.test_manifest import example


def no_key(_secret: bytes, _salt: bytes) -> bytes:
    return b"k" * 32


def manifest_bytes() -> bytes:
    data = manifest.dump(example(), key=None, derive_key=no_key)
    return data.rpartition(MARKER)[0] + b"\n}"


def index_bytes() -> bytes:
    sha256, pack = hashlib.sha256(b"12345").hexdigest(), "pool/0123/files.tar.zst"
    return (
        FileRecord(b"a/\xff.txt", 5, 10**18, 0o644, sha256, pack, recheck=True).line()
        + FolderRecord(b"b", 0o755).line()
    )


def dump_bytes(integer_size: int = 4, entry_id: int = 1) -> bytes:
    """Return a dump in custom format with one entry that has data."""

    def integer(value: int) -> bytes:
        return bytes([value < 0]) + abs(value).to_bytes(integer_size, "little")

    def text(value: bytes | None) -> bytes:
        return integer(-1) if value is None else integer(len(value)) + value

    head = b"PGDMP\x01\x10\x00" + bytes([integer_size, 8, 1, 0])
    head += b"".join(map(integer, (0, 1, 2, 3, 4, 125, 0)))
    head += text(b"shop") + text(b"17.2") + text(b"17.2") + integer(1)
    entry = integer(entry_id) + integer(1) + text(b"1259") + text(b"16384")
    entry += text(b"order") + text(b"TABLE DATA") + integer(3) + text(b"")
    entry += text(b"") + text(b"COPY order FROM stdin;") + text(b"public") + text(b"")
    entry += text(b"heap") + integer(0) + text(b"owner") + text(b"false")
    entry += text(b"2") + text(None) + b"\x01" + bytes(8)
    return head + entry + b"\x01" + integer(abs(entry_id)) + integer(3) + b"row" + integer(0)


STATUSES = (
    b"[GNUPG:] ENC_TO 0123456789ABCDEF 1 0\n[GNUPG:] DECRYPTION_KEY A B u\n"
    b"gpg: note\n[GNUPG:] DECRYPTION_OKAY\n[GNUPG:] GOODMDC\n"
)
LISTING = (
    b"drwx------           4096 2025/01/02 12:00:00 .\n"
    b"-rw-------            150 2025/01/02 12:00:00 a\\#377.zst.00000\n"
    b"lrwxrwxrwx             10 2025/01/02 12:00:00 link\n"
)
LINES = b'{"model": "shop.order", "pk": 1, "fields": {"total": "1.50", "lines": [1, 2]}}\n' * 3
JOURNAL = json.dumps(
    {
        **journal.Journal.loading("r1", "b1", [{"restore_id": "r1", "kind": "media"}]),
        "phase": "done",
        "elsewhere": False,
        "finished_at": "2025-01-02T12:00:00+00:00",
        "safety_backup": "feedc0de",
    }
).encode()
NOTE = json.dumps(
    {
        "name": "manual_20250102T120000Z",
        "destinations": ["offsite"],
        "packs": [f"pool/{'0123' * 8}/files.tar.zst"],
        "committing": True,
        "committed": False,
    }
).encode()
LEFTOVERS = json.dumps(
    {
        "offsite": {
            "deleting": ["manual_20250102T120000Z"],
            "since": {f"pool/{'0123' * 8}": "2025-01-02T12:00:00+00:00"},
        }
    }
).encode()


def pack_bytes() -> bytes:
    """Return a pack with the content that `index_bytes` names, and another one."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as packed:
        for content in (b"other" * 100, b"12345"):
            member = tarfile.TarInfo(hashlib.sha256(content).hexdigest())
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def sealed_bytes() -> bytes:
    return manifest.dump(example(), key=None, derive_key=no_key)


FRAME = zstd.compress(LINES * 20, options={zstd.CompressionParameter.checksum_flag: 1})

BUCKET = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>backups</Name>
<Prefix>shop/</Prefix><KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>
<IsTruncated>false</IsTruncated><NextContinuationToken>more</NextContinuationToken>
<Contents><Key>shop/manual_20250102T120000Z/manifest.json</Key>
<LastModified>2025-01-02T12:00:00.000Z</LastModified><ETag>&quot;0123&quot;</ETag><Size>150</Size>
<StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>shop/recover.py</Key><Size>9</Size></Contents>
<CommonPrefixes><Prefix>shop/caf%C3%A9/</Prefix></CommonPrefixes></ListBucketResult>
"""
