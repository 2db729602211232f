"""`recover.py` stands alone, speaks both languages, and takes no index or stream at its word."""

from __future__ import annotations

import argparse
import ast
import grp
import hashlib
import io
import json
import os
import pwd
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from mipyme_backup import recover

SOURCE = Path(recover.__file__).read_text()
TREE = ast.parse(SOURCE)
CONTENT = b"content"
HASH = hashlib.sha256(CONTENT).hexdigest()
LINE = {"path": "a", "size": 7, "mtime_ns": 0, "mode": 0o600, "sha256": HASH}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """An empty folder inside another one, and its descriptor."""
    inside = tmp_path / "around" / "media"
    inside.mkdir(parents=True)
    descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    yield inside, descriptor
    os.close(descriptor)


def test_imports_the_standard_library_alone() -> None:
    imported = {
        name.partition(".")[0]
        for node in ast.walk(TREE)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported <= sys.stdlib_module_names


def test_syntax_is_that_of_python_3_9() -> None:
    ast.parse(SOURCE, feature_version=(3, 9))


def test_constants_are_those_of_the_format() -> None:
    from mipyme_backup import authentication, manifest
    from mipyme_backup.encryption import passphrase
    from mipyme_backup.sources.media import names
    from mipyme_backup.sources.media.index import INDEX_NAME

    assert recover.MARKER == authentication.MARKER
    assert recover.MANIFEST == manifest.FILE_NAME
    assert recover.MANIFEST_BYTES == manifest.MAX_BYTES
    assert recover.INDEX == INDEX_NAME
    assert recover.MANIFEST_VALUES == manifest.MAX_VALUES
    assert recover.ENDING_BYTES == authentication.MAX_ENDING
    assert recover.CLAIMED_PROJECT.pattern == authentication.CLAIMED_PROJECT.pattern
    assert recover.CLAIM_WITHIN == authentication.CLAIM_WITHIN
    assert recover.PATH_BYTES == names.MAX_PATH_BYTES
    body = b'{\n "project": "shop"'
    assert recover.claimed_salt(body) == authentication.salt_of("shop")
    assert recover.FINGERPRINT_SALT == passphrase.FINGERPRINT_SALT
    assert recover.fingerprint(b"secret") == passphrase.fingerprint(b"secret")


def test_every_text_is_in_spanish_too() -> None:
    said = {text for text in _texts() if re.search(r"[A-Za-z]", re.sub(r"%\(\w+\)s", "", text))}

    assert len(said) > 60
    assert said - set(recover.SPANISH) == set()
    assert set(recover.SPANISH) - said == set()
    for english, spanish in recover.SPANISH.items():
        assert sorted(_placeholders(english)) == sorted(_placeholders(spanish))


@pytest.mark.parametrize(
    ("argv", "environment", "expected"),
    [
        (["list"], {}, "en"),
        (["list"], {"LANG": "es_AR.UTF-8"}, "es"),
        (["list"], {"LANG": "es_AR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        (["list", "--language", "es"], {}, "es"),
        (["list", "--language=en"], {"LANG": "es_AR.UTF-8"}, "en"),
        (["list", "--language"], {}, "en"),
    ],
)
def test_language(
    argv: list[str], environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert recover.wanted_language(argv) == expected


def test_shown__what_a_terminal_would_act_on_is_escaped() -> None:
    assert recover.shown("a\x1b[31m\nñ\udcff🦆") == r"a\x1b[31m\nñ\udcff🦆"


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2 * 10**15, "2000.0 TB")],
)
def test_human(size: int, expected: str) -> None:
    assert recover.human(size) == expected


def test_loading__odd_names_are_quoted_for_the_shell() -> None:
    facts = {
        "engine": "postgresql",
        "version": "17.2",
        "major": 17,
        "database": "a;id $(x)",
        "encoding": "UTF8",
        "locale_provider": "builtin",
        "builtin_locale": "C.UTF-8",
        "collate": "C",
        "ctype": "C",
    }

    lines = recover.loading(facts, Path("/to/data base.dump"), "database:default")

    assert lines == [
        "# PostgreSQL 17.2: needs a server and client tools of 17 or newer",
        (
            "createdb --template=template0 --encoding=UTF8 --locale-provider=builtin"
            " --lc-collate=C --lc-ctype=C --builtin-locale=C.UTF-8 -- 'a;id $(x)_recovered'"
        ),
        "pg_restore --no-owner --dbname='a;id $(x)_recovered' '/to/data base.dump'",
    ]


@pytest.mark.parametrize("secret", [b"", b"\n", b"two\nlines", b"windows\r\n", b"x" * 4097])
def test_secret_of_another_shape_is_refused(secret: bytes) -> None:
    with pytest.raises(recover.Problem) as caught:
        recover.Keys([], None).add(secret, "file")

    assert caught.value.status == recover.FAILED


# Media: what an index and a pack may say.


def test_media_comes_back(folder: tuple[Path, int]) -> None:
    path, descriptor = folder
    index = [
        {"path": "a/", "mode": 0o500},
        record("a/one", mtime_ns=-1_000_000_001, mode=0o440),
        record("b/c/two"),
        record("\udcff", mode=0o4755),
    ]

    read(descriptor, index, pack((HASH, CONTENT), ("0" * 64, b"nobody asked for it")))

    assert (path / "a" / "one").read_bytes() == CONTENT
    assert (path / "a" / "one").stat().st_mtime_ns == -1_000_000_001
    assert (path / "a" / "one").stat().st_mode & 0o7777 == 0o440
    assert (path / "a").stat().st_mode & 0o7777 == 0o500
    assert (path / "b").stat().st_mode & 0o7777 == 0o755
    assert (path / "b" / "c" / "two").read_bytes() == CONTENT
    assert (Path(os.fsdecode(os.fsencode(path) + b"/\xff"))).stat().st_mode & 0o7777 == 0o755
    assert sorted(os.listdir(path)) == sorted(["a", "b", "\udcff"])


def test_media__links_come_back_last_and_nothing_is_written_through_them(
    folder: tuple[Path, int],
) -> None:
    path, descriptor = folder
    index = [
        {"path": "a/", "mode": 0o500},
        record("a/file"),
        link("a/out", "/nowhere"),
        link("up\udcff", "../.."),
    ]

    read(descriptor, index, pack((HASH, CONTENT)))

    assert os.readlink(path / "a" / "out") == "/nowhere"
    assert os.readlink(path / "up\udcff") == "../.."
    assert (path / "a" / "out").lstat().st_mtime_ns == 12
    assert (path / "a").stat().st_mode & 0o777 == 0o500


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_media__owners_and_groups_come_back_as_root(folder: tuple[Path, int]) -> None:
    path, descriptor = folder
    known = {"uid": 7777, "user": "daemon", "gid": 7777, "group": "daemon"}
    taken = {"uid": 1, "user": "no-such-user", "gid": 1, "group": "no-such-group"}
    index = [
        {"path": "a/", "mode": 0o3770, **known},
        record("a/file", mode=0o6755, **known),
        record("number", uid=1_234_567, gid=1_234_567, mode=0o600),
        {"path": "taken/", "mode": 0o2755, **taken},
        {**link("out", "/nowhere"), **known},
    ]

    read(descriptor, index, pack((HASH, CONTENT)))

    found = {}
    for name in ("a", "a/file", "number", "taken", "out"):
        status = (path / name).lstat()
        found[name] = (status.st_uid, status.st_gid, status.st_mode & 0o7777)
    daemon = pwd.getpwnam("daemon")
    owner = (daemon.pw_uid, grp.getgrnam("daemon").gr_gid)
    assert found["a"] == (*owner, 0o3770)
    assert found["a/file"] == (*owner, 0o755)
    assert found["number"] == (1_234_567, 1_234_567, 0o600)
    assert found["taken"] == (0, 0, 0o755)
    assert found["out"][:2] == owner


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are read as root alone")
@pytest.mark.parametrize(
    "fields",
    [
        {"uid": -1, "gid": 0},
        {"uid": 0},
        {"uid": 2**32 - 1, "gid": 0},
        {"uid": 0, "gid": "x"},
        {"uid": 0, "gid": 0, "user": 5},
        {"uid": 0, "gid": 0, "group": "a\0b"},
        {"uid": [], "gid": 0},
    ],
    ids=repr,
)
def test_media__owners_that_are_none_are_refused(
    folder: tuple[Path, int], fields: dict[str, Any]
) -> None:
    refused(folder[1], [{**LINE, **fields}], pack((HASH, CONTENT)))


@pytest.mark.parametrize("written", [True, False], ids=["written", "only checked"])
def test_media__something_at_or_below_a_link_is_refused(
    folder: tuple[Path, int], written: bool
) -> None:
    path, descriptor = folder
    out = link("a", str(path.parent))
    for index in (
        [out, record("a/b")],
        [record("a/b"), out],
        [out, record("a")],
        [out, {"path": "a/", "mode": 0o755}],
        [out, out],
        [out, link("a/b", "x")],
        [link("../a", "x")],
        [link("a", "")],
        [link("a", "x\0y")],
        [{**out, "link": 1}],
        [{**out, "link": "x" * 5000}],
    ):
        refused(descriptor if written else None, index, pack((HASH, CONTENT)))

    assert os.listdir(path.parent) == [path.name]
    assert not any(found.is_symlink() for found in path.rglob("*"))


def test_media__zeros_and_their_ends(folder: tuple[Path, int]) -> None:
    path, descriptor = folder
    contents = [bytes(recover.CHUNK * 2 + 5), bytes(recover.CHUNK) + b"x", b"x" + bytes(9), b""]
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    index = [
        record(name, size=len(content), sha256=sha256)
        for number, (content, sha256) in enumerate(zip(contents, hashes, strict=True))
        for name in (f"{number}", f"{number} again")
    ]

    read(descriptor, index, pack(*zip(hashes, contents, strict=True)))

    for number, content in enumerate(contents):
        assert (path / f"{number}").read_bytes() == content
        assert (path / f"{number} again").read_bytes() == content


def test_media__a_content_that_changed_while_it_was_packed_gives_way(
    folder: tuple[Path, int],
) -> None:
    path, descriptor = folder

    read(descriptor, [record("one")], pack((HASH, b"CONTENT"), (HASH, CONTENT)))

    assert (path / "one").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "name",
    ["../out", "/etc/out", "a/../../out", "a//b", "./a", "a/.", "", "a\0b", "..", "a/" * 300 + "b"],
)
@pytest.mark.parametrize("written", [True, False], ids=["written", "only checked"])
def test_media__a_path_that_leads_out_is_refused(
    folder: tuple[Path, int], name: str, written: bool
) -> None:
    path, descriptor = folder
    refused(descriptor if written else None, [record(name)], pack((HASH, CONTENT)))

    assert list(path.parent.parent.rglob("*")) == [path.parent, path]


