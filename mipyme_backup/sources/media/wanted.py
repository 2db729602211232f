"""What is to be restored: the index as a table, on disk, for it may name a million files."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from mipyme_backup.errors import DamagedError, RestoreError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.index import FileRecord, LinkRecord, Record
from mipyme_backup.sources.media.left_out import listed
from mipyme_backup.sources.media.names import SHOWN_NAMES, checked, shown
from mipyme_backup.sources.media.owners import Owner

IMPLIED_MODE = 0o755
"""Mode of a folder that no line of the index describes, though files lie in it."""

SCHEMA = """
    CREATE TABLE file (
        path BLOB NOT NULL, size INTEGER, mtime_ns INTEGER, mode INTEGER, sha256 BLOB, pack TEXT,
        owner INTEGER
    );
    CREATE TABLE folder (
        path BLOB PRIMARY KEY, mode INTEGER, owner INTEGER, implied INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE link (
        path BLOB PRIMARY KEY, link BLOB, mtime_ns INTEGER, owner INTEGER
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX by_path ON file (path);
    CREATE INDEX by_content ON file (sha256);
    CREATE INDEX by_pack ON file (pack);
"""
"""The indexes are made before the rows: made afterwards, they would be sorted in memory."""
PAGE = 1000
"""So many files are held at once."""


class WantedFile(NamedTuple):
    """A file that is to be written, with the number of its row."""

    number: int
    path: bytes
    size: int
    mtime_ns: int
    mode: int
    sha256: bytes
    pack: str
    owner: Owner | None


class WantedFolder(NamedTuple):
    """A folder that is to be made."""

    path: bytes
    mode: int
    owner: Owner | None


class WantedLink(NamedTuple):
    """A link that is to be made."""

    path: bytes
    link: bytes
    mtime_ns: int
    owner: Owner | None


class Wanted:
    """The files that are still to be written, the folders with their modes, and the links.

    The table lies in a file that has no name any more: it goes with the process. It is made in
    a private folder, in `folder` or else where temporary files go.
    """

    def __init__(self, folder: Path | None = None) -> None:
        private = tempfile.mkdtemp(prefix="mipyme_backup_", dir=folder)
        path = os.path.join(private, "index")
        self._owners: list[Owner] = []
        self._numbers: dict[Owner, int] = {}
        try:
            # Nobody else opens it, so it needs no locks, which some network folders lack.
            uri = f"file:{quote(path)}?vfs=unix-none"
            self._table = sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=False
            )
            self._table.execute("PRAGMA journal_mode = OFF")
            self._table.execute("PRAGMA synchronous = OFF")
            self._table.execute("PRAGMA temp_store = MEMORY")
            self._table.executescript(SCHEMA)
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def add(self, records: Iterable[Record]) -> None:
        """Take the whole index; DamagedError where a path is not allowed or named twice."""
        self._table.execute("BEGIN")  # and never COMMIT: what is not in memory need not last
        last_parent = b""
        for record in records:
            path = checked(record.path)
            parent = path.rpartition(b"/")[0]
            if parent != last_parent:
                self._imply(parent)
                last_parent = parent
            owner = self._number_of(record.owner)
            if isinstance(record, FileRecord):
                sha256 = bytes.fromhex(record.sha256)
                row = (path, record.size, record.mtime_ns, record.mode, sha256, record.pack, owner)
                added = self._table.execute(
                    "INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?, ?, ?, ?)", row
                )
            elif isinstance(record, LinkRecord):
                added = self._table.execute(
                    "INSERT OR IGNORE INTO link VALUES (?, ?, ?, ?)",
                    [path, record.link, record.mtime_ns, owner],
                )
            else:
                added = self._table.execute(
                    "INSERT INTO folder VALUES (?, ?, ?, 0) ON CONFLICT (path) DO UPDATE"
                    " SET mode = excluded.mode, owner = excluded.owner, implied = 0 WHERE implied",
                    [path, record.mode, owner],
                )
            if not added.rowcount:
                raise contradiction(path)
        # What lies below a link makes a folder of it, so nothing can be written through one.
        for one, other in (("folder", "file"), ("link", "folder"), ("link", "file")):
            query = f"SELECT path FROM {one} CROSS JOIN {other} USING (path) LIMIT 1"  # noqa: S608
            if (row := self._table.execute(query).fetchone()) is not None:
                raise contradiction(row[0])

    def _imply(self, folder: bytes) -> None:
        while folder:
            added = self._table.execute(
                "INSERT OR IGNORE INTO folder VALUES (?, ?, NULL, 1)", [folder, IMPLIED_MODE]
            ).rowcount
            if not added:
                return
            folder = folder.rpartition(b"/")[0]

    def _number_of(self, owner: Owner | None) -> int | None:
        """Return what stands for an owner in the tables: there are few, of very many files."""
        if owner is None:
            return None
        if owner not in self._numbers:
            self._numbers[owner] = len(self._owners)
            self._owners.append(owner)
        return self._numbers[owner]

    def _owner(self, number: int | None) -> Owner | None:
        return None if number is None else self._owners[number]

    def folders(self, *, deepest_first: bool = False) -> Iterator[WantedFolder]:
        """Yield the folders, those above others first."""
        upwards = "SELECT path, mode, owner FROM folder ORDER BY path DESC"
        downwards = "SELECT path, mode, owner FROM folder ORDER BY path"
        for *fields, owner in self._table.execute(upwards if deepest_first else downwards):
            yield WantedFolder._make((*fields, self._owner(owner)))

    def links(self) -> Iterator[WantedLink]:
        """Yield the links."""
        rows = self._table.execute("SELECT path, link, mtime_ns, owner FROM link ORDER BY path")
        for *fields, owner in rows:
            yield WantedLink._make((*fields, self._owner(owner)))

    def files(self) -> Iterator[WantedFile]:
        """Yield the files that are still to be written, in order of the index."""
        return self._pages("")

    def packs(self) -> list[str]:
        """Return the packs out of which files are still to be written."""
        return [row[0] for row in self._table.execute("SELECT DISTINCT pack FROM file")]

    def with_content(self, sha256: bytes) -> Iterator[WantedFile]:
        """Yield the files with this content that are still to be written: maybe all there are."""
        return self._pages("sha256 = ? AND", sha256)

    def require_size(self, sha256: bytes, size: int) -> None:
        """Raise DamagedError where a file wants this content in another size."""
        query = "SELECT path FROM file WHERE sha256 = ? AND size != ?"
        row = self._table.execute(query, [sha256, size]).fetchone()
        if row is not None:
            raise DamagedError(
                _("The media index and a pack disagree about the size of %(path)s"),
                hint=_("Restore from another destination, or another backup."),
                path=shown(row[0]),
            )

    def _pages(self, condition: str, *values: object) -> Iterator[WantedFile]:
        last = 0
        query = f"SELECT rowid, * FROM file WHERE {condition} rowid > ? ORDER BY rowid LIMIT {PAGE}"  # noqa: S608
        while rows := self._table.execute(query, [*values, last]).fetchall():
            for *fields, owner in rows:
                yield WantedFile._make((*fields, self._owner(owner)))
            last = rows[-1][0]

    def written(self, file: WantedFile) -> None:
        self._table.execute("DELETE FROM file WHERE rowid = ?", [file.number])

    def count(self) -> int:
        """Return how many files are still to be written."""
        return int(self._table.execute("SELECT count(*) FROM file").fetchone()[0])

    def close(self) -> None:
        self._table.close()


def contradiction(path: bytes) -> DamagedError:
    """Return the error for a path that cannot be what the index says it is."""
    return DamagedError(
        _("The media index contradicts itself at %(path)s"),
        hint=_("Restore another backup."),
        path=shown(path),
    )


def require_all(wanted: Wanted, mismatched: set[bytes]) -> None:
    """Raise where files of the index are in none of the packs.

    Raises DamagedError where a pack has one of the contents `mismatched`, else RestoreError.
    """
    count = wanted.count()
    if not count:
        return
    names: list[str] = []
    damaged = False
    for file in wanted.files():
        damaged = damaged or file.sha256 in mismatched
        if len(names) < SHOWN_NAMES:
            names.append(shown(file.path))
    if damaged:
        raise DamagedError(
            _("The content of media files is not what was backed up; %(count)d lack: %(names)s"),
            hint=_("Restore from another destination, or another backup."),
            count=count,
            names=listed(names, count),
        )
    raise RestoreError(
        _("%(count)d media files of the backup are in none of its packs: %(names)s"),
        hint=_("Restore from another destination, or another backup."),
        count=count,
        names=listed(names, count),
    )
