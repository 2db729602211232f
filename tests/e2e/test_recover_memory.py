"""`recover.py` takes no more memory for more backups, nor for more files in one of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from backports import zstd

from mipyme_backup import manifest as manifests
from mipyme_backup import recover
from mipyme_backup.encryption.passphrase import derive_key
from mipyme_backup.manifest import Manifest, SavedSource, StoredArtifact, Volume
from tests.peak import peak_of

NOON = datetime(2025, 1, 2, 12, tzinfo=UTC)
VOLUMES = 1000
FEW, MANY = 20_000, 100_000
LIMITED = """\
import os, resource, sqlite3, subprocess, tarfile, tempfile
from backports import zstd

with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))
limit = used + 8 * 2**20 + int(os.environ["MORE"])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""
A_FILE = 25
"""Bytes: of a file's line in the index, its hash alone takes more."""


def test_memory_for_many_backups(tmp_path: Path) -> None:
    peaks, sizes = [], []
    for count in (10, 100):
        store = tmp_path / str(count)
        for number in range(count):
            name = f"manual_20250102T12{number // 60:02d}{number % 60:02d}Z"
            dump = stored("database.default.dump", f"{name}/dump.zst", [b""] * VOLUMES)
            source = SavedSource(name="database:default", artifacts=(dump,))
            commit(store, name, number, sources=(source,))
        sizes.append(sum(path.stat().st_size for path in store.rglob("manifest.json")))
        peak, listed = program(tmp_path, store, "list", status=recover.DAMAGED)
        assert listed.count(f"NOT WHOLE: {VOLUMES} of {VOLUMES}") == count
        assert listed.index(name) < listed.index("manual_20250102T120000Z")  # newest first
        peaks.append(peak)

    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) // 2, (peaks, sizes)


