"""An index of the first version: read, merged with, checked and restored like a new one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from mipyme_backup.sources.media import MediaTarget, check_files
from tests.unit.sources.media_trees import LONG_AGO, Saved, contents, opener, save, write

PACK = "ab" * 16
CONTENT = {"a/file": b"one", "top": b"two", "é\udcff": b"one"}
INDEX_1 = b"".join(
    json.dumps(record, separators=(",", ":")).encode() + b"\n"
    for record in (
        {"path": "a/", "mode": 0o750},
        {
            "path": "a/file",
            "size": 3,
            "mtime_ns": LONG_AGO,
            "mode": 0o640,
            "sha256": hashlib.sha256(b"one").hexdigest(),
            "pack": PACK,
        },
        {"path": "empty/", "mode": 0o755},
        {
            "path": "top",
            "size": 3,
            "mtime_ns": LONG_AGO,
            "mode": 0o600,
            "sha256": hashlib.sha256(b"two").hexdigest(),
            "pack": PACK,
            "recheck": True,
        },
        {
            "path": "é\udcff",
            "size": 3,
            "mtime_ns": LONG_AGO,
            "mode": 0o644,
            "sha256": hashlib.sha256(b"one").hexdigest(),
            "pack": PACK,
        },
    )
)
"""Word for word what version 0.1.0 wrote."""
FACTS_1 = {"files": 3, "directories": 2, "bytes": 9, "new_files": 2, "new_bytes": 6}


@pytest.fixture
def saved() -> Saved:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo(hashlib.sha256(content).hexdigest())
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return Saved(index=INDEX_1, packs={PACK: stream.getvalue()}, facts=FACTS_1)


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
def test_it_is_restored(tmp_path: Path, saved: Saved, inside: bool) -> None:
    write(tmp_path, "media/newer", b"1")
    target = MediaTarget.prepare(location=tmp_path / "media", restore_id="id", inside=inside)
    target.plan()
    target.load(saved.artifacts())
    assert target.check(saved.facts) == []
    target.swap()
    target.remove_replaced()

    assert target.remarks() == []
    found = contents(tmp_path / "media")
    assert found[b"a"] == 0o750
    assert found[b"empty"] == 0o755
    for name, content in CONTENT.items():
        mode = {"a/file": 0o640, "top": 0o600}.get(name, 0o644)
        digest = hashlib.sha256(content).hexdigest()
        assert found[os.fsencode(name)] == (mode, LONG_AGO, digest)


def test_it_is_checked(tmp_path: Path, saved: Saved) -> None:
    packs = {name: opener(data) for name, data in saved.packs.items()}
    check_files(opener(saved.index)(), packs, tmp_path)


def test_the_next_run_takes_over_what_it_holds(tmp_path: Path, saved: Saved) -> None:
    media = tmp_path / "media"
    for name, content in CONTENT.items():
        write(media, name, content)

    second = save(media, saved)

    assert second.new_packs == []
    assert second.warnings == []
    assert second.facts["files"] == 3
