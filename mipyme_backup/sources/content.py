"""The full parse of a raw stream: what only reading it to the end can prove."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import IO, cast

from mipyme_backup.errors import DamagedError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader
from mipyme_backup.sources import postgresql

SQLITE_MAGIC = b"SQLite format 3\0"


def check_content(name: str, reader: Reader, server_major: int | None) -> None:
    """Read the raw stream of the artifact `name` to its end; raise DamagedError for what is wrong.

    `server_major` picks pg_restore's version for a dump of PostgreSQL.
    """
    if name.endswith(".dump"):
        postgresql.check_dump(reader, server_major)
    elif name.endswith(".sqlite3"):
        _check_sqlite(reader)
    elif name.endswith(".jsonl"):
        _check_lines(name, reader)
    elif name.endswith(".tar"):
        _check_pack(reader)
    else:
        raise DamagedError(_("Nothing here can read %(name)s."), name=name)


def _check_sqlite(reader: Reader) -> None:
    """Compare the file's size with what its header states (sqlite.org/fileformat2.html)."""
    header = b""
    while len(header) < 100 and (piece := reader.read(100 - len(header))):
        header += piece
    size = len(header)
    while piece := reader.read(CHUNK):
        size += len(piece)
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    pages = int.from_bytes(header[28:32], "big")
    if not header.startswith(SQLITE_MAGIC) or size != page_size * pages:
        raise DamagedError(_("The SQLite database is cut off or none at all."))


def _check_lines(name: str, reader: Reader) -> None:
    rest, number = b"", 0
    while piece := reader.read(CHUNK):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            number += 1
            try:
                json.loads(line)
            except ValueError as error:
                raise DamagedError(
                    _("Line %(number)d of %(name)s is no JSON."), number=number, name=name
                ) from error
    if rest:
        raise DamagedError(_("%(name)s ends in the middle of a line."), name=name)


def _check_pack(reader: Reader) -> None:
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", reader), mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member)
                digest = hashlib.sha256()
                while content is not None and (piece := content.read(CHUNK)):
                    digest.update(piece)
                if not member.isreg() or digest.hexdigest() != member.name:
                    raise DamagedError(
                        _("The pack holds %(name)s with other content."), name=member.name
                    )
    except tarfile.TarError as error:
        raise DamagedError(_("The pack is damaged: %(reason)s"), reason=error) from error
    while reader.read(CHUNK):
        pass
