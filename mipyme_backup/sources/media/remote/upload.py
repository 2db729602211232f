"""Sending what a restore brings into the side, several small files at a time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Generator, Iterator

from mipyme_backup.messages import _
from mipyme_backup.process import Reader
from mipyme_backup.sources.media.names import to_text
from mipyme_backup.sources.media.remote.objects import Content, content_of, hashed
from mipyme_backup.sources.media.remote.parallel import each
from mipyme_backup.sources.media.remote.side import Side
from mipyme_backup.sources.media.unpack import PackedContent, read_pack
from mipyme_backup.sources.media.wanted import Wanted, WantedFile

TOGETHER_BYTES = 1024 * 1024
"""Files up to this size are sent several at a time."""

Sending = tuple[str, bytes, str]
"""Name and content of a file of ours, and the name that it will be moved to."""


class Upload:
    """Sends the wanted files into the side; the hash of each is checked while it passes."""

    def __init__(self, side: Side, wanted: Wanted) -> None:
        self.mismatched: set[bytes] = set()
        self._side = side
        self._objects = side.objects
        self._wanted = wanted

    def unpack(self, reader: Reader) -> None:
        """Send the wanted files out of one pack."""
        with contextlib.closing(self._small(reader)) as small:
            each(self._send, small, self._objects.workers)

    def _send(self, sending: Sending) -> None:
        name, data, like = sending
        self._objects.put(name, content_of(data), like=like)

    def _small(self, reader: Reader) -> Generator[Sending, None, None]:
        """Yield the small files; the large ones are sent before the next is asked for."""
        with contextlib.closing(_contents(reader)) as contents:
            for content in contents:
                files = self._wanted.with_content(content.sha256)
                first = next(files, None)
                if first is None:
                    continue
                self._wanted.require_size(content.sha256, content.size)
                if content.size > TOGETHER_BYTES:
                    self._send_large(content, first, files)
                    continue
                data = b"".join(content.chunks())
                if hashlib.sha256(data).digest() != content.sha256:
                    self.mismatched.add(content.sha256)
                    continue
                for file in itertools.chain([first], files):
                    yield self._side.restored(file.number), data, to_text(file.path)
                    self._wanted.written(file)

    def _send_large(
        self, content: PackedContent, first: WantedFile, others: Iterator[WantedFile]
    ) -> None:
        name = self._side.restored(first.number)
        proven = _Proven(content)
        try:
            self._objects.put(name, Content(proven, content.size), like=to_text(first.path))
        except Exception:
            if not proven.wrong:
                raise
            # It may have changed while it was packed; then a good one follows.
            self.mismatched.add(content.sha256)
            self._objects.delete(name)
            return
        self._wanted.written(first)
        for other in others:
            self._objects.copy(
                name,
                self._side.restored(other.number),
                size=content.size,
                like=to_text(other.path),
            )
            self._wanted.written(other)


class _Proven:
    """The chunks of a content; raises at their end where they are not what they should be."""

    def __init__(self, content: PackedContent) -> None:
        self.wrong = False
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        digest = hashlib.sha256()
        yield from hashed(self._content.chunks(), digest)
        if digest.digest() != self._content.sha256:
            self.wrong = True
            raise ValueError(_("the content has another hash"))


def _contents(reader: Reader) -> Generator[PackedContent, None, None]:
    yield from read_pack(reader)
