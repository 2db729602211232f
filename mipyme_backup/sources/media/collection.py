"""One run over the media: its entries, merged with the last index, give contents and an index."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from mipyme_backup.errors import BackupError
from mipyme_backup.messages import Message, _
from mipyme_backup.process import CHUNK
from mipyme_backup.sources.base import View
from mipyme_backup.sources.media.behind import Behind
from mipyme_backup.sources.media.changes import Changes
from mipyme_backup.sources.media.index import (
    INDEX_NAME,
    MODE_BITS,
    FileRecord,
    FolderRecord,
    LinkRecord,
    Record,
    Spool,
    fields_of_owner,
    read_records,
)
from mipyme_backup.sources.media.left_out import NO_RIGHTS, OUTWARD, LeftOut, Reason
from mipyme_backup.sources.media.owners import Names
from mipyme_backup.sources.media.packs import Member
from mipyme_backup.sources.media.tables import ExpectedFiles, KnownContents
from mipyme_backup.sources.media.tree import Entry, OpenFile, Tree

TRIES = 3
KEPT_REASONS = (Reason.UNREADABLE, Reason.VANISHED, Reason.CHANGED)
"""Why a file cannot be saved now, although it is (or was, a moment ago) there."""


class Collection:
    """Decides file by file what is stored, and writes the new index as it goes.

    `tree` holds the media, below the folder `root` where it is one. `members` yields what goes
    into packs, in order; after it came to its end, `index`, `facts` and `warnings` are complete.
    Of a place that cannot be seen (`unseen`), all that the last index has is kept.
    """

    def __init__(
        self,
        tree: Tree,
        view: View,
        *,
        root: Path | None = None,
        changes: Changes | None = None,
        index_name: str = INDEX_NAME,
        unseen: bool = False,
    ) -> None:
        self._index_name = index_name
        self._changes = changes or Changes()
        self.index = Spool()
        self._tree = tree
        self._view = view
        self._left_out = LeftOut()
        self._left_out_count = self._missing = 0
        self._files = self._folders = self._bytes = self._new_files = self._new_bytes = 0
        self._links = 0
        self._names = Names()
        self._behind = Behind()
        self._packs: set[str] = set()
        self._previous_error: BackupError | OSError | None = None
        self._previous = self._previous_records()
        self._next = next(self._previous, None)
        self._known = KnownContents(self._previous_records, view.known_packs)
        self._expected = ExpectedFiles(view.expected_files, root)
        self._last_file = b""
        self._last_record: FileRecord | None = None
        self._closed_folder = b"" if unseen else None

    def members(self) -> Generator[Member, None, None]:
        """Yield each content that no pack holds yet; it is packed when the next is asked for."""
        for entry in self._tree.entries():
            previous = self._last_known(entry.key)
            if entry.is_folder:
                self._write_folder(entry)
            if entry.reason is not None:
                self._cannot_save(entry, entry.reason, previous)
            elif not entry.is_folder:
                yield from self._file(entry, previous)
        self._last_known(None)
        for path in self._expected.missing_names():
            if self._tree.may_exist(path):
                self._left_out.add(Reason.UNSAVED, path)
            else:
                self._left_out.add(Reason.MISSING, path)
                self._missing += 1

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if (top := self._tree.top()) is not None:
            owner = fields_of_owner(self._names.owner(top[1]))
            facts["folder"] = {"mode": top[0] & MODE_BITS, **owner}
        return facts | {
            "files": self._files,
            "directories": self._folders,
            "bytes": self._bytes,
            "new_files": self._new_files,
            "new_bytes": self._new_bytes,
            "packs": sorted(self._packs),
            "left_out": self._left_out_count,
            "missing": self._missing,
            "gone": self._left_out.count(Reason.GONE),
            "links": self._links,
            "files_behind_links": self._behind.files,
            "bytes_behind_links": self._behind.bytes,
            "unreadable": self._left_out.count(*NO_RIGHTS),
        }

    def warnings(self) -> list[Message]:
        messages = self._left_out.messages()
        messages += self._behind.messages()
        if self._previous_error is not None:
            text = _("The last media index could not be read, so all files were: %(reason)s")
            messages.append(Message(text, {"reason": str(self._previous_error)}))
        return messages

    def close(self) -> None:
        self._known.close()
        self._expected.close()

    # The last index, beside the entries

    def _previous_records(self) -> Iterator[Record]:
        try:
            reader = self._view.previous(self._index_name)
            if reader is not None:
                yield from read_records(reader)
        except (BackupError, OSError) as error:
            self._previous_error = error

    def _last_known(self, key: bytes | None) -> FileRecord | None:
        """Move the last index up to `key` (None: to its end); return the file it has there."""
        while (record := self._next) is not None and (key is None or record.key < key):
            self._skipped(record)
            self._next = next(self._previous, None)
        if record is None or record.key != key:
            return None
        self._next = next(self._previous, None)
        if isinstance(record, FileRecord) and record.pack in self._view.known_packs:
            return record
        return None

    def _skipped(self, record: Record) -> None:
        """Keep a file that is gone, where a row still names it or its folder cannot be read."""
        if not isinstance(record, FileRecord) or record.pack not in self._view.known_packs:
            return
        hidden = self._closed_folder is not None and record.key.startswith(self._closed_folder)
        below_a_file = self._last_file and record.key.startswith(self._last_file)
        if (hidden or record.path in self._expected) and not below_a_file:
            if not hidden:
                self._left_out.add(Reason.GONE, record.path)
            self._write_file(record)

    # One entry

    def _file(self, entry: Entry, previous: FileRecord | None) -> Iterator[Member]:
        same = previous is not None and self._changes.is_same(previous, entry)
        if same and previous is not None and not self._changes.is_due(previous):
            now = previous._replace(
                mode=entry.mode,
                ctime_ns=entry.ctime_ns,
                inode=entry.inode,
                owner=self._names.owner(entry.ids),
            )
            self._write_file(now)
            return
        try:
            reason = yield from self._read(entry)
        except FileNotFoundError:
            reason = Reason.VANISHED
        except OSError:
            reason = Reason.UNREADABLE
        if reason is not None:
            self._cannot_save(entry, reason, previous)
        elif same and previous is not None and self._changed_by_itself(previous):
            self._left_out.add(Reason.ROTTEN, entry.path)

    def _changed_by_itself(self, previous: FileRecord) -> bool:
        """Return whether the last file has another content, and nothing says that it changed."""
        now = self._last_record
        return (
            now is not None
            and None not in (now.ctime_ns, now.inode)
            and (now.size, now.mtime_ns, now.ctime_ns, now.inode)
            == (previous.size, previous.mtime_ns, previous.ctime_ns, previous.inode)
            and now.sha256 != previous.sha256
        )

    def _read(self, entry: Entry) -> Generator[Member, None, Reason | None]:
        """Save a file as it is now; return why not, where that cannot be."""
        for attempt in range(TRIES):
            with self._tree.opened(entry) as file:
                if file is None:
                    return Reason.SPECIAL
                if file.size <= self._tree.small_bytes:
                    done = yield from self._read_small(entry, file, last=attempt == TRIES - 1)
                else:
                    done = yield from self._read_large(entry, file)
                if done:
                    return None
        return Reason.CHANGED

    def _read_small(
        self, entry: Entry, file: OpenFile, *, last: bool
    ) -> Generator[Member, None, bool]:
        """Save a small file, as one read found it; the last try takes it even while it moves."""
        content, still = file.read_whole()
        if not still and not last:
            return False
        if not still:
            self._left_out.add(Reason.MOVING, entry.path)
        sha256 = hashlib.sha256(content).hexdigest()
        pack = self._known.pack_of(sha256)
        if pack is None:
            chunks = (content[start : start + CHUNK] for start in range(0, len(content), CHUNK))
            member = Member(sha256, len(content), chunks, proven=True)
            yield member
            pack = self._packed(member)
        self._write_new(entry, file, len(content), sha256, pack)
        return True

    def _read_large(self, entry: Entry, file: OpenFile) -> Generator[Member, None, bool]:
        """Save a large file: hash it, and emit it while hashing again; False when they differ."""
        sha256 = file.sha256()
        if sha256 is None:
            return False
        pack = self._known.pack_of(sha256)
        if pack is None:
            member = Member(sha256, file.size, file.chunks())
            yield member
            if not member.intact:
                return False
            pack = self._packed(member)
        self._write_new(entry, file, file.size, sha256, pack)
        return True

    def _cannot_save(self, entry: Entry, reason: Reason, previous: FileRecord | None) -> None:
        """Keep the file of the last index where that is better than nothing; warn either way."""
        self._left_out.add(reason, entry.path)
        if reason in NO_RIGHTS:
            self._closed_folder = entry.key + b"\0"
            self._expected.found(entry.path)
        if entry.link is not None:
            self._link(entry, entry.link, reason, previous)
        elif previous is not None and (reason in KEPT_REASONS or entry.path in self._expected):
            self._write_file(previous)
        else:
            self._left_out_count += 1

    def _link(self, entry: Entry, link: bytes, reason: Reason, previous: FileRecord | None) -> None:
        """Keep a link as one, but for a broken one in the place of a file that a row names."""
        if reason in OUTWARD:
            self._behind.add(entry.leads_to)
        elif previous is not None and entry.path in self._expected:
            self._write_file(previous)
            return
        owner = self._names.owner(entry.ids)
        self.index.write(LinkRecord(entry.path, link, entry.mtime_ns or 0, owner).line())
        self._links += 1
        self._last_file = entry.key + b"\0"

    # The new index

    def _packed(self, member: Member) -> str:
        assert member.pack is not None
        self._known.add(member.sha256, member.pack)
        self._new_files += 1
        self._new_bytes += member.size
        return member.pack

    def _write_new(self, entry: Entry, file: OpenFile, size: int, sha256: str, pack: str) -> None:
        self._write_file(
            FileRecord(
                path=entry.path,
                size=size,
                mtime_ns=file.mtime_ns,
                mode=file.mode,
                sha256=sha256,
                pack=pack,
                recheck=file.recheck,
                ctime_ns=file.ctime_ns,
                inode=file.inode,
                read_day=self._changes.read_day,
                owner=self._names.owner(entry.ids),
            )
        )

    def _write_file(self, record: FileRecord) -> None:
        self.index.write(record.line())
        self._last_record = record
        self._files += 1
        self._bytes += record.size
        self._packs.add(record.pack)
        self._expected.found(record.path)
        self._last_file = record.key + b"\0"

    def _write_folder(self, entry: Entry) -> None:
        owner = self._names.owner(entry.ids)
        self.index.write(FolderRecord(entry.path, entry.mode, owner).line())
        self._folders += 1
