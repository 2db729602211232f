"""The zstd stages: compress a stream, decompress one under a size cap.

Frames carry their content checksum, so that a flipped bit in what encryption let through is
found here. Format: RFC 8878.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from mipyme_backup.errors import DamagedError, no_memory, says_memory
from mipyme_backup.memory import room_for_threads
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIX = ".zst"
LEVEL = 3

# What one worker compresses at a time, in bytes. By its default of 8 MiB, workers on a machine of
# sixteen processors hold 250 MB between them; this costs 0.3 % in size.
JOB_SIZE = 2 * 1024 * 1024


class Compressed:
    """The zstd frame of `upstream`, pulled; up to `workers` threads compress beside the caller."""

    def __init__(self, upstream: Reader, *, level: int = LEVEL, workers: int = 0) -> None:
        self._upstream = upstream
        workers = min(workers, room_for_threads())
        self._compressor = zstd.ZstdCompressor(
            options={
                zstd.CompressionParameter.compression_level: level,
                zstd.CompressionParameter.checksum_flag: 1,
                zstd.CompressionParameter.nb_workers: workers,
                zstd.CompressionParameter.job_size: JOB_SIZE if workers else 0,
            }
        )
        self._buffer = bytearray()
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._buffer and not self._ended:
            if data := self._upstream.read(CHUNK):
                self._buffer += self._pressed(self._compressor.compress, data)
            else:
                self._buffer += self._pressed(self._compressor.flush)
                self._ended = True
        return _take(self._buffer, size)

    def _pressed(self, step: Callable[..., bytes], *data: bytes) -> bytes:
        try:
            return step(*data)
        except zstd.ZstdError as error:
            if says_memory(str(error)):
                raise no_memory(error) from error
            raise

    def close(self) -> None:
        self._upstream.close()


class Decompressed:
    """The content of one zstd frame, at most `limit` bytes of it (None: unbounded).

    Raises DamagedError for what is no frame, ends early, goes on after its end, fails its
    checksum, or would exceed `limit`.
    """

    def __init__(self, upstream: Reader, *, limit: int | None = None) -> None:
        self._upstream = upstream
        self._decompressor = zstd.ZstdDecompressor()
        self._limit = limit
        self._count = 0
        self._failure: DamagedError | None = None

    def read(self, size: int, /) -> bytes:
        if self._failure is not None:
            raise self._failure
        try:
            return self._read(size)
        except DamagedError as error:
            self._failure = error
            raise

    def close(self) -> None:
        self._upstream.close()

    def _read(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof:
                self._check_end()
                return b""
            data = self._decompress(size)
            self._count += len(data)
            if self._limit is not None and self._count > self._limit:
                raise DamagedError(
                    _("The stream holds more than the %(limit)d bytes that its manifest states."),
                    limit=self._limit,
                )
            if data:
                return data

    def _decompress(self, size: int) -> bytes:
        data = b""
        if self._decompressor.needs_input:
            data = self._upstream.read(CHUNK)
            if not data:
                raise DamagedError(_("The compressed stream ends before its end mark."))
        try:
            return self._decompressor.decompress(data, max_length=size)
        except zstd.ZstdError as error:
            if says_memory(str(error)):
                raise no_memory(error) from error
            raise DamagedError(
                _("The compressed stream is damaged: %(reason)s"), reason=error
            ) from error

    def _check_end(self) -> None:
        if self._decompressor.unused_data or self._upstream.read(1):
            raise DamagedError(_("The compressed stream goes on after its end mark."))


def _take(buffer: bytearray, size: int) -> bytes:
    data = bytes(buffer[:size])
    del buffer[:size]
    return data