@pytest.mark.parametrize(
    "index",
    [
        [LINE] * 2,
        [LINE, {**LINE, "path": "a/b"}],
        [{**LINE, "path": "a/b"}, LINE],
        [{"path": "a/", "mode": 0o700}, LINE],
        [{**LINE, "size": 8}],
        [{**LINE, "size": -1}],
        [{**LINE, "size": True}],
        [{**LINE, "sha256": "../" + HASH}],
        [{**LINE, "mode": "rw"}],
        [{**LINE, "mtime_ns": 10**30}],
        [{**LINE, "sha256": "f" * 64}],
        [{"path": "a"}],
        ["a"],
        [None],
    ],
    ids=repr,
)
def test_media__an_index_that_contradicts_is_refused(
    folder: tuple[Path, int], index: list[Any]
) -> None:
    path, descriptor = folder
    refused(descriptor, index, pack((HASH, CONTENT)))

    assert set(path.parent.rglob("*")) <= {path, path / "a", path / "a" / "b"}


def test_media__an_index_cut_off_or_of_one_endless_line_is_refused() -> None:
    for text in (b'{"path": "a/", "mode": 448}', b"x" * (recover.LINE_BYTES + recover.CHUNK)):
        with closing(recover.Media(None)) as media, pytest.raises(recover.Problem):
            media.read_index(chunks(text))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, b"L", b"x"])
