"""What a stream of a SQLite database file shows of itself without being written to a disk."""

from __future__ import annotations

from mipyme_backup.errors import DamagedError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100


def check_file(reader: Reader) -> None:
    """Raise DamagedError unless the stream is as long as its header states.

    Format: https://www.sqlite.org/fileformat2.html#the_database_header
    """
    header = b""
    while len(header) < HEADER_BYTES and (piece := reader.read(HEADER_BYTES - len(header))):
        header += piece
    size = len(header)
    while piece := reader.read(CHUNK):
        size += len(piece)
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    pages = int.from_bytes(header[28:32], "big")
    if not header.startswith(MAGIC) or size != page_size * pages:
        raise DamagedError(_("The SQLite database is cut off or none at all."))
