"""Reads the head of PostgreSQL's custom dump format, and holds a dump to being whole.

Layout after src/bin/pg_dump/pg_backup_archiver.c (ReadHead, ReadToc) and pg_backup_custom.c of
PostgreSQL 12 to 18: head, table of contents, then one block for each entry that has data. There
is no trailer, and a tool may exit 0 after a short write: so the last entry's block must have
come by, and the stream must end as a block ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from mipyme_backup.errors import SourceError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader

MAGIC = b"PGDMP"
OLDEST, NEWEST = (1, 14), (1, 16)
HEAD_LIMIT = 1 << 30
INTEGER_SIZE = 4
"""Of an int in bytes, on every platform that PostgreSQL runs on."""
OFFSET_SIZES = (4, 8)
# Types of block, and how many zero integers end it: rows, which are text and so without zero
# bytes; large objects, where the last one ends before the block does.
BLOCK_TYPES = {b"\x01": 1, b"\x03": 2}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the table of contents: what it makes, where, whose it is, and the SQL."""

    id: int
    kind: str
    schema: str
    tag: str
    owner: str
    definition: str
    tablespace: str
    has_data: bool


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The table of contents, in its order; `length` is where it ends in the stream, in bytes.

    `known` is False for a format that is newer than this code: then there are no entries.
    """

    entries: tuple[Entry, ...] = ()
    integer_size: int = 4
    length: int = 0
    known: bool = True


class NotWholeError(SourceError):
    """The stream is no dump in custom format, or it ends too early."""

    code = "dump_not_whole"


class _MoreNeededError(Exception):
    """The bytes at hand end within the table of contents."""


@dataclass
class _Cursor:
    data: bytes | bytearray
    position: int = 0
    integer_size: int = 4
    offset_size: int = 8
    version: tuple[int, int] = NEWEST

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise _MoreNeededError
        taken = bytes(self.data[self.position : end])
        self.position = end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        negative = self.byte() != 0
        value = int.from_bytes(self.take(self.integer_size), "little")
        return -value if negative else value

    def text(self) -> str | None:
        length = self.integer()
        if length < 0:
            return None
        return self.take(length).decode(errors="surrogateescape")


def read_contents(data: bytes | bytearray) -> Contents | None:
    """Return the table of contents at the start of `data`, None where more bytes are needed.

    Raises NotWholeError for what is no dump in custom format.
    """
    cursor = _Cursor(data)
    try:
        _read_head(cursor)
        if not OLDEST <= cursor.version <= NEWEST:
            return Contents(known=False)
        entries = tuple(_read_entry(cursor) for _index in range(cursor.integer()))
    except _MoreNeededError:
        if len(data) > HEAD_LIMIT:
            raise NotWholeError(_("The dump's table of contents has no end")) from None
        return None
    return Contents(entries=entries, integer_size=cursor.integer_size, length=cursor.position)


def _read_head(cursor: _Cursor) -> None:
    if cursor.take(len(MAGIC)) != MAGIC:
        raise NotWholeError(_("This is no PostgreSQL dump in custom format"))
    cursor.version = (cursor.byte(), cursor.byte())
    cursor.byte()  # revision
    cursor.integer_size = cursor.byte()
    cursor.offset_size = cursor.byte()
    cursor.byte()  # archive format
    if not OLDEST <= cursor.version <= NEWEST:
        return
    if cursor.integer_size != INTEGER_SIZE or cursor.offset_size not in OFFSET_SIZES:
        raise NotWholeError(_("This is no PostgreSQL dump in custom format"))
    if cursor.version >= (1, 15):
        cursor.byte()  # compression algorithm
    else:
        cursor.integer()  # compression level
    for _index in range(7):
        cursor.integer()  # creation time
    for _index in range(3):
        cursor.text()  # database, server version, dump version


def _read_entry(cursor: _Cursor) -> Entry:
    number = cursor.integer()
    if number < 0:
        raise NotWholeError(_("This is no PostgreSQL dump in custom format"))
    has_data = cursor.integer() != 0
    cursor.text(), cursor.text()  # catalog's table oid, oid
    tag, kind = cursor.text(), cursor.text()
    cursor.integer()  # section
    definition = cursor.text()
    cursor.text(), cursor.text()  # drop and copy statements
    schema, tablespace = cursor.text(), cursor.text()
    cursor.text()  # table access method
    if cursor.version >= (1, 16):
        cursor.integer()  # relation kind
    owner = cursor.text()
    cursor.text()  # with oids
    while cursor.text() is not None:
        pass  # dependencies
    cursor.take(1 + cursor.offset_size)  # where the data is: unset in a stream, yet there
    return Entry(
        id=number,
        kind=kind or "",
        schema=schema or "",
        tag=tag or "",
        owner=owner or "",
        definition=definition or "",
        tablespace=tablespace or "",
        has_data=has_data,
    )


class Head:
    """Gathers a stream's first bytes until they hold the whole table of contents.

    Parsing starts over each time, so it waits until the bytes have doubled.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self._next = 0

    def add(self, data: bytes) -> Contents | None:
        """Add `data` (b"" at the end of the stream); return the contents once they are whole."""
        self.data += data
        if data and len(self.data) < self._next:
            return None
        self._next = 2 * len(self.data)
        return read_contents(self.data)