def test_media__a_member_that_is_no_file_is_refused(folder: tuple[Path, int], kind: bytes) -> None:
    path, descriptor = folder
    member = tarfile.TarInfo(HASH)
    member.type, member.linkname, member.size = kind, "/etc/passwd", len(CONTENT)
    data = member.tobuf(tarfile.GNU_FORMAT) + CONTENT.ljust(512, b"\0") + bytes(1024)
    refused(descriptor, [record("a")], data)

    assert list(path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: pack(("../../out", CONTENT)), id="a name that is no hash"),
        pytest.param(lambda: pack((HASH, CONTENT))[:515], id="cut off inside a member"),
        pytest.param(lambda: pack((HASH, CONTENT))[:1024], id="cut off after a member"),
        pytest.param(lambda: b"\xff" * 2048, id="no archive"),
        pytest.param(lambda: pack((HASH, b"CONTENT")), id="another content"),
        pytest.param(lambda: pack((HASH, CONTENT + b"!")), id="another size"),
        pytest.param(lambda: b"", id="nothing"),
    ],
)
def test_media__a_damaged_pack_is_refused(folder: tuple[Path, int], data: Any) -> None:
    path, descriptor = folder
    refused(descriptor, [record("a")], data())

    assert list(path.parent.iterdir()) == [path]


