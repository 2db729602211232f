"""`recover.py` stands alone, speaks both languages, and takes no index or stream at its word."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import sys
import tarfile
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
    from mipyme_backup.sources.media.index import INDEX_NAME

    assert recover.MARKER == authentication.MARKER
    assert recover.MANIFEST == manifest.FILE_NAME
    assert recover.MANIFEST_BYTES == manifest.MAX_BYTES
    assert recover.INDEX == INDEX_NAME
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
    constants = {"PACKAGES", "ANOTHER", "GIVE_KEY"}
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
