"""Whatever comes from outside, a parser returns or raises an error of ours."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from paramiko import SFTPError
from paramiko.sftp_attr import SFTPAttributes

from mipyme_backup import journal, manifest, recover
from mipyme_backup.authentication import MARKER, ending
from mipyme_backup.destinations.access.sftp import _size_of_file
from mipyme_backup.destinations.rsync_listing import parse_listing, parse_modified
from mipyme_backup.encryption import program
from mipyme_backup.errors import BackupError, StateError
from mipyme_backup.operations import notes
from mipyme_backup.sources.content import check_lines
from mipyme_backup.sources.media.index import FileRecord, FolderRecord, read_records
from mipyme_backup.sources.media.names import checked
from mipyme_backup.sources.media.remote.listing import Listing, Numbered
from mipyme_backup.sources.media.remote.objects import Found
from mipyme_backup.sources.postgresql import archive
from mipyme_backup.state import State
from tests.unit.test_manifest import example

INPUTS = 300
DEEP = b"[" * 200_000
DIGITS = b"9" * 5000
PIECES = (
    b"\0", b"\n", b" ", b'"', b"\\", b"\xff", b"\xed\xa0\x80", b"-1", b"null", b"true", b"[]",
    b"{}", b'""', b"1e999", b"NaN", b"9223372036854775808", b'"\\ud800"', b"0", b"\x80" * 8,
    DIGITS, DEEP,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**400, 1e999, "", "\0", "\ud800", "..", "a/../b", "é" * 300, [],
    {}, [None], [[]], {"a": None}, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
)  # fmt: skip


class Source:
    """A reader of the bytes, in pieces of uneven sizes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        taken, self._data = self._data[: min(size, 60_000)], self._data[min(size, 60_000) :]
        return taken

    def close(self) -> None:
        pass


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return `data` with a few bytes changed, cut out, doubled, or replaced by odd pieces."""
    changed = bytearray(data)
    for _turn in range(chance.choice((1, 1, 2, 5))):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice((0, 1, 1, 4, 30)))
        way = chance.randrange(5)
        if way == 0:
            changed[start:end] = chance.randbytes(end - start)
        elif way == 1:
            changed[start:end] = chance.choice(PIECES)
        elif way == 2:
            changed[start:start] = changed[start:end] * chance.choice((1, 3))
        elif way == 3:
            del changed[start:]
        elif start < len(changed):
            changed[start] ^= 1 << chance.randrange(8)
    return bytes(changed)


def mutated_value(value: Any, chance: random.Random) -> Any:
    """Return `value` with one of its parts, at any depth, replaced, left out or doubled."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return chance.choice(VALUES)
    copy: Any = value.copy()
    at = chance.choice([*copy]) if isinstance(copy, dict) else chance.randrange(len(copy))
    way = chance.randrange(8)
    if way == 0:
        del copy[at]
    elif way == 1 and isinstance(copy, dict):
        copy[chance.choice(("", "\ud800", "format", "a" * 300))] = copy[at]
    elif way == 1:
        copy.append(copy[at])
    else:
        copy[at] = mutated_value(copy[at], chance)
    return copy


def mutated_json(text: bytes, chance: random.Random) -> bytes:
    """Return JSON changed in its structure, or in its bytes."""
    if chance.random() < 0.4:
        return mutated_bytes(text, chance)
    return json.dumps(mutated_value(json.loads(text), chance), indent=1).encode()


def mutated_lines(text: bytes, chance: random.Random) -> bytes:
    """Return lines of JSON, one of them changed in its structure, or all in their bytes."""
    if chance.random() < 0.4:
        return mutated_bytes(text, chance)
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    lines[at] = json.dumps(mutated_value(json.loads(lines[at]), chance)).encode()
    return b"\n".join(lines) + b"\n"


# ---------------------------------------------------------------------- the real inputs


def manifest_bytes() -> bytes:
    data = manifest.dump(example(), key=None, derive_key=_no_key)
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


# ---------------------------------------------------------------------- the parsers


def _no_key(_secret: bytes, _salt: bytes) -> bytes:
    return b"k" * 32


def load_manifest(data: bytes) -> None:
    """Sealed, so that the parser gets what was changed."""
    body = data.removesuffix(b"\n}")
    sealed = body + MARKER + ending(body, "shop", None, _no_key)
    for given in (sealed, data):
        try:
            loaded = manifest.load(given, secrets_by_key={}, derive_key=_no_key, trust_needed=False)
        except BackupError:
            continue
        loaded.artifacts(), manifest.row_counts(loaded.facts), manifest.media_bytes(loaded.facts)