class WholeDump:
    """Passes a dump on, and raises NotWholeError at its end unless all of it was there.

    Zero bytes at the end of the very last large object are the one thing that could be missed.
    """

    def __init__(self, upstream: Reader) -> None:
        self._upstream = upstream
        self._head: Head | None = Head()
        self._contents = Contents()
        self._last_block: dict[bytes, int] = {}
        self._end = b""
        self._tail = b""

    def read(self, size: int, /) -> bytes:
        data = self._upstream.read(size)
        if self._head is not None:
            self._look_at_head(self._head, data)
        elif data:
            self._look_at_blocks(data)
        if not data:
            self._check_end()
        return data

    @property
    def contents(self) -> Contents:
        """The table of contents, once it was read; nothing before."""
        return self._contents

    def close(self) -> None:
        self._upstream.close()

    def _look_at_head(self, head: Head, data: bytes) -> None:
        contents = head.add(data)
        if contents is None:
            return
        self._head = None
        self._contents = contents
        self._last_block = last_block_markers(contents)
        self._tail = self._end = bytes(contents.integer_size + 1)  # as if a block had ended
        self._look_at_blocks(bytes(head.data[contents.length :]))

    def _look_at_blocks(self, data: bytes) -> None:
        window = self._tail + data
        for marker, zeros in self._last_block.items():
            if marker in window:
                self._last_block = {}
                self._end = bytes(zeros * (self._contents.integer_size + 1))
                break
        self._tail = window[-2 * (self._contents.integer_size + 2) :]

    def _check_end(self) -> None:
        whole = not self._last_block and self._tail.endswith(self._end)
        if self._head is not None or (self._contents.known and not whole):
            raise NotWholeError(
                _("The dump ends too early"),
                hint=_("Look into the server's log, then back up again."),
            )


def last_block_markers(contents: Contents) -> dict[bytes, int]:
    """Return how the last block may begin, with the end of the one before, and its final zeros.

    Empty where nothing has data.
    """
    numbers = [entry.id for entry in contents.entries if entry.has_data]
    if not numbers:
        return {}
    number = b"\0" + numbers[-1].to_bytes(contents.integer_size, "little")
    before = bytes(contents.integer_size + 1)
    return {before + kind + number: zeros for kind, zeros in BLOCK_TYPES.items()}


class Peeked:
    """A reader whose first bytes were read already."""

    def __init__(self, head: bytes, upstream: Reader) -> None:
        self._head = head
        self._upstream = upstream

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._upstream.read(size)

    def close(self) -> None:
        self._upstream.close()


def peek_contents(upstream: Reader) -> tuple[Contents, Reader]:
    """Read the table of contents; return it with a reader of the whole stream from its start.

    Raises NotWholeError when the stream ends before.
    """
    head = Head()
    while True:
        data = upstream.read(CHUNK)
        contents = head.add(data)
        if contents is not None:
            return contents, Peeked(bytes(head.data), upstream)
        if not data:
            raise NotWholeError(_("The dump ends within its table of contents"))
