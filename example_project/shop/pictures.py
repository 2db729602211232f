"""Pictures out of nothing: PNG files made with the standard library alone."""

from __future__ import annotations

import random
import struct
import zlib

# https://www.w3.org/TR/png-3/: signature, then chunks of length, type, data, CRC-32.
SIGNATURE = b"\x89PNG\r\n\x1a\n"
TRUECOLOUR = 2
NO_FILTER = b"\x00"


def draw(random_source: random.Random, *, side: int = 64) -> bytes:
    """Return a PNG of `side` times `side` pixels, as good as any other for a product.

    A smooth gradient under fine grain, so that it compresses no better than a photograph.
    """
    corners = [random_source.randbytes(3) for _ in range(3)]
    rows = []
    for y in range(side):
        grain = random_source.randbytes(side * 3)
        row = bytearray(NO_FILTER)
        for x in range(side):
            for channel in range(3):
                start, right, down = (corner[channel] for corner in corners)
                shade = start + (right - start) * x // side + (down - start) * y // side
                row.append(max(0, min(255, shade + grain[x * 3 + channel] % 32)))
        rows.append(bytes(row))
    header = struct.pack(">IIBBBBB", side, side, 8, TRUECOLOUR, 0, 0, 0)
    return (
        SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