def test_too_little_memory_is_one_message(tmp_path: Path) -> None:
    """What is asked for is what a run without any backup takes, and half of the manifest."""
    name = "manual_20250102T120000Z"
    dump = stored("database.default.dump", f"{name}/dump.zst", [b""] * 60 * VOLUMES)
    commit(tmp_path, name, 1, sources=(SavedSource(name="database:default", artifacts=(dump,)),))
    (tmp_path / "empty").mkdir()
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(LIMITED)

    def answer(store: Path, more: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, recover.__file__, "list", "--from", str(store), "--language", "en"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "start"), "MORE": str(more)},
        )

    size = (tmp_path / name / "manifest.json").stat().st_size
    assert answer(tmp_path / "empty", size // 2).returncode == recover.NOTHING
    assert answer(tmp_path, 100 * size).returncode == recover.DAMAGED
    result = answer(tmp_path, size // 2)

    assert result.returncode == recover.FAILED
    assert result.stderr == f"Error: {recover.TOO_LITTLE} {recover.LARGER}\n"


def test_memory_for_many_files(tmp_path: Path) -> None:
    assert_bounded("same", tmp_path, FEW, MANY, verify)


@pytest.mark.torture
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("contents", ["distinct", "same"])
@pytest.mark.parametrize("verb", ["verify", "unpack"])
def test_memory_for_a_million_files(
    contents: str,
    verb: str,
    tmp_path: Path,
    tell: Callable[[str], None],
    scaled: Callable[[int, int], int],
) -> None:
    many = scaled(1_000_000, MANY)
    run = verify if verb == "verify" else unpack
    peaks = assert_bounded(contents, tmp_path, many // 10, many, run)
    tell(f"{verb} of {many} files, {contents} contents: {peaks[1] / 1e6:.0f} MB")


def assert_bounded(
    contents: str, folder: Path, few: int, many: int, run: Callable[[Path, Path], int]
) -> list[int]:
    peaks = []
    for count in (few, many):
        store = folder / f"{count} files"
        write_media(store, count, same=contents == "same")
        peaks.append(run(folder, store))

    assert peaks[1] - peaks[0] < (many - few) * A_FILE, peaks
    return peaks


def verify(folder: Path, store: Path) -> int:
    peak, said = program(folder, store, "verify", "--content")
    assert "good" in said
    return peak


def unpack(folder: Path, store: Path) -> int:
    out = folder / f"{store.name} out"
    peak, _said = program(folder, store, "unpack", "media", "--to", str(out), "--unauthenticated")
    expected = json.loads((store / "media" / "manifest.json").read_bytes())
    facts = expected["sources"][0]["facts"][recover.INDEX]
    assert sum(path.is_file() for path in (out / "media").rglob("*")) == facts["files"]
    return peak


def program(folder: Path, store: Path, *args: str, status: int = 0) -> tuple[int, str]:
    command = [str(Path(recover.__file__)), *args, "--from", str(store)]
    return peak_of(command, folder, status=status)


def write_media(store: Path, count: int, *, same: bool) -> None:
    """Write an unencrypted backup of so many files of a few bytes."""

    def content(number: int) -> bytes:
        return b"same" if same else b"%8d" % number

    def lines() -> Iterator[bytes]:
        for number in range(count):
            line = {
                "path": f"{number // 1000}/a name {number}.jpg",
                "size": len(content(number)),
                "mtime_ns": 0,
                "mode": 0o644,
                "sha256": hashlib.sha256(content(number)).hexdigest(),
                "pack": "0" * 32,
            }
            yield json.dumps(line).encode() + b"\n"

    def members() -> Iterator[bytes]:
        for number in range(1 if same else count):
            member = tarfile.TarInfo(hashlib.sha256(content(number)).hexdigest())
            member.size = len(content(number))
            yield member.tobuf(tarfile.GNU_FORMAT) + content(number).ljust(512, b"\0")
        yield bytes(1024)

    index = write(store, recover.INDEX, f"media/{recover.INDEX}.zst", lines())
    pack = write(store, "files.tar", f"pool/{'0' * 32}/files.tar.zst", members())
    facts = {"files": count, "bytes": count * len(content(0))}
    source = SavedSource(name="media", artifacts=(index,), facts={recover.INDEX: facts})
    commit(store, "media", 1, sources=(source,), packs=(pack,))


def write(store: Path, name: str, path: str, content: Iterable[bytes]) -> StoredArtifact:
    """Write an artifact of one volume, and return what a manifest says of it."""
    compressor, raw_size, compressed = zstd.ZstdCompressor(), 0, io.BytesIO()
    for data in content:
        raw_size += len(data)
        compressed.write(compressor.compress(data))
    compressed.write(compressor.flush())
    file = store / f"{path}.00000"
    file.parent.mkdir(parents=True)
    file.write_bytes(compressed.getvalue())
    return stored(name, path, [compressed.getvalue()], raw_size)


def stored(name: str, path: str, pieces: list[bytes], raw_size: int = 0) -> StoredArtifact:
    return StoredArtifact(
        name=name,
        path=path,
        raw_size=raw_size,
        stored_size=sum(map(len, pieces)),
        sha256="0" * 64,
        volumes=tuple(
            Volume(size=len(piece), sha256=hashlib.sha256(piece).hexdigest()) for piece in pieces
        ),
    )


def commit(
    store: Path,
    name: str,
    number: int,
    *,
    sources: tuple[SavedSource, ...],
    packs: tuple[StoredArtifact, ...] = (),
) -> None:
    manifest = Manifest(
        id=f"{number:016x}",
        name=name,
        kind="manual",
        project="shop",
        started_at=NOON,
        snapshot_at=NOON,
        finished_at=NOON,
        sequence=number,
        sources=sources,
        packs=packs,
    )
    (store / name).mkdir(parents=True, exist_ok=True)
    data = manifests.dump(manifest, key=None, derive_key=derive_key)
    (store / name / "manifest.json").write_bytes(data)