def read_index(data: bytes) -> None:
    for record in read_records(Source(data)):
        checked(record.path)
        assert record.line().decode()
        if isinstance(record, FileRecord):
            record.pack.encode()


def read_dump(data: bytes) -> None:
    stream = archive.WholeDump(Source(data))
    while stream.read(1000):
        pass


def read_statuses(data: bytes) -> None:
    text = data.decode(errors="replace")
    for check in (program._check_decrypted, program._check_encrypted):
        try:
            check(0, text)
        except BackupError as error:
            str(error)
    program._check_decrypted_by_keyring(0, text)


def read_listing(data: bytes) -> None:
    parse_modified(data)
    assert all(0 <= entry.size < 2**63 for entry in parse_listing(data, others=True))


def recall(parse: Callable[[Any], Any], folder: Path, data: bytes) -> None:
    file = folder / "record.json"
    file.write_bytes(data)
    State(folder).recall("record.json", parse)


Parse = Callable[[bytes], None]
Mutate = Callable[[bytes, random.Random], bytes]
PARSERS: dict[str, tuple[bytes, Mutate, Callable[[Path], Parse]]] = {
    "manifest": (manifest_bytes(), mutated_json, lambda _folder: load_manifest),
    "index": (index_bytes(), mutated_lines, lambda _folder: read_index),
    "dump": (dump_bytes(), mutated_bytes, lambda _folder: read_dump),
    "statuses": (STATUSES, mutated_bytes, lambda _folder: read_statuses),
    "listing": (LISTING, mutated_bytes, lambda _folder: read_listing),
    "lines": (LINES, mutated_lines, lambda _folder: lambda data: check_lines(Source(data))),
    "journal": (
        JOURNAL,
        mutated_json,
        lambda folder: functools.partial(recall, journal._checked, folder),
    ),
    "note": (
        NOTE,
        mutated_json,
        lambda folder: functools.partial(recall, notes._checked, folder),
    ),
}


@pytest.fixture
def private(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "record.json").touch(mode=0o600)
    return tmp_path


def try_out(name: str, count: int, chance: random.Random, folder: Path) -> None:
    real, mutate, made = PARSERS[name]
    parse, refused = made(folder), 0
    parse(real)
    for number in range(count):
        data = mutate(real, chance)
        try:
            parse(data)
        except BackupError as error:
            str(error), str(error.message)
            refused += 1
        except Exception as error:
            shown = data if len(data) < 3000 else data[:1500] + b" ... " + data[-1500:]
            raise AssertionError(f"{name}, input {number}: {error!r:.300} for {shown!r}") from error
    assert refused or name == "manifest"  # which is tried twice, and refuses by itself


@pytest.mark.parametrize("name", PARSERS)
def test_changed_input_is_read_or_refused(
    name: str, private: Path, torture_random: random.Random
) -> None:
    try_out(name, INPUTS, torture_random, private)


@pytest.mark.torture
@pytest.mark.parametrize("name", PARSERS)
def test_much_changed_input_is_read_or_refused(
    name: str,
    private: Path,
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
) -> None:
    try_out(name, scaled(10_000, INPUTS), torture_random, private)


SURROGATE_PACK = index_bytes().replace(b'"pool/', b'"\\ud800/')


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("dump", dump_bytes(entry_id=-1)),
        *(("dump", dump_bytes(integer_size=size)) for size in (1, 2, 8, 255)),
        *(("dump", dump_bytes()[:9] + bytes([size]) + dump_bytes()[10:]) for size in (0, 1, 255)),
        ("dump", b"PGDMP\x01\x10\x00\x00\x00\x01\x00" + bytes(100)),
        ("statuses", b"[GNUPG:] \n"),
        ("statuses", b"[GNUPG:]  \n"),
        ("listing", b"-rw-------  " + DIGITS + b" 2025/01/02 12:00:00 a\n"),
        ("listing", b"-rw-------  9223372036854775808 2025/01/02 12:00:00 a\n"),
        ("index", SURROGATE_PACK),
        ("index", index_bytes().replace(b'"size":5', b'"size":' + DIGITS)),
        ("index", DEEP + b"\n"),
        ("lines", DEEP + b"\n"),
        ("lines", DIGITS + b"\n"),
        ("journal", JOURNAL.replace(b'"done"', b"[]")),
        ("note", NOTE.replace(b'"manual_20250102T120000Z"', b"{}")),
        ("note", DEEP),
    ],
)
def test_crafted_input_is_refused(name: str, data: bytes, private: Path) -> None:
    with pytest.raises((BackupError, StateError)):
        PARSERS[name][2](private)(data)


