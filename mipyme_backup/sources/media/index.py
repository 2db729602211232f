"""The media index: one JSON object a line, in the order of the walk.

A file: ``{"path", "size" (bytes), "mtime_ns", "mode", "sha256" (hex), "pack"}``, and
``"recheck": true`` where it was written to so shortly before it was read that its time may
not show a later change. ``ctime_ns`` and ``inode`` follow where there are such, and ``read_day``
(days since 1970) where files are read again after some days.

A folder: ``{"path": "a/b/", "mode"}``. A link that is not followed:
``{"path": "a/b/", "mode", "link", "mtime_ns"}``; readers that know no links see an empty folder.

Each may name its owner: ``"uid", "gid"`` and, where they have such, ``"user", "group"``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mipyme_backup.errors import DamagedError, RestoreError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader
from mipyme_backup.sources.media.names import from_text, sort_key, to_text
from mipyme_backup.sources.media.owners import Owner

SUFFIX = ".index.jsonl"
INDEX_NAME = f"media{SUFFIX}"
"""What the index of the default storage is called."""

POOL = "pool/"
MAX_LINE_BYTES = 1024 * 1024
MAX_LINK_BYTES = 4096  # PATH_MAX
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
MAX_NAME = 256
MODE_BITS = 0o7777
LINK_MODE = 0o777
HASH_BYTES = 32
LARGEST = 2**63 - 1
LARGEST_ID = 2**32 - 2  # the next one means "as it is" to chown
LARGEST_INODE = 2**64 - 1
OPTIONAL = ("ctime_ns", "inode", "read_day")
"""Members of a file's line that are numbers, and may be absent."""


class FileRecord(NamedTuple):
    """A file as the index holds it; what is None stood in no record of earlier versions."""

    path: bytes
    size: int
    mtime_ns: int
    mode: int
    sha256: str
    pack: str
    recheck: bool = False
    ctime_ns: int | None = None
    inode: int | None = None
    read_day: int | None = None
    owner: Owner | None = None

    @property
    def key(self) -> bytes:
        return sort_key(self.path)

    def line(self) -> bytes:
        fields: dict[str, Any] = {
            "path": to_text(self.path),
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "mode": self.mode & MODE_BITS,
            "sha256": self.sha256,
            "pack": self.pack,
        }
        if self.recheck:
            fields["recheck"] = True
        for name in OPTIONAL:
            if (value := getattr(self, name)) is not None:
                fields[name] = value
        return _line(fields, self.owner)


class FolderRecord(NamedTuple):
    """A folder as the index holds it; `path` without the slash at its end."""

    path: bytes
    mode: int
    owner: Owner | None = None

    @property
    def key(self) -> bytes:
        return sort_key(self.path)

    def line(self) -> bytes:
        fields = {"path": to_text(self.path) + "/", "mode": self.mode & MODE_BITS}
        return _line(fields, self.owner)


class LinkRecord(NamedTuple):
    """A link that is kept as one: `path` without a slash at its end, and the text of the link."""

    path: bytes
    link: bytes
    mtime_ns: int
    owner: Owner | None = None

    @property
    def key(self) -> bytes:
        return sort_key(self.path)

    def line(self) -> bytes:
        fields: dict[str, Any] = {
            "path": to_text(self.path) + "/",
            "mode": LINK_MODE,
            "link": to_text(self.link),
            "mtime_ns": self.mtime_ns,
        }
        return _line(fields, self.owner)


def _line(fields: dict[str, Any], owner: Owner | None) -> bytes:
    fields |= fields_of_owner(owner)
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


Record = FileRecord | FolderRecord | LinkRecord


def read_records(reader: Reader) -> Iterator[Record]:
    """Yield the records of an index; DamagedError for what is none. Closes `reader`."""
    rest = b""
    try:
        while data := reader.read(CHUNK):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield _parse(line)
            if len(rest) > MAX_LINE_BYTES:
                raise _damaged()
        if rest:
            raise _damaged()
    finally:
        reader.close()


