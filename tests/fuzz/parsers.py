"""Each parser of bytes from outside: a real input, how that is changed, and what reads it.

A reader gets bytes and a private folder. It returns, or raises one of the errors `refused`.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import random
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipyme_backup import journal, manifest, recover
from mipyme_backup.authentication import MARKER, ending
from mipyme_backup.destinations.access.s3 import S3Access
from mipyme_backup.destinations.rsync_listing import parse_listing, parse_modified
from mipyme_backup.encryption import program
from mipyme_backup.errors import BackupError
from mipyme_backup.operations import leftovers, notes
from mipyme_backup.operations.layout import LAYOUT
from mipyme_backup.sources.content import check_lines
from mipyme_backup.sources.media.index import FileRecord, read_records
from mipyme_backup.sources.media.names import checked
from mipyme_backup.sources.media.unpack import read_pack
from mipyme_backup.sources.postgresql import archive
from mipyme_backup.state import State
from tests.fuzz import CORPUS, real
from tests.fuzz.changes import mutated_bytes, mutated_json, mutated_lines
from tests.fuzz.real import no_key
from tests.unit.test_manifest import example

Change = Callable[[bytes, random.Random], bytes]
Read = Callable[[bytes, Path], None]


@dataclass(frozen=True)
class Parser:
    """`change` returns another input; `refused` are the errors that `read` may raise.

    A short trial takes `sample` inputs.
    """

    real: bytes
    change: Change
    read: Read
    refused: type[Exception] = BackupError
    sample: int = 300

    def attempt(self, data: bytes, folder: Path) -> str:
        """Return what it was refused with, "" where it was read; any other error is raised."""
        try:
            self.read(data, folder)
        except self.refused as error:
            return str(error) or type(error).__name__
        return ""


def kept(name: str) -> list[Path]:
    """Return the inputs that are kept for the parser."""
    return sorted((CORPUS / name).glob("*"))


class Source:
    """A reader of the bytes, in pieces of uneven sizes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        taken, self._data = self._data[: min(size, 60_000)], self._data[min(size, 60_000) :]
        return taken

    def close(self) -> None:
        pass


def load_manifest(data: bytes, _folder: Path) -> None:
    """Sealed, so that the parser gets what was changed."""
    body = data.removesuffix(b"\n}")
    sealed = body + MARKER + ending(body, "shop", None, no_key)
    for given in (sealed, data):
        try:
            loaded = manifest.load(given, secrets_by_key={}, derive_key=no_key, trust_needed=False)
        except BackupError:
            continue
        loaded.artifacts(), manifest.row_counts(loaded.facts), manifest.media_bytes(loaded.facts)


def read_index(data: bytes, _folder: Path) -> None:
    for record in read_records(Source(data)):
        checked(record.path)
        assert record.line().decode()
        if isinstance(record, FileRecord):
            record.pack.encode()


def read_dump(data: bytes, _folder: Path) -> None:
    stream = archive.WholeDump(Source(data))
    while stream.read(1000):
        pass


def read_statuses(data: bytes, _folder: Path) -> None:
    text = data.decode(errors="replace")
    for check in (program._check_decrypted, program._check_encrypted):
        try:
            check(0, text)
        except BackupError as error:
            str(error)
    program._check_decrypted_by_keyring(0, text)


def read_listing(data: bytes, _folder: Path) -> None:
    parse_modified(data)
    assert all(0 <= entry.size < 2**63 for entry in parse_listing(data, others=True))


def recall(parse: Callable[[Any], Any], data: bytes, folder: Path) -> None:
    file = folder / "record.json"
    file.touch(mode=0o600)
    file.write_bytes(data)
    State(folder).recall("record.json", parse)


def read_lines(data: bytes, _folder: Path) -> None:
    check_lines(Source(data))


def unpack(data: bytes, _folder: Path) -> None:
    for content in read_pack(Source(data)):
        if content.size % 2:  # the others are left unread
            assert sum(map(len, content.chunks())) == content.size