@pytest.mark.parametrize(
    "found",
    [
        Found("a", size=2**63),
        Found("a", size=-1),
        Found("a", mtime_ns=2**63),
        Found("a", tag="\ud800"),
    ],
)
def test_a_listing_of_media_takes_any_size_time_and_tag(found: Found) -> None:
    listing = Listing([found, Found("b", 1)])

    assert [entry.path for entry in listing.entries()] == [b"a", b"b"]
    listing.close()


def test_a_file_of_ours_is_called_by_a_number_that_a_table_holds() -> None:
    numbered = Numbered([Found("x/" + "9" * 30, 1), Found("x/7", 2**70), Found("x/8", 3)])

    assert numbered.size(8) == 3
    numbered.close()


@pytest.mark.parametrize(
    ("mode", "size"), [(None, 5), (0o100600, None), (0o100600, 2**63), (None, None)]
)
def test_sftp_attributes_may_be_absent_or_out_of_range(mode: int | None, size: int | None) -> None:
    class Client:
        def lstat(self, _path: str) -> SFTPAttributes:
            attributes = SFTPAttributes()
            attributes.st_mode, attributes.st_size = mode, size
            return attributes

    if mode is None:
        assert _size_of_file(Client(), "a") is None
    else:
        with pytest.raises(SFTPError):
            _size_of_file(Client(), "a")


def recovery_reads_manifest(data: bytes, folder: Path) -> None:
    body = data.removesuffix(b"\n}")
    file = folder / example().name / recover.MANIFEST
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(body + MARKER + ending(body, "shop", None, _no_key))
    store, keys = recover.Store(folder), recover.Keys([], None)
    backup = store.backup(example().name, keys)
    store.lacking(backup)
    recover.selected(backup, [])
    for source, artifacts in backup.sources.items():
        for artifact in artifacts:
            recover.loading(backup.facts.get(artifact.name, {}), Path("/x"), source)


def recovery_reads_ending(data: bytes, _folder: Path) -> None:
    body, _marker, tail = data.rpartition(MARKER)
    recover.authenticated(body, tail, recover.Keys([], None))


def recovery_reads_index(data: bytes, _folder: Path) -> None:
    with contextlib.closing(recover.Media(None)) as media:
        media.read_index(piece for piece in (data[:50], data[50:]))


def recovery_reads_pack(data: bytes, _folder: Path) -> None:
    with contextlib.closing(recover.Media(None)) as media:
        media.read_index(iter_of(index_bytes()))
        media.read_pack(piece for piece in (data[:700], data[700:]))
        media.finish()


def recovery_reads_frame(data: bytes, _folder: Path) -> None:
    for _content in recover.decompressed(iter_of(data)):
        pass


def iter_of(data: bytes) -> Generator[bytes, None, None]:
    yield data


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
    return manifest.dump(example(), key=None, derive_key=_no_key)


FRAME = zstd.compress(LINES * 20, options={zstd.CompressionParameter.checksum_flag: 1})
Read = Callable[[bytes, Path], None]
RECOVERY: dict[str, tuple[bytes, Mutate, Read]] = {
    "manifest": (manifest_bytes(), mutated_json, recovery_reads_manifest),
    "ending": (sealed_bytes(), mutated_bytes, recovery_reads_ending),
    "index": (index_bytes(), mutated_lines, recovery_reads_index),
    "pack": (pack_bytes(), mutated_bytes, recovery_reads_pack),
    "frame": (FRAME, mutated_bytes, recovery_reads_frame),
}


def try_recovery(name: str, count: int, chance: random.Random, folder: Path) -> None:
    real, mutate, read = RECOVERY[name]
    read(real, folder)
    longest = 0
    for number in range(count):
        data = mutate(real, chance)
        try:
            read(data, folder)
        except recover.Problem as problem:
            longest = max(longest, len(str(problem)))
        except Exception as error:
            raise AssertionError(f"input {number}: {error!r:.300} for {data[:3000]!r}") from error
    assert 0 < longest < 2000


@pytest.mark.parametrize("name", RECOVERY)
def test_the_recovery_program_reads_changed_input_or_names_the_problem(
    name: str, tmp_path: Path, torture_random: random.Random
) -> None:
    try_recovery(name, INPUTS, torture_random, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("name", RECOVERY)
def test_the_recovery_program_reads_much_changed_input_or_names_the_problem(
    name: str,
    tmp_path: Path,
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
) -> None:
    try_recovery(name, scaled(10_000, INPUTS), torture_random, tmp_path)
