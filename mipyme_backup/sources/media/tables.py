"""What a run must remember of a million files, compactly: tables of an in-memory database."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

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


class Anywhere(NamedTuple):
    """A file of which only the end of its path is known: one for each place that names it."""

    place: str
    name: str


class ExpectedFiles:
    """The files that rows of the database name: which of them has not turned up yet.

    `names` are storage names; what lies outside `root` is expected, and will not turn up. Of a
    name `Anywhere`, as many paths that end in it must turn up as places name it.
    """

    def __init__(self, names: Iterable[str | Anywhere], root: Path | None) -> None:
        self._table = _memory()
        self._table.execute("CREATE TABLE expected (name INTEGER PRIMARY KEY)")
        self._table.execute("CREATE TABLE named (place INTEGER PRIMARY KEY)")
        self._table.execute("CREATE TABLE ending (name INTEGER PRIMARY KEY, wanted INTEGER)")
        self._top = os.fsencode(root or "/")
        self._names, self._endings = Spool(), Spool()
        self._missing = self._missing_endings = 0
        self._table.execute("BEGIN")
        for name in names:
            self._expect(name)
        self._table.execute("COMMIT")

    @property
    def missing(self) -> int:
        """How many files have not turned up."""
        return self._missing + self._missing_endings

    def _expect(self, name: str | Anywhere) -> None:
        text = name.name if isinstance(name, Anywhere) else name
        path = os.path.relpath(os.path.join(self._top, os.fsencode(text)), self._top)
        if not text or path == b".":
            return
        if not isinstance(name, Anywhere):
            self._names.write(path + b"\0")
            self._missing += self._insert("expected", path)
        elif self._insert("named", name.place.encode() + b"\0" + path):
            self._endings.write(path + b"\0")
            self._missing_endings += 1
            self._table.execute(
                "INSERT INTO ending VALUES (?, 1)"
                " ON CONFLICT (name) DO UPDATE SET wanted = wanted + 1",
                [_number(path)],
            )

    def _insert(self, table: Literal["expected", "named"], key: bytes) -> int:
        return self._table.execute(
            f"INSERT OR IGNORE INTO {table} VALUES (?)",  # noqa: S608 - one of two
            [_number(key)],
        ).rowcount

    def __contains__(self, path: bytes) -> bool:
        query = "SELECT 1 FROM expected WHERE name = ?"
        if self._missing and self._table.execute(query, [_number(path)]).fetchone():
            return True
        query = "SELECT 1 FROM ending WHERE name = ? AND wanted > 0"
        return self._missing_endings > 0 and any(
            self._table.execute(query, [_number(ending)]).fetchone() for ending in _endings(path)
        )

    def found(self, path: bytes) -> None:
        """Note that `path` is saved."""
        if self._missing:
            query = "DELETE FROM expected WHERE name = ?"
            self._missing -= self._table.execute(query, [_number(path)]).rowcount
        if self._missing_endings:
            for ending in _endings(path):
                self._missing_endings -= self._seen(ending)

    def _seen(self, ending: bytes) -> int:
        query = "UPDATE ending SET wanted = wanted - 1 WHERE name = ? AND wanted > 0"
        return self._table.execute(query, [_number(ending)]).rowcount

    def missing_names(self) -> Iterator[bytes]:
        """Yield the files that have not turned up."""
        for path in _listed(self._names) if self._missing else ():
            query = "DELETE FROM expected WHERE name = ?"
            if self._table.execute(query, [_number(path)]).rowcount:  # a name given twice is one
                self._missing -= 1
                yield path
        for path in _listed(self._endings) if self._missing_endings else ():
            if self._seen(path):
                self._missing_endings -= 1
                yield path

    def close(self) -> None:
        self._table.close()


def _listed(names: Spool) -> Iterator[bytes]:
    reader = names.open()
    rest = b""
    while data := reader.read(CHUNK):
        *paths, rest = (rest + data).split(b"\0")
        yield from paths


def _endings(path: bytes) -> Iterator[bytes]:
    """Yield `path`, then without its first folder, and so on down to the name of the file."""
    while True:
        yield path
        _first, slash, path = path.partition(b"/")
        if not slash:
            return


def _number(path: bytes) -> int:
    """Return 64 bits of hash: two of a million files share one once in 36 million runs."""
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big", signed=True)