def test_media__a_link_that_somebody_puts_in_the_way_is_not_followed(
    folder: tuple[Path, int], tmp_path: Path
) -> None:
    path, descriptor = folder
    (tmp_path / "elsewhere").mkdir()
    (path / "a").symlink_to(tmp_path / "elsewhere")
    refused(descriptor, [record("a/b")], pack((HASH, CONTENT)))

    assert list((tmp_path / "elsewhere").iterdir()) == []


# Streams.


@pytest.mark.parametrize("by_program", [False, True], ids=["module", "program"])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_decompressed(by_program: bool, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(size // 2) + bytes(size - size // 2)

    assert b"".join(decompressed(zstd.compress(data), by_program, monkeypatch)) == data


@pytest.mark.parametrize(
    ("by_program", "damage"),
    # Nothing at all is an empty stream to the program; the size is checked after it.
    [(False, "nothing")]
    + [
        (by_program, damage)
        for by_program in (False, True)
        for damage in ("cut off", "junk after", "flipped", "no frame")
    ],
)
def test_decompressed__damage_is_found(
    by_program: bool, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = zstd.compress(b"content" * 1000, options={zstd.CompressionParameter.checksum_flag: 1})
    stored = {
        "cut off": stored[:-3],
        "junk after": stored + b"junk",
        "flipped": stored[:-1] + bytes([stored[-1] ^ 1]),
        "no frame": b"this is no frame at all",
        "nothing": b"",
    }[damage]
    with pytest.raises(recover.Problem) as caught:
        b"".join(decompressed(stored, by_program, monkeypatch))

    assert caught.value.status == recover.DAMAGED


def test_piped__an_error_of_the_feeder_is_the_one_that_is_raised() -> None:
    def broken() -> Generator[bytes, None, None]:
        yield b"first"
        raise recover.damaged("The manifest is too large.")

    with pytest.raises(recover.Problem, match="too large"):
        list(recover.piped(["cat"], broken(), recover.bad_frame))


def test_piped__a_stream_left_early_ends_its_program() -> None:
    stream = recover.piped(["cat"], chunks(bytes(50_000_000)), recover.bad_frame)

    assert next(stream)
    stream.close()


def record(path: str, **changes: Any) -> dict[str, Any]:
    """Return a line of an index."""
    values = {"size": len(CONTENT), "mtime_ns": 10**18, "mode": 0o644, "sha256": HASH}
    return {"path": path, **values, "pack": "0" * 32, **changes}


def pack(*members: tuple[str, bytes]) -> bytes:
    """Return a pack of (name, content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def chunks(data: bytes) -> Generator[bytes, None, None]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def link(name: str, text: str) -> dict[str, Any]:
    return {"path": f"{name}/", "mode": 0o777, "link": text, "mtime_ns": 12}


def read(root: int | None, index: list[Any], packed: bytes) -> None:
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in index)
    with closing(recover.Media(root)) as media:
        media.read_index(chunks(lines))
        media.read_pack(chunks(packed))
        media.finish()


def refused(root: int | None, index: list[Any], packed: bytes) -> None:
    with pytest.raises(recover.Problem) as caught:
        read(root, index, packed)
    assert caught.value.status == recover.DAMAGED


def decompressed(
    stored: bytes, by_program: bool, monkeypatch: pytest.MonkeyPatch
) -> Iterator[bytes]:
    if by_program:
        monkeypatch.setattr(recover, "zstd_module", lambda: None)
    return recover.decompressed(chunks(stored))


def _texts() -> Iterator[str]:
    """Return what `recover.py` hands to people: the texts given to those who speak for it."""
    speakers = {"_", "say", "progress", "Problem", "damaged", "filled"}
    constants = {"PACKAGES", "ANOTHER", "GIVE_KEY", "TOO_LITTLE", "LARGER"}
    for node in ast.walk(TREE):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            values = node.args[:3] if node.func.id in speakers else []
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values = [node.value] if node.targets[0].id in {"text", "hint", *constants} else []
        for value in values:
            with suppress(ValueError):
                text = ast.literal_eval(value)
                if isinstance(text, str):
                    yield text
    yield from recover.TRUST.values()


def _placeholders(text: str) -> list[str]:
    return re.findall(r"%\(\w+\)s", text)


# What anyone may have written who can write to the folder.


def signed(project: str, secret: bytes, **changes: Any) -> bytes:
    """Return a manifest of `project`, authenticated as the application does it."""
    from mipyme_backup import manifest
    from tests.unit.test_manifest import example

    key = (recover.fingerprint(secret), secret)
    made = example(project=project, encryption=None, key_fingerprint=None, **changes)
    return manifest.dump(made, key=key, derive_key=recover.derive_key)


def keys_with(secret: bytes) -> recover.Keys:
    keys = recover.Keys([], None)
    keys.add(secret, "given")
    return keys


def test_a_salt_that_is_not_the_projects_costs_no_scrypt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = keys_with(b"secret")
    data = signed("shop", b"secret")
    body, _marker, tail = data.rpartition(recover.MARKER)
    salt = json.loads(tail[:-3])["salt"]
    assert recover.authenticated(body, tail, keys) == "authentic"
    monkeypatch.setattr(recover, "derive_key", lambda *_args: pytest.fail("it was derived"))

    with pytest.raises(recover.Problem):
        recover.authenticated(body, tail.replace(salt.encode(), b"0" * len(salt)), keys)


def test_many_projects_cost_no_more_than_some_scrypts_and_one_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "DERIVATIONS", 2)
    for number in range(4):
        folder = tmp_path / f"manual_20250102T12000{number}Z"
        folder.mkdir()
        (folder / recover.MANIFEST).write_bytes(
            signed(f"project-{number}", b"secret", name=folder.name)
        )
    store = recover.Store(tmp_path)

    listed = [backup for _name, backup in store.backups(keys_with(b"secret"))]
    one = recover.chosen(store, keys_with(b"secret"), "manual_20250102T120003Z")

    assert [isinstance(backup, recover.Problem) for backup in listed] == [False] * 2 + [True] * 2
    assert one.trust == "authentic"


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("shop", "shop_recovered"),
        ("host=evil", "dbname='host=evil_recovered'"),
        ("a' host='evil", r"dbname='a\' host=\'evil_recovered'"),
        ("a=\\", r"dbname='a=\\_recovered'"),
        ("postgresql://evil/x", "dbname='postgresql://evil/x_recovered'"),
    ],
)
def test_loading__a_name_never_is_the_address_of_a_server(database: str, expected: str) -> None:
    facts = {"engine": "postgresql", "database": database}

    (line,) = (
        line for line in recover.loading(facts, Path("d"), "database:default") if "pg_rest" in line
    )

    assert shlex.split(line)[2] == f"--dbname={expected}"


@pytest.mark.parametrize("tail", [b'{"a": ' + b"9" * 900 + b"}\n}\n", b"[" * 10_000 + b"\n}\n"])
def test_an_ending_is_bounded_before_it_is_parsed(tail: bytes) -> None:
    with pytest.raises(recover.Problem, match="cut off or damaged"):
        recover.authenticated(b"{", tail, recover.Keys([], None))


@pytest.mark.parametrize(
    "body", [b'{"format": ' + b"9" * 4000, b'{"a": [' + b"1," * 2_000_001 + b"1]"]
)
def test_a_body_is_bounded_before_it_is_parsed(tmp_path: Path, body: bytes) -> None:
    from mipyme_backup.authentication import ending

    sealed = body + recover.MARKER + ending(body, "shop", None, recover.derive_key)
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / recover.MANIFEST).write_bytes(sealed)

    with pytest.raises(recover.Problem, match=r"too long|too large|understood"):
        recover.Store(tmp_path).backup("manual", recover.Keys([], None))


def stored_at(path: str, name: str) -> dict[str, Any]:
    return {"path": path, "volumes": [], "stored_size": 0, "raw_size": 10, "name": name}


def parsed_with(
    index: str, facts: dict[str, Any], packs: tuple[str, ...] = ("pool/one/files.tar",)
) -> recover.Backup:
    """Return a backup with this index of files, its facts, and packs at these paths."""
    from tests.unit.test_manifest import dumped, example

    document = json.loads(dumped(example()))
    source = {"name": "own", "artifacts": [stored_at("m/own", index)], "facts": {index: facts}}
    document["sources"].append(source)
    document["packs"] = [stored_at(path, "files.tar") for path in packs]
    return recover.parsed(document, "authentic")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".ssh", "a.part", ".part", "a/b", "/a", "a b", "a\nb", "é"],
)
def test_an_index_whose_folder_could_not_be_called_so_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        parsed_with(f"{name}.index.jsonl", {"packs": []})


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("media.index.jsonl", "media"),
        ("media.private.index.jsonl", "media.private"),
        ("media.shop%2EInvoice%2Epdf.index.jsonl", "media.shop%2EInvoice%2Epdf"),
        ("certificates.index.jsonl", "certificates"),
        ("index.jsonl.index.jsonl", "index.jsonl"),
    ],
)
def test_an_index_is_unpacked_to_a_folder_of_its_name(name: str, folder: str) -> None:
    backup = parsed_with(name, {"packs": ["one"]})
    index = backup.sources["own"][0]

    assert backup.is_index(index)
    assert backup.output(index) == folder


@pytest.mark.parametrize("packs", [None, 1, [1], [None], [["one"]], [{}]], ids=repr)
def test_an_index_of_packs_that_are_no_ids_is_refused(packs: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        parsed_with("own.index.jsonl", {"packs": packs})


@pytest.mark.parametrize(
    "packs", [("elsewhere/one/files.tar",), ("pool/one/a", "pool/one/b"), ("pool/../one",)]
)
def test_packs_lie_in_the_pool_each_in_a_folder_of_its_own(packs: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"pool|one id|not allowed"):
        parsed_with("own.index.jsonl", {"packs": []}, packs)


def test_packs_of__those_that_the_indexes_name_each_once() -> None:
    paths = ("pool/one/files.tar", "pool/two/files.tar", "pool/three/files.tar")
    backup = parsed_with("own.index.jsonl", {"packs": ["three", "one", "gone"]}, paths)
    index = backup.sources["own"][0]

    assert backup.packs_of([index, index]) == [backup.packs["one"], backup.packs["three"]]
    assert backup.packs_of(backup.sources["database:default"]) == []


def test_packs_of__an_index_of_media_that_names_none_may_need_them_all() -> None:
    backup = parsed_with("media.index.jsonl", {})

    assert backup.packs_of(backup.sources["own"]) == [backup.packs["one"]]


def test_unpacked_size__is_that_of_the_files_and_not_of_the_packs() -> None:
    backup = parsed_with("own.index.jsonl", {"packs": ["one"], "bytes": 7_000})
    dump, index = backup.of_sources()

    assert (backup.unpacked_size(dump), backup.unpacked_size(index)) == (1_000, 7_010)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("media", "# into the folder that the settings name in MEDIA_ROOT"),
        (
            "media:a.B.c",
            "# into the folder of the file storage a.B.c (in STORAGES, or of that file field)",
        ),
        ("certificates", "# into the folder that the settings name in SOURCES for certificates"),
        ("env:live", "# into the folder that the settings name in SOURCES for env:live"),
    ],
)
def test_loading_files__says_what_they_are_and_where_they_were(source: str, text: str) -> None:
    place = "/srv/" + "p" * 300

    lines = recover.loading_files({"place": place}, Path("/to/it is"), source)

    assert lines[:2] == [text, f"# where the files were: {place}"]
    assert shlex.split(lines[2])[1] == "/to/it is"
    assert shlex.split(lines[2])[-3:] == ["{}", "/path/to/it is/", ";"]


@pytest.mark.parametrize("place", [None, "", 5, ["/srv"]])
def test_loading_files__a_place_that_is_not_known_is_not_told(place: Any) -> None:
    assert len(recover.loading_files({"place": place}, Path("/to"), "media")) == 2


def test_a_place_of_several_lines_stays_one_comment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = parsed_with("own.index.jsonl", {"packs": [], "place": "/srv\nrm -rf /\r\x1b[2K"})

    recover.tell_how_to_load(backup, ["own"], tmp_path)

    printed = capsys.readouterr().out
    assert r"# where the files were: /srv\nrm -rf /\r\x1b[2K" in printed
    assert sum(not line.startswith("  #") for line in printed.splitlines() if "srv" in line) == 0


def test_an_artifact_is_not_called_as_unfinished_work_is() -> None:
    with pytest.raises(ValueError, match="not allowed"):
        recover.artifact_in(stored_at("a/b", "a.part"))


@pytest.mark.parametrize("path", ["a" * 65_537, "9" * 2**20])
def test_media__an_endless_path_is_refused(path: str) -> None:
    with closing(recover.Media(None)) as media, pytest.raises(recover.Problem):
        media.read_index(chunks(json.dumps({**LINE, "path": path}).encode() + b"\n"))


def test_what_is_said_is_short_but_paths_are_whole() -> None:
    path = Path("/" + "p" * 300)

    text = str(recover.Problem(1, "%(path)s %(reason)s", path=path, reason="r" * 10_000))

    assert text == f"{path} {'r' * recover.SHOWN}..."


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (sqlite3.OperationalError("disk full"), "list: disk full"),
        (MemoryError(), f"{recover.TOO_LITTLE} {recover.LARGER}"),
        (RecursionError("deep"), "list: deep"),
    ],
)
def test_what_the_machine_lacks_is_one_message(
    error: Exception,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_args: object) -> None:
        raise error

    monkeypatch.setattr(recover.Store, "backups", fail)

    status = recover.main(["list", "--from", str(tmp_path), "--language", "en"])

    assert status == recover.FAILED
    assert capsys.readouterr().err == f"Error: {message}\n"


def test_a_thread_that_cannot_be_started_is_too_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)

    with pytest.raises(MemoryError):
        list(recover.piped(["cat"], chunks(b"x"), recover.bad_frame))


def test_main__leaves_the_process_of_its_caller_as_it_was(tmp_path: Path) -> None:
    """The umask and the handlers of signals are set where the program begins."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    before = os.umask(0o022)
    try:
        recover.main(["list", "--from", str(tmp_path), "--language", "en"])

        assert {signal.getsignal(number) for number in numbers} == {signal.SIG_DFL}
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_verify__what_is_not_trusted_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "manual_20250102T120000Z"
    folder.mkdir()
    (folder / recover.MANIFEST).write_bytes(
        signed("shop", b"another", name=folder.name, sources=(), packs=())
    )
    monkeypatch.setattr(recover.Keys, "check_opens", lambda *_args: pytest.fail("it was opened"))
    arguments = argparse.Namespace(content=True, unauthenticated=False, names=[])

    status = recover.verify(arguments, recover.Store(tmp_path), keys_with(b"secret"))

    assert status == recover.NOTHING
    assert "NOT AUTHENTICATED" in capsys.readouterr().out


def test_the_command_for_media_leaves_the_live_folder_its_mode(tmp_path: Path) -> None:
    unpacked, live = tmp_path / "re stored" / "media", tmp_path / "live"
    (unpacked / "below").mkdir(parents=True)
    unpacked.chmod(0o700)
    live.mkdir()
    (live / "below").mkdir()
    live.chmod(0o755)
    for name in (".hidden", "below/file", "with blank"):
        (unpacked / name).write_text(name)

    command = recover.loading_files({}, unpacked, "media")[-1]
    subprocess.run(command.replace("/path/to/media", str(live)), shell=True, check=True)

    assert live.stat().st_mode & 0o777 == 0o755
    assert (live / "below" / "file").read_text() == "below/file"
    assert {path.name for path in live.iterdir()} == {".hidden", "below", "with blank"}
