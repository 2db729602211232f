"""What a run must remember of a million files, compactly: tables of an in-memory database."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.index import FileRecord, Record, Spool


def _memory() -> sqlite3.Connection:
    # The stages of a stream may run in threads of their own, never two at once.
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    return connection


class KnownContents:
    """Which pack holds which content: those of this run and, once asked, of the last index.

    `previous` yields the last index; it is read only when a file turns up whose content is
    new or moved, so that a run in which nothing changed reads the index just once.
    """

    def __init__(
        self, previous: Callable[[], Iterable[Record]], known_packs: frozenset[str]
    ) -> None:
        self._previous: Callable[[], Iterable[Record]] | None = previous
        self._known_packs = known_packs
        self._packs: list[str] = []
        self._numbers: dict[str, int] = {}
        self._table = _memory()
        self._table.execute(
            "CREATE TABLE content (sha256 BLOB PRIMARY KEY, pack INTEGER) WITHOUT ROWID"
        )

    def pack_of(self, sha256: str) -> str | None:
        """Return the id of a pack that holds this content, None where it is new."""
        if self._previous is not None:
            previous, self._previous = self._previous, None
            if self._known_packs:
                self._insert(
                    (record.sha256, record.pack)
                    for record in previous()
                    if isinstance(record, FileRecord) and record.pack in self._known_packs
                )
        row = self._table.execute(
            "SELECT pack FROM content WHERE sha256 = ?", [bytes.fromhex(sha256)]
        ).fetchone()
        return None if row is None else self._packs[row[0]]

    def add(self, sha256: str, pack: str) -> None:
        self._insert([(sha256, pack)])

    def _insert(self, contents: Iterable[tuple[str, str]]) -> None:
        self._table.executemany(
            "INSERT OR IGNORE INTO content VALUES (?, ?)",
            ((bytes.fromhex(sha256), self._number(pack)) for sha256, pack in contents),
        )

    def _number(self, pack: str) -> int:
        if pack not in self._numbers:
            self._numbers[pack] = len(self._packs)
            self._packs.append(pack)
        return self._numbers[pack]

    def close(self) -> None:
        self._table.close()


class ExpectedFiles:
    """The files that rows of the database name: which of them has not turned up yet.

    `names` are storage names; what lies outside `root` is expected, and will not turn up.
    """

    def __init__(self, names: Iterable[str], root: Path | None) -> None:
        self._table = _memory()
        self._table.execute("CREATE TABLE expected (name INTEGER PRIMARY KEY)")
        self._names = Spool()
        self._table.executemany(
            "INSERT OR IGNORE INTO expected VALUES (?)",
            ([_number(path)] for path in self._paths(names, root)),
        )
        row = self._table.execute("SELECT count(*) FROM expected").fetchone()
        self.missing = int(row[0])

    def _paths(self, names: Iterable[str], root: Path | None) -> Iterator[bytes]:
        top = os.fsencode(root or "/")
        for name in names:
            path = os.path.relpath(os.path.join(top, os.fsencode(name)), top)
            if name and path != b".":
                self._names.write(path + b"\0")
                yield path

    def __contains__(self, path: bytes) -> bool:
        query = "SELECT 1 FROM expected WHERE name = ?"
        return self.missing > 0 and bool(self._table.execute(query, [_number(path)]).fetchone())

    def found(self, path: bytes) -> None:
        """Note that `path` is saved."""
        if self.missing:
            query = "DELETE FROM expected WHERE name = ?"
            self.missing -= self._table.execute(query, [_number(path)]).rowcount

    def missing_names(self) -> Iterator[bytes]:
        """Yield the files that have not turned up."""
        if not self.missing:
            return
        reader = self._names.open()
        rest = b""
        while data := reader.read(CHUNK):
            *paths, rest = (rest + data).split(b"\0")
            for path in paths:
                if path in self:
                    self.found(path)  # a name given twice is one file
                    yield path

    def close(self) -> None:
        self._table.close()


def _number(path: bytes) -> int:
    """Return 64 bits of hash: two of a million files share one once in 36 million runs."""
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big", signed=True)