def list_bucket(data: bytes, _folder: Path) -> None:
    """By the client of S3, from a server that answers whatever it is asked with `data`."""
    server, access = _bucket()
    server.answer = data
    for entry in access.entries("manual"):
        assert entry.name.encode(errors="surrogatepass") is not None
        assert 0 <= entry.size < 2**63
    list(access.listing(LAYOUT))


class _Service(http.server.ThreadingHTTPServer):
    """Gives the same answer to each request."""

    answer = b""
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Service

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(self.server.answer)

    def log_message(self, *_args: object) -> None: ...


@functools.cache
def _bucket() -> tuple[_Service, S3Access]:
    from storages.backends.s3 import S3Storage

    server = _Service(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    storage = S3Storage(
        bucket_name="backups",
        location="shop",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        region_name="eu-central-1",
        access_key="key",
        secret_key="secret",
    )
    return server, S3Access(storage, "offsite")


def recovery_reads_manifest(data: bytes, folder: Path) -> None:
    body = data.removesuffix(b"\n}")
    file = folder / example().name / recover.MANIFEST
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(body + MARKER + ending(body, "shop", None, no_key))
    store, keys = recover.Store(folder), recover.Keys([], None)
    backup = store.backup(example().name, keys)
    store.lacking(backup)
    recover.selected(backup, [])
    backup.packs_of(backup.of_sources())
    for source, artifacts in backup.sources.items():
        for artifact in artifacts:
            lines = recover.loading_files if backup.is_index(artifact) else recover.loading
            lines(backup.facts.get(artifact.name, {}), Path("/x") / backup.output(artifact), source)
            backup.unpacked_size(artifact)


def recovery_reads_ending(data: bytes, _folder: Path) -> None:
    body, _marker, tail = data.rpartition(MARKER)
    recover.authenticated(body, tail, recover.Keys([], None))


def recovery_reads_index(data: bytes, _folder: Path) -> None:
    with contextlib.closing(recover.Media(None)) as media:
        media.read_index(piece for piece in (data[:50], data[50:]))


def recovery_reads_pack(data: bytes, _folder: Path) -> None:
    with contextlib.closing(recover.Media(None)) as media:
        media.read_index(iter_of(real.index_bytes()))
        media.read_pack(piece for piece in (data[:700], data[700:]))
        media.finish()


def recovery_reads_frame(data: bytes, _folder: Path) -> None:
    for _content in recover.decompressed(iter_of(data)):
        pass


def iter_of(data: bytes) -> Generator[bytes, None, None]:
    yield data


PARSERS: dict[str, Parser] = {
    "manifest": Parser(real.manifest_bytes(), mutated_json, load_manifest),
    "index": Parser(real.index_bytes(), mutated_lines, read_index),
    "pack": Parser(real.pack_bytes(), mutated_bytes, unpack),
    "dump": Parser(real.dump_bytes(), mutated_bytes, read_dump),
    "statuses": Parser(real.STATUSES, mutated_bytes, read_statuses),
    "listing": Parser(real.LISTING, mutated_bytes, read_listing),
    "bucket": Parser(real.BUCKET, mutated_bytes, list_bucket, sample=60),
    "lines": Parser(real.LINES, mutated_lines, read_lines),
    "journal": Parser(real.JOURNAL, mutated_json, functools.partial(recall, journal._checked)),
    "note": Parser(real.NOTE, mutated_json, functools.partial(recall, notes._checked)),
    "leftovers": Parser(real.LEFTOVERS, mutated_json, functools.partial(recall, leftovers._parsed)),
    **{
        f"recover_{name}": Parser(given, change, read, recover.Problem)
        for name, given, change, read in (
            ("manifest", real.manifest_bytes(), mutated_json, recovery_reads_manifest),
            ("ending", real.sealed_bytes(), mutated_bytes, recovery_reads_ending),
            ("index", real.index_bytes(), mutated_lines, recovery_reads_index),
            ("pack", real.pack_bytes(), mutated_bytes, recovery_reads_pack),
            ("frame", real.FRAME, mutated_bytes, recovery_reads_frame),
        )
    },
}