def _parse(line: bytes) -> Record:
    try:
        fields = json.loads(line)
        text = fields["path"]
        mode, owner = mode_and_owner(fields)
        if text.endswith("/") and "link" in fields:
            mtime_ns = _whole(fields["mtime_ns"], least=-LARGEST)
            return LinkRecord(from_text(text[:-1]), _link(fields["link"]), mtime_ns, owner)
        if text.endswith("/"):
            return FolderRecord(from_text(text[:-1]), mode, owner)
        digest, pack = bytes.fromhex(fields["sha256"]), fields["pack"]
        if not isinstance(pack, str) or len(digest) != HASH_BYTES:
            raise ValueError
        pack.encode()  # ValueError for half a character: no path is called so
        return FileRecord(
            path=from_text(text),
            size=_whole(fields["size"]),
            mtime_ns=_whole(fields["mtime_ns"], least=-LARGEST),
            mode=mode,
            sha256=digest.hex(),
            pack=pack,
            recheck=bool(fields.get("recheck", False)),
            ctime_ns=_optional(fields, "ctime_ns", least=-LARGEST),
            inode=_optional(fields, "inode", most=LARGEST_INODE),
            read_day=_optional(fields, "read_day"),
            owner=owner,
        )
    except MALFORMED as error:
        raise _damaged() from error


def mode_and_owner(fields: Mapping[str, Any]) -> tuple[int, Owner | None]:
    """Return what the members of a record say; ValueError and others where they are none."""
    return _whole(fields["mode"]) & MODE_BITS, _owner(fields)


def fields_of_owner(owner: Owner | None) -> dict[str, Any]:
    """Return the members of a record that name its owner."""
    if owner is None:
        return {}
    names = {"user": owner.user, "group": owner.group}
    named = {kind: name for kind, name in names.items() if name}
    return {"uid": owner.uid, "gid": owner.gid, **named}


def _owner(fields: Mapping[str, Any]) -> Owner | None:
    if "uid" not in fields:
        return None
    uid, gid = (_whole(fields[kind], most=LARGEST_ID) for kind in ("uid", "gid"))
    user, group = fields.get("user", ""), fields.get("group", "")
    for name in (user, group):
        if b"\0" in from_text(name) or len(name) > MAX_NAME:
            raise ValueError
    return Owner(uid, gid, user, group)


def _link(text: str) -> bytes:
    link = from_text(text)
    if not link or b"\0" in link or len(link) > MAX_LINK_BYTES:
        raise ValueError
    return link


def _whole(value: object, *, least: int = 0, most: int = LARGEST) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError
    return value


def _optional(
    fields: dict[str, Any], name: str, *, least: int = 0, most: int = LARGEST
) -> int | None:
    return _whole(fields[name], least=least, most=most) if name in fields else None


def _damaged() -> DamagedError:
    return DamagedError(
        _("The media index is damaged: a line of it is no record"),
        hint=_("Restore from another destination, or another backup."),
    )


class Spool:
    """Bytes kept compressed in memory: written to the end, then read, as often as wanted."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(1)
        self._chunks: list[bytes] = []
        self._finished = False

    def write(self, data: bytes) -> None:
        if chunk := self._compressor.compress(data):
            self._chunks.append(chunk)

    def open(self) -> SpoolReader:
        """Return a reader of all that was written; nothing can be written from now on."""
        if not self._finished:
            self._chunks.append(self._compressor.flush())
            self._finished = True
        return SpoolReader(iter(self._chunks))


class SpoolReader:
    """Reads a `Spool`."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._decompressor = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        compressed = self._decompressor.unconsumed_tail
        while True:
            if data := self._decompressor.decompress(compressed, size):
                return data
            following = next(self._chunks, None)
            if following is None:
                return b""
            compressed = self._decompressor.unconsumed_tail + following

    def close(self) -> None:
        self._chunks = iter(())


def index_in(artifacts: Iterable[str]) -> str:
    """Return which of the artifacts of a source is its index; raises RestoreError for none."""
    found = next((name for name in artifacts if name.endswith(SUFFIX)), None)
    if found is None:
        raise RestoreError(_("The backup has no index of the files (%(name)s)"), name=f"*{SUFFIX}")
    return found
