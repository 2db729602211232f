"""Crafted packs: each is refused, nothing leaves the folder, and memory stays small."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from mipyme_backup.errors import DamagedError
from mipyme_backup.process import Reader
from mipyme_backup.sources.media import MediaTarget
from mipyme_backup.sources.media.check import check_pack
from tests.unit.sources.link_swapper import fingerprint
from tests.unit.sources.media_trees import Bytes, Saved, write
from tests.unit.sources.test_media_target import PACK, line, made, pack_of

CONTENT = b"content"
NAME = hashlib.sha256(CONTENT).hexdigest()
GIB = 1024**3
LITTLE = 4 * 1024 * 1024


def member(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, **fields: object
) -> bytes:
    """Return one member as `tarfile` writes it; `fields` are those of a `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
        end = stream.tell()
    return stream.getvalue()[:end] + content + bytes(-len(content) % 512)


def header(
    name: str = NAME, *, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = ""
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT)


GOOD = pack_of(CONTENT)[: 512 + 512]
SPARSE_MAP = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(GIB)}

CRAFTED = {
    "a name that leads up": member("../outside/file", CONTENT),
    "an absolute name": member("/etc/cron.d/file", CONTENT),
    "a hash below a name that leads up": member(f"../outside/{NAME}", CONTENT),
    "a hash with a prefix": member(f"{'p' * 100}/{NAME}", CONTENT),
    "a name of capitals": member(NAME.upper(), CONTENT),
    "a name with a line's end": member(f"{NAME}\n", CONTENT),
    "a link": header(kind=tarfile.SYMTYPE, link="../outside"),
    "a hard link": header(kind=tarfile.LNKTYPE, link="../outside/file"),
    "a link, and a file through it": (
        header("x", kind=tarfile.SYMTYPE, link="../outside") + member("x/file", CONTENT)
    ),
    "a good member, and a link after it": GOOD + header(kind=tarfile.SYMTYPE, link="../outside"),
    "a character device": member(NAME, kind=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a block device": member(NAME, kind=tarfile.BLKTYPE, devmajor=8, devminor=0),
    "a pipe": header(kind=tarfile.FIFOTYPE),
    "a folder": header(kind=tarfile.DIRTYPE),
    "a contiguous file": header(kind=tarfile.CONTTYPE),
    "an old kind of file": header(kind=tarfile.AREGTYPE),
    "a long name": header("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=2**33),
    "a long link": header("././@LongLink", kind=tarfile.GNUTYPE_LONGLINK, size=2**33),
    "a sparse file": header(kind=tarfile.GNUTYPE_SPARSE, size=GIB),
    "a sparse file of PAX": member(NAME, CONTENT, pax_headers=SPARSE_MAP),
    "a PAX header that renames": member(NAME, CONTENT, pax_headers={"path": "../outside/file"}),
    "a PAX header of many records": member(
        NAME, CONTENT, pax_headers={f"key{number}": "x" * 100 for number in range(20_000)}
    ),
    "a PAX header of a gibibyte": header("PaxHeader", kind=tarfile.XHDTYPE, size=GIB),
    "a global PAX header": header("PaxHeader", kind=tarfile.XGLTYPE, size=GIB),
    "a Solaris header": header("PaxHeader", kind=tarfile.SOLARIS_XHDTYPE, size=GIB),
    "an unknown kind": header(kind=b"Z"),
    "more than the index says": header(size=len(CONTENT) + 1),
    "a huge size": header(size=2**62),
    "a size of twelve bytes": header(size=2**80),
    "less than the pack holds": header(size=len(CONTENT)),
    "no sum": bytearray(header())[:148] + b"\xff" * 8 + bytearray(header())[156:],
    "no tar": bytes(range(256)) * 16,
}


class Endless:
    """What comes after a crafted header, without end; says how much of it was read."""

    def __init__(self, start: bytes) -> None:
        self._start = io.BytesIO(start)
        self.length = 0

    def read(self, size: int, /) -> bytes:
        data = self._start.read(size) or b"\x7f" * size
        self.length += len(data)
        return data

    def close(self) -> None:
        pass


@pytest.fixture
def target(tmp_path: Path) -> MediaTarget:
    write(tmp_path, "site/media/live", b"live")
    write(tmp_path, "site/outside/file", b"outside")
    return MediaTarget.prepare(location=tmp_path / "site" / "media", restore_id="id")


def refused(target: MediaTarget, saved: Saved, opener: Callable[[], Reader]) -> None:
    """Assert that the pack is refused, and that only our own folder was written to."""
    site = Path(target.state["location"]).parent
    before = {path: what for path, what in fingerprint(site).items() if path != str(site)}
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            target.load({**saved.artifacts(), f"pool/{PACK}": opener})
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()
    after = fingerprint(site)
    ours = {path for path in after if path.startswith(target.state["side"])}
    assert {path: after[path] for path in after.keys() - ours - {str(site)}} == before
    target.discard()
    assert sorted(os.listdir(site)) == ["media", "outside"]


@pytest.mark.parametrize("pack", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_pack_is_refused(target: MediaTarget, pack: bytes) -> None:
    saved = made(line("file"), pack=bytes(pack))

    refused(target, saved, lambda: Bytes(bytes(pack)))
    refused(target, saved, lambda: Bytes(bytes(pack) + bytes(1024)))


@pytest.mark.parametrize("pack", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_pack_without_end_is_refused_at_its_header(
    target: MediaTarget, pack: bytes
) -> None:
    endless = Endless(bytes(pack))

    refused(target, made(line("file")), lambda: endless)

    assert endless.length <= len(pack) + LITTLE


@pytest.mark.parametrize(
    "name", [name for name in CRAFTED if not name.startswith(("more", "less", "a huge", "a size"))]
)
def test_a_crafted_pack_is_no_whole_one_for_a_check(name: str) -> None:
    with pytest.raises(DamagedError):
        check_pack(Bytes(bytes(CRAFTED[name]) + bytes(1024)))


def test_a_name_that_comes_twice_is_written_once(target: MediaTarget) -> None:
    twice = pack_of(CONTENT, b"another", names={1: NAME})

    target.load(made(line("file"), pack=twice).artifacts())

    assert (Path(target.state["side"]) / "file").read_bytes() == CONTENT
