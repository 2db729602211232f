"""A manifest is read as it was written, or it is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mipyme_backup import manifest as manifests
from mipyme_backup.encryption.passphrase import derive_key
from mipyme_backup.errors import BackupError, DamagedError, KeyMissingError
from mipyme_backup.manifest import Manifest, SavedSource, StoredArtifact, Volume

SECRET = b"correct horse"
KEY = ("0123456789abcdef", SECRET)
NOON = datetime(2025, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)


def artifact(path: str = "manual_20250102T120000Z/database.default.dump.zst") -> StoredArtifact:
    return StoredArtifact(
        name="database.default.dump",
        path=path,
        raw_size=1000,
        stored_size=150,
        sha256="a" * 64,
        volumes=(Volume(size=100, sha256="b" * 64), Volume(size=50, sha256="c" * 64)),
    )


def example(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "id": "feedc0de12345678",
        "name": "manual_20250102T120000Z",
        "kind": "manual",
        "label": 'before, "authentication": the change\n ñ',
        "project": "shop",
        "started_at": NOON,
        "snapshot_at": NOON + timedelta(seconds=1),
        "finished_at": NOON + timedelta(minutes=1),
        "slot": NOON.replace(microsecond=0),
        "sequence": 7,
        "sources": (
            SavedSource(
                name="database:default",
                artifacts=(artifact(),),
                facts={"database.default.dump": {"tables": {"shop_order": 3}, "major": 16}},
            ),
        ),
        "packs": (artifact("pool/0123/files.tar.zst"),),
        "host": "web1",
        "versions": {"python": "3.11.7"},
        "migrations": {"default": ["shop.0001_initial"]},
        "warnings": ("a file was gone",),
        "encryption": "gpg-symmetric-aes256",
        "key_fingerprint": KEY[0],
    }
    return Manifest(**{**values, **changes})


def dumped(manifest: Manifest | None = None, key: tuple[str, bytes] | None = KEY) -> bytes:
    return manifests.dump(manifest or example(), key=key, derive_key=derive_key)


def load(
    data: bytes, *, secrets: dict[str, bytes] | None = None, trust_needed: bool = True
) -> Manifest:
    keys = {KEY[0]: SECRET} if secrets is None else secrets
    return manifests.load(
        data, secrets_by_key=keys, derive_key=derive_key, trust_needed=trust_needed
    )


def changed(change: dict[str, Any], key: tuple[str, bytes] | None = KEY) -> bytes:
    """Return a manifest with `change` at its top, signed as if it had been written so."""
    data = dumped(key=key)
    document = json.loads(data)
    del document["authentication"]
    document.update(change)
    return sealed(json.dumps(document, indent=1).encode().removesuffix(b"\n}"), key)


def body_of(project: str) -> bytes:
    return dumped(example(project=project)).rpartition(b',\n "authentication": ')[0]


def sealed(body: bytes, key: tuple[str, bytes] | None = KEY) -> bytes:
    seal = {"algorithm": "SHA-256", "digest": hashlib.sha256(body).hexdigest()}
    if key is not None:
        salt = hashlib.sha256(b"mipyme_backup manifest of shop").digest()[:16]
        digest = hmac.digest(derive_key(key[1], salt), body, "sha256").hex()
        seal = {"algorithm": "HMAC-SHA256", "key": key[0], "salt": salt.hex(), "digest": digest}
    return body + b',\n "authentication": ' + json.dumps(seal).encode() + b"\n}\n"


@pytest.mark.parametrize("key", [KEY, None])
def test_what_was_written_is_read(key: tuple[str, bytes] | None) -> None:
    assert load(dumped(key=key), trust_needed=key is not None) == example()


def test_the_least_that_can_be_said_is_read() -> None:
    manifest = Manifest(
        **{
            field.name: getattr(example(), field.name)
            for field in dataclasses.fields(Manifest)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
    )

    assert load(dumped(manifest)) == manifest


def test_the_file_is_json_with_the_authentication_last() -> None:
    document = json.loads(dumped())

    assert list(document)[-1] == "authentication"
    assert document["format"] == 1
    assert document["started_at"] == "2025-01-02T12:00:00.123456+00:00"


def test_times_are_utc_whatever_the_writer_used() -> None:
    local = NOON.astimezone(timezone(timedelta(hours=-5)))

    read = load(dumped(example(started_at=local)))

    assert read.started_at == NOON
    assert read.started_at.utcoffset() == timedelta(0)


def test_sums_and_names_come_from_all_artifacts() -> None:
    manifest = load(dumped())

    assert (manifest.raw_size, manifest.stored_size) == (2000, 300)
    assert [path for path, _volume in manifest.packs[0].volume_paths()] == [
        "pool/0123/files.tar.zst.00000",
        "pool/0123/files.tar.zst.00001",
    ]
    assert manifest.source("database:default") is not None
    assert manifest.source("media") is None


def test_the_signature_can_be_checked_by_hand() -> None:
    data = dumped()

    body, _marker, tail = data.rpartition(b',\n "authentication": ')
    seal = json.loads(tail.removesuffix(b"\n}\n"))
    key = hashlib.scrypt(
        SECRET, salt=bytes.fromhex(seal["salt"]), n=2**15, r=8, p=1, dklen=32, maxmem=2**26
    )

    assert seal["algorithm"] == "HMAC-SHA256"
    assert seal["key"] == KEY[0]
    assert hmac.new(key, body, "sha256").hexdigest() == seal["digest"]


def test_what_a_person_signed_by_hand_is_read() -> None:
    assert load(changed({"label": "by hand"})).label == "by hand"


@pytest.mark.parametrize("key", [KEY, None])
def test_every_byte_counts(key: tuple[str, bytes] | None) -> None:
    data = dumped(key=key)

    for position in range(len(data)):
        for flip in (0x01, 0x20, 0x80):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises((DamagedError, KeyMissingError)):
                load(bytes(damaged), trust_needed=key is not None)


@pytest.mark.parametrize("key", [KEY, None])
def test_a_manifest_cut_anywhere_is_refused(key: tuple[str, bytes] | None) -> None:
    data = dumped(key=key)

    for length in range(len(data)):
        with pytest.raises(DamagedError):
            load(data[:length], trust_needed=key is not None)


@pytest.mark.parametrize("more", [b"\n", b" ", b"{}", b"\0" * 512])
def test_a_longer_manifest_is_refused(more: bytes) -> None:
    with pytest.raises(DamagedError):
        load(dumped() + more)
    with pytest.raises(DamagedError):
        load(more + dumped())


def test_the_authentication_of_another_manifest_does_not_fit() -> None:
    one, two = dumped(), dumped(example(label="another"))
    marker = b',\n "authentication": '
    swapped = one.rpartition(marker)[0] + marker + two.rpartition(marker)[2]

    with pytest.raises(DamagedError, match="not authentic"):
        load(swapped)


def test_a_second_authentication_does_not_hide_the_first() -> None:
    forged = sealed(dumped().removesuffix(b"\n}\n"), None)

    with pytest.raises(DamagedError):
        load(forged)


def test_unsigned_is_refused_where_trust_is_needed() -> None:
    unsigned = dumped(example(encryption=None, key_fingerprint=None), key=None)

    with pytest.raises(DamagedError, match="not signed"):
        load(unsigned, trust_needed=True)
    assert load(unsigned, trust_needed=False).encryption is None


def test_a_signed_manifest_taken_down_to_a_checksum_is_refused() -> None:
    downgraded = changed({"encryption": None}, key=None)

    with pytest.raises(DamagedError, match="not signed"):
        load(downgraded, trust_needed=True)


def test_a_key_that_is_not_at_hand_is_named() -> None:
    with pytest.raises(KeyMissingError, match=KEY[0]) as caught:
        load(dumped(), secrets={"ffffffffffffffff": b"other"})

    assert caught.value.exit_status == 4
    assert "ENCRYPTION" in str(caught.value.hint)


def test_another_secret_under_the_same_name_does_not_authenticate() -> None:
    with pytest.raises(DamagedError, match="not authentic"):
        load(dumped(), secrets={KEY[0]: b"wrong"})


def test_a_signature_is_checked_even_where_no_trust_is_needed() -> None:
    with pytest.raises(DamagedError, match="not authentic"):
        load(dumped().replace(b"shop", b"sh0p"), trust_needed=False)


@pytest.mark.parametrize(
    "tail",
    [
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"{" * 100_000,
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"algorithm": "SHA-256", "digest": "\\ud800"}',
        b'{"algorithm": "SHA-256", "digest": null}',
        b'{"algorithm": "HMAC-SHA256", "key": "0123456789abcdef", "salt": "zz", "digest": ""}',
        b'{"algorithm": "HMAC-SHA256", "key": ["0123456789abcdef"]}',
        b'{"algorithm": "none"}',
        b'{"algorithm": ["SHA-256"]}',
        b'{"digest": 1' + b"0" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("trust_needed", [True, False])
def test_a_malicious_authentication_is_no_traceback(tail: bytes, trust_needed: bool) -> None:
    body = dumped().rpartition(b',\n "authentication": ')[0]

    with pytest.raises((DamagedError, KeyMissingError)):
        load(
            body + b',\n "authentication": ' + tail + b"\n}\n",
            trust_needed=trust_needed,
        )


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 100, b"null\n", b'{"format": 1}'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        load(data)


def test_a_huge_file_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(DamagedError, match="larger"):
        load(bytes(manifests.MAX_BYTES + 1))


def test_a_manifest_that_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(BackupError, match="larger"):
        dumped(example(label="x" * manifests.MAX_BYTES))


@pytest.mark.parametrize("number", [0, 2, 99, "1", None, 1.5])
def test_another_format_is_named(number: object) -> None:
    with pytest.raises(DamagedError, match="format") as caught:
        load(changed({"format": number}))

    assert "version" in str(caught.value.hint)


def test_fields_that_a_later_release_adds_do_no_harm() -> None:
    assert load(changed({"colour": "blue"})) == example()


TRAVERSALS = [
    "../outside",
    "a/../../outside",
    "/etc/passwd",
    "a//b",
    "a/./b",
    "a/",
    ".",
    "..",
    "",
    "a\0b",
    "a\n",
    "a\\b",
    "a b",
    "ñ",
    "a;id",
    "$(id)",
    7,
    None,
    ["a"],
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_a_path_that_leads_elsewhere_is_refused(path: object) -> None:
    stored = dataclasses.asdict(artifact())

    with pytest.raises(DamagedError, match="cannot be understood"):
        load(changed({"packs": [{**stored, "path": path}]}))
    with pytest.raises(DamagedError, match="cannot be understood"):
        load(changed({"name": path}))


@pytest.mark.parametrize("path", ["monthly/mipyme_backup_202501", "a.b-c_d%41/e=f+g@h", "a..b/.c"])
def test_a_path_that_stays_below_is_read(path: str) -> None:
    stored = dataclasses.asdict(artifact())

    assert load(changed({"packs": [{**stored, "path": path}]})).packs[0].path == path


def with_artifact(**change: Any) -> dict[str, Any]:
    return {"packs": [{**dataclasses.asdict(artifact()), **change}]}


HUGE = float("inf")


@pytest.mark.parametrize(
    "change",
    [
        {"sources": None},
        {"sources": [None]},
        {"sources": [{"name": "x"}]},
        {"packs": {}, "sources": {"a": 1}},
        {"started_at": None},
        {"started_at": "yesterday"},
        {"started_at": "2025-01-02T12:00:00"},
        {"started_at": "0001-01-01T00:00:00+14:00"},
        {"slot": 7},
        {"sequence": "7"},
        {"sequence": HUGE},
        {"id": None},
        {"id": {"a": 1}},
        {"kind": []},
        {"sequence": -1},
        {"sequence": True},
        {"sequence": 2**62},
        {"id": ""},
        {"id": "../../etc"},
        {"id": "a" * 33},
        {"kind": "daily\x1b[2J"},
        {"finished_at": "9999-12-31T23:59:59+00:00"},
        {"finished_at": "0001-01-02T00:00:00+00:00"},
        {"warnings": [{}]},
        {"sources": [{"name": "x", "artifacts": [], "facts": []}]},
        {"sources": [{"name": "x", "artifacts": [], "facts": {"x": "engine"}}]},
        {"sources": [{"name": 7, "artifacts": [], "facts": {}}]},
        with_artifact(name=None),
        with_artifact(raw_size=2**62),
        {"label": 1},
        {"warnings": "text"},
        {"migrations": []},
        {"versions": None},
        {"whole": "yes"},
        {"encryption": 1},
        {"key_fingerprint": ["x"]},
        with_artifact(volumes=None),
        with_artifact(volumes=[{}]),
        with_artifact(volumes=[{"size": 150, "sha256": None}]),
        with_artifact(volumes=[{"size": 150, "sha256": "B" * 64}]),
        with_artifact(volumes=[{"size": "150", "sha256": "b" * 64}]),
        with_artifact(volumes=[{"size": HUGE, "sha256": "b" * 64}]),
        with_artifact(volumes=[{"size": 151, "sha256": "b" * 64}]),
        with_artifact(
            volumes=[{"size": 200, "sha256": "b" * 64}, {"size": -50, "sha256": "b" * 64}]
        ),
        with_artifact(volumes=[]),
        with_artifact(raw_size=-1),
        with_artifact(raw_size=True),
        with_artifact(raw_size="1000"),
        with_artifact(sha256=""),
        with_artifact(surprise=1),
    ],
)
def test_a_field_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match="cannot be understood"):
        load(changed(change))


def test_numbers_that_no_database_has_room_for_are_refused_in_sum_too() -> None:
    large = [{**dataclasses.asdict(artifact()), "raw_size": 2**61} for _turn in range(2)]

    with pytest.raises(DamagedError, match="cannot be understood"):
        load(changed({"packs": large}))


def test_a_message_quotes_no_more_than_a_line_of_what_is_hostile() -> None:
    changes: list[dict[str, Any]] = [
        {"format": "\x1b[2J" * 1000},
        {"id": "\x1b[2J" * 1000},
        {"finished_at": "z" * 10**6},
        with_artifact(**{"\x1b[2J": 1}),
    ]
    for change in changes:
        with pytest.raises(DamagedError) as caught:
            load(changed(change))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
    ending = json.dumps({"algorithm": "HMAC-SHA256", "key": "\x1b[2J\n"}).encode()
    with pytest.raises(KeyMissingError) as missing:
        load(b'{\n "a": 1,\n "authentication": ' + ending + b"\n}\n")
    assert str(missing.value).isprintable()


def test_many_small_values_are_refused_before_they_take_memory() -> None:
    many = b'{\n "format": 1,\n "a": [' + b"[]," * 3_000_000 + b"[]]"
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match="too large"):
            load(sealed(many, None), trust_needed=False)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 6 * len(many)  # parsed they take thirty times as much


def test_an_ending_is_parsed_only_where_it_is_as_short_as_ours() -> None:
    data = b'{\n "format": 1,\n "authentication": [' + b"[]," * 3_000_000 + b"[]]\n}\n"
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match="cut off"):
            load(data, trust_needed=False)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 6 * len(data)


@pytest.mark.parametrize(
    "body",
    [
        body_of("shop").replace(b'"shop"', b'"other"'),
        body_of("shop").replace(b' "project"', b' "Project"'),
        body_of("shop").replace(b'"shop"', b'"\\ud800"'),
        body_of("shop").replace(b'"shop"', b'"\\"'),
        body_of("shop").replace(b'"shop"', b"7"),
        b'{\n "label": "' + b"x" * 20_000 + b'",\n "project": "shop"',
    ],
)
def test_a_salt_that_is_not_the_projects_costs_no_scrypt(body: bytes) -> None:
    def derive(secret: bytes, salt: bytes) -> bytes:
        raise AssertionError("no key may be derived")

    with pytest.raises(DamagedError, match="not authentic"):
        manifests.load(
            sealed(body), secrets_by_key={KEY[0]: SECRET}, derive_key=derive, trust_needed=True
        )


@pytest.mark.parametrize("project", ["shop", "Öl & Söhne", 'a"b\\c', "ñ" * 250, "x" * 255])
def test_the_salt_is_that_of_the_project_whatever_it_is_called(project: str) -> None:
    assert load(dumped(example(project=project))).project == project


@pytest.mark.parametrize(
    "body",
    [
        b"[1",
        b"{",
        b'"text"',
        b'{"format": 1',
        b"\xff",
        b'{"format": 1, "a": ' + b"[" * 100_000,
        b'{"format": 1' + b"0" * 5000,
    ],
)
def test_a_malicious_body_is_no_traceback(body: bytes) -> None:
    for key in (KEY, None):
        with pytest.raises(DamagedError):
            load(sealed(body, key), trust_needed=key is not None)


def test_what_has_no_place_in_a_manifest_is_not_written() -> None:
    with pytest.raises(TypeError, match="bytes"):
        dumped(example(versions={"a": b"raw"}))


def test_no_secret_is_in_the_file() -> None:
    data = dumped()

    assert SECRET not in data
    assert SECRET.hex().encode() not in data
