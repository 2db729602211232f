"""The full parse of lines: what only reading a raw stream to its end can prove."""

from __future__ import annotations

import json

from mipyme_backup.errors import DamagedError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader


def check_lines(reader: Reader) -> None:
    """Read lines, each of which is JSON, to their end; raises DamagedError."""
    rest, number = b"", 0
    while piece := reader.read(CHUNK):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            number += 1
            try:
                json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DamagedError(_("Line %(number)d is no JSON."), number=number) from error
    if rest:
        raise DamagedError(_("The last line is cut off."))
