"""Media folders for tests: made, saved to memory, restored, compared."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.test import override_settings

from mipyme_backup.process import Reader
from mipyme_backup.sources.base import Target, View, Where
from mipyme_backup.sources.media import MediaSource, MediaTarget
from mipyme_backup.sources.media.files import FileSource

LONG_AGO = 1_500_000_000_123_456_789
INDEX = "media.index.jsonl"


class Bytes:
    """A reader of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


@dataclass
class Saved:
    """What a run yielded, and the packs of the runs before it."""

    index: bytes = b""
    packs: dict[str, bytes] = field(default_factory=dict)
    new_packs: list[str] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def artifacts(self) -> dict[str, Callable[[], Reader]]:
        content = {f"pool/{pack}": data for pack, data in self.packs.items()}
        content[INDEX] = self.index
        return {name: opener(data) for name, data in content.items()}

    def members(self) -> list[str]:
        """Return the member names of the new packs."""
        names: list[str] = []
        for pack in self.new_packs:
            with tarfile.open(fileobj=io.BytesIO(self.packs[pack])) as archive:
                names += archive.getnames()
        return names


LIVE = Where()


def opener(data: bytes) -> Callable[[], Reader]:
    return lambda: Bytes(data)


def media_source(**options: Any) -> FileSource:
    """Return what saves the default storage, or the one that `options` name."""
    source = MediaSource(**options).part("media")
    assert isinstance(source, FileSource)
    return source


def target_of(source: FileSource, restore_id: str, where: Where = LIVE) -> Target:
    """Return what a backup of the source is restored to."""
    (restorable,) = source.targets(restore_id, {}, where)
    return restorable.target


def view_after(previous: Saved | None, expected: Iterable[str] = ()) -> View:
    if previous is None:
        return View(expected_files=expected)
    return View(
        previous=lambda name: previous.artifacts()[name](),
        known_packs=frozenset(previous.packs),
        expected_files=expected,
    )


def read_all(reader: Reader) -> bytes:
    parts = []
    while data := reader.read(100_000):
        parts.append(data)
    return b"".join(parts)


def save(
    root: Path,
    previous: Saved | None = None,
    *,
    expected: Iterable[str] = (),
    read: Callable[[Reader], bytes] = read_all,
    **options: Any,
) -> Saved:
    """Save a media folder; `read` reads the packs, and may meddle with the folder meanwhile."""
    with override_settings(MEDIA_ROOT=str(root)):
        return collect(media_source(**options), previous, expected=expected, read=read)


def collect(
    source: FileSource,
    previous: Saved | None = None,
    *,
    expected: Iterable[str] = (),
    read: Callable[[Reader], bytes] = read_all,
) -> Saved:
    """Save the media of a source; `read` reads the packs, and may meddle meanwhile."""
    saved = Saved(packs=dict(previous.packs) if previous else {})
    for artifact in source.artifacts(view_after(previous, expected)):
        if artifact.pool:
            saved.packs[artifact.pool] = read(artifact.open())
            saved.new_packs.append(artifact.pool)
        else:
            saved.index = read_all(artifact.open())
            saved.facts = artifact.facts()
            saved.warnings = [str(warning) for warning in artifact.warnings()]
    return saved


def write(root: Path, name: str | bytes, content: bytes = b"", mtime_ns: int = LONG_AGO) -> Path:
    """Write a file that was last changed long ago."""
    path = root / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def restored(saved: Saved, folder: Path) -> Path:
    """Restore to a new folder, check it, and return it."""
    target = MediaTarget.prepare(location=folder / "none", restore_id="r", to_directory=folder)
    target.load(saved.artifacts())
    assert target.check(saved.facts) == []
    target.swap()
    target.remove_replaced()
    return folder


def contents(root: Path) -> dict[bytes, object]:
    """Return what a folder holds: each file's mode, time and hash, each folder's mode."""
    found: dict[bytes, object] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode)
            assert not stat.S_ISLNK(status.st_mode), path
            if stat.S_ISDIR(status.st_mode):
                found[os.path.relpath(path, top)] = mode
            else:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[os.path.relpath(path, top)] = (mode, status.st_mtime_ns, digest)
    return found


def texts(root: Path) -> dict[str, bytes]:
    """Return path and content of all files that are not our own."""
    return {
        os.path.relpath(path, root): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".mipyme_backup_" not in str(path.relative_to(root))
    }
