"""A listing in the order of the index, as a table: a storage has its own order, or none."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mipyme_backup.errors import DamagedError
from mipyme_backup.sources.media.left_out import Reason
from mipyme_backup.sources.media.names import checked, sort_key, to_text
from mipyme_backup.sources.media.remote.objects import Found

FILE_MODE = 0o644
"""What a file gets that a storage without modes gives back to a folder."""

PAGE_ROWS = 1000
NUMBER = re.compile(r"/(\d{1,18})\Z")
LARGEST = 2**63 - 1


def _table(schema: str) -> sqlite3.Connection:
    """Return a database that lies in memory, and on disk without a name where it is large."""
    # The stages of a stream may run in threads of their own, never two at once.
    connection = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(schema)
    connection.execute("BEGIN")  # and never COMMIT: it goes with the process
    return connection


class RemoteEntry(NamedTuple):
    """A file of a storage, or (with a `reason`) what cannot be saved."""

    path: bytes
    size: int
    mtime_ns: int | None
    tag: str = ""
    reason: Reason | None = None

    @property
    def is_folder(self) -> bool:
        return False

    @property
    def mode(self) -> int:
        return FILE_MODE

    @property
    def ctime_ns(self) -> None:
        return None

    @property
    def inode(self) -> None:
        return None

    @property
    def ids(self) -> None:
        return None

    @property
    def link(self) -> None:
        return None

    @property
    def leads_to(self) -> bytes:
        return b""

    @property
    def key(self) -> bytes:
        return sort_key(self.path)

    @property
    def found(self) -> Found:
        return Found(to_text(self.path), self.size, self.mtime_ns, self.tag)


class Listing:
    """All that `found` yields; what it raises comes through, and there is no listing then.

    Empty objects whose names end in a slash stand for folders in some programs: they hold
    nothing, and are passed over.
    """

    def __init__(self, found: Iterable[Found]) -> None:
        self._table = _table(
            "CREATE TABLE entry (key BLOB, path BLOB, size INTEGER, mtime_ns INTEGER, tag TEXT,"
            " reason TEXT, seen INTEGER DEFAULT 0, PRIMARY KEY (key, path)) WITHOUT ROWID"
        )
        try:
            self._table.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, 0)",
                (_row(file) for file in found if not _is_folder(file)),
            )
            self._leave_out_folders()
        except BaseException:
            self.close()
            raise

    def entries(self) -> Iterator[RemoteEntry]:
        """Yield everything, in the order of the index."""
        return self._read("1")

    def unseen(self) -> Iterator[RemoteEntry]:
        """Yield the files that can be saved and were not asked for yet."""
        return self._read("NOT seen AND reason IS NULL")

    def get(self, path: bytes) -> RemoteEntry | None:
        """Return what has this name, also what cannot be saved; None where there is nothing."""
        row = self._table.execute(
            "SELECT path, size, mtime_ns, tag, reason FROM entry WHERE key = ? AND path = ?",
            [sort_key(path), path],
        ).fetchone()
        if row is None or row[4] == Reason.VANISHED.name:
            return None
        self._table.execute(
            "UPDATE entry SET seen = 1 WHERE key = ? AND path = ?", [sort_key(path), path]
        )
        return _entry(row)

    def close(self) -> None:
        self._table.close()

    def _read(self, condition: str) -> Iterator[RemoteEntry]:
        query = (
            "SELECT path, size, mtime_ns, tag, reason, key FROM entry"  # noqa: S608 - ours
            f" WHERE (key, path) > (?, ?) AND {condition} ORDER BY key, path LIMIT {PAGE_ROWS}"
        )
        last = (b"", b"")
        while rows := self._table.execute(query, last).fetchall():
            yield from (_entry(row[:5]) for row in rows)
            last = (rows[-1][5], rows[-1][0])

    def _leave_out_folders(self) -> None:
        """Mark objects that are called like a folder of others: no file can be."""
        above: list[bytes] = []
        last = b""
        for (key,) in self._table.execute("SELECT key FROM entry WHERE reason IS NULL ORDER BY 1"):
            if last and key.startswith(last + b"\0"):
                above.append(last)
            last = key
        self._table.executemany(
            "UPDATE entry SET reason = ? WHERE key = ?", ((Reason.NAME.name, key) for key in above)
        )


def _is_folder(found: Found) -> bool:
    named_so = not found.name or found.name.endswith("/")
    return named_so and not found.size and found.reason is None


def _row(found: Found) -> tuple[object, ...]:
    path = found.name.encode("utf-8", "surrogatepass")
    reason = found.reason
    try:
        path = found.name.encode("utf-8", "surrogateescape")
        checked(path)
    except (DamagedError, UnicodeEncodeError):
        reason = reason or Reason.NAME
    size, mtime_ns = found.size, found.mtime_ns
    if not 0 <= size <= LARGEST or abs(mtime_ns or 0) > LARGEST:
        # No file is so large or so old: this is not what the storage holds.
        reason, size, mtime_ns = reason or Reason.UNREADABLE, 0, None
    tag = found.tag.encode(errors="backslashreplace").decode()
    name = None if reason is None else reason.name
    path = path or b"/"  # the storage's own location, as an object
    return sort_key(path), path, size, mtime_ns, tag, name


def _entry(row: tuple[bytes, int, int | None, str, str | None]) -> RemoteEntry:
    path, size, mtime_ns, tag, reason = row
    return RemoteEntry(path, size, mtime_ns, tag, None if reason is None else Reason[reason])


class Numbered:
    """The sizes of files of ours, each called by a number."""

    def __init__(self, found: Iterable[Found]) -> None:
        self._table = _table("CREATE TABLE file (number INTEGER PRIMARY KEY, size INTEGER)")
        try:
            self._table.executemany(
                "INSERT OR REPLACE INTO file VALUES (?, ?)",
                (
                    (int(number[1]), min(file.size, LARGEST))
                    for file in found
                    if (number := NUMBER.search(file.name))
                ),
            )
        except BaseException:
            self.close()
            raise

    def size(self, number: int) -> int | None:
        """Return the size of a file, None where it is missing."""
        row = self._table.execute("SELECT size FROM file WHERE number = ?", [number]).fetchone()
        return None if row is None else int(row[0])

    def close(self) -> None:
        self._table.close()
