"""Packs: tar archives of file contents, each member named by the SHA-256 of what it holds."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mipyme_backup.process import CHUNK

BLOCK = tarfile.BLOCKSIZE
END_OF_ARCHIVE = bytes(2 * BLOCK)


@dataclass
class Member:
    """A content to be packed: `chunks` yields it once.

    The header of a tar member goes out before its content is read for good. So `chunks` may
    turn out not to be what `sha256` and `size` promised; the member is then void: padded to
    its size, not `intact`, and no index names it. What lies in memory whole is `proven`.
    """

    sha256: str
    size: int
    chunks: Iterable[bytes]
    proven: bool = False
    pack: str | None = field(default=None, init=False)
    intact: bool = field(default=False, init=False)

    def blocks(self) -> Iterator[bytes]:
        """Yield the member as it stands in the archive: header, content, padding."""
        header = tarfile.TarInfo(self.sha256)
        header.size, header.mtime, header.mode = self.size, 0, 0o600
        yield header.tobuf(tarfile.GNU_FORMAT)
        digest = hashlib.sha256()
        left = self.size
        with contextlib.suppress(OSError):  # what cannot be read on is void like what changed
            for chunk in self.chunks:
                left -= len(chunk)
                if not self.proven:
                    digest.update(chunk)
                yield chunk
        self.intact = not left and (self.proven or digest.hexdigest() == self.sha256)
        while left:
            padding = bytes(min(left, CHUNK))
            left -= len(padding)
            yield padding
        yield bytes(-self.size % BLOCK)


class Packer:
    """Puts members into packs of about `pack_size` bytes, one pack after the other.

    Members are pulled while a pack is read, so nothing is made before it is wanted.
    """

    def __init__(self, members: Iterator[Member], pack_size: int) -> None:
        self._members = members
        self._pack_size = pack_size
        self._pending = next(members, None)

    def packs(self) -> Iterator[tuple[str, PackReader]]:
        """Yield id and reader of each pack; one must be read to its end before the next."""
        while self._pending is not None:
            pack = secrets.token_hex(16)
            reader = PackReader(self._blocks(pack))
            yield pack, reader
            if not reader.finished:
                raise RuntimeError("a pack must be read to its end before the next is asked for")

    def _blocks(self, pack: str) -> Iterator[bytes]:
        packed = 0
        while (member := self._pending) is not None:
            if packed and packed + member.size > self._pack_size:
                break
            yield from member.blocks()
            packed += member.size + BLOCK
            member.pack = pack
            self._pending = next(self._members, None)
        yield END_OF_ARCHIVE


class PackReader:
    """Reads a pack; there is nothing of it in memory but the chunk that is passed on."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._buffer = bytearray()
        self.finished = False

    def read(self, size: int, /) -> bytes:
        while len(self._buffer) < size:
            block = next(self._blocks, None)
            if block is None:
                break
            self._buffer += block
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.finished = not data and size > 0
        return data

    def close(self) -> None:
        self._buffer.clear()
        self._blocks = iter(())
