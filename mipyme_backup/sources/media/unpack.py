"""Reading packs: a strict reader of the one kind of tar archive that `packs` writes.

An archive is not trusted: members are regular files named by a hash, and nothing else. The
`tarfile` module would act on links, devices and headers of any size.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator

from mipyme_backup.errors import DamagedError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader
from mipyme_backup.sources.media.packs import BLOCK

LARGEST = 2**63 - 1
"""Bytes of a file, on any system."""

HASH_NAME = re.compile(r"[0-9a-f]{64}")


class PackedContent:
    """A member of a pack: its SHA-256, its size, and `chunks`, which may be left unread."""

    def __init__(self, stream: _Stream, sha256: bytes, size: int) -> None:
        self.sha256 = sha256
        self.size = size
        self._stream = stream
        self._left = size

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in chunks of 256 KiB, only the last of which is shorter."""
        while self._left:
            chunk = self._stream.exactly(min(CHUNK, self._left))
            self._left -= len(chunk)
            yield chunk

    def skip(self) -> None:
        """Pass over what is unread, and over the padding."""
        for _chunk in self.chunks():
            pass
        self._stream.exactly(-self.size % BLOCK)


def read_pack(reader: Reader) -> Iterator[PackedContent]:
    """Yield the contents of a pack, then read it to its end. Closes `reader`.

    Raises DamagedError for whatever is no pack, or no whole one.
    """
    stream = _Stream(reader)
    try:
        while (header := stream.exactly(BLOCK)).count(0) != BLOCK:
            content = _content(stream, header)
            yield content
            content.skip()
        while reader.read(CHUNK):  # those before us check their sums at the very end
            pass
    finally:
        reader.close()


def _content(stream: _Stream, header: bytes) -> PackedContent:
    try:
        member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise _damaged() from error
    regular = member.type == tarfile.REGTYPE and HASH_NAME.fullmatch(member.name)
    if not regular or not 0 <= member.size <= LARGEST:
        raise _damaged()
    return PackedContent(stream, bytes.fromhex(member.name), member.size)


class _Stream:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._data = b""
        self._position = 0

    def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes; DamagedError where the stream ends before."""
        parts = [self._data[self._position : self._position + size]]
        self._position += len(parts[0])
        missing = size - len(parts[0])
        while missing:
            self._data = self._reader.read(CHUNK)
            if not self._data:
                raise _damaged()
            parts.append(self._data[:missing])
            self._position = len(parts[-1])
            missing -= self._position
        return b"".join(parts)


def _damaged() -> DamagedError:
    return DamagedError(
        _("A pack of media files is damaged"),
        hint=_("Restore from another destination, or another backup."),
    )
