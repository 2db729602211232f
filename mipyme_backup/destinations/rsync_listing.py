"""Reads what ``rsync --list-only`` prints."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import datetime

from mipyme_backup.destinations.listing import Entry
from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import _

LINE = re.compile(
    rb"(?P<kind>[-dlpscbD])[-rwxsStT]{9}[+.@]?"
    rb" +(?P<size>\d{1,19}) (?P<modified>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) (?P<name>.+)",
    re.DOTALL,
)
LARGEST = 2**63 - 1
ESCAPED = re.compile(rb"\\#([0-7]{3})")


def parse_listing(output: bytes, *, others: bool = False) -> Iterator[Entry]:
    """Yield the regular files in the order listed; a byte that is no UTF-8 becomes a surrogate.

    Links, folders and devices are left out, or (`others`) yielded with a slash behind their names.
    Raises DestinationError for a line that cannot be understood: a listing is whole, or it is none.
    """
    for line in output.split(b"\n"):
        if not line:
            continue
        match = LINE.fullmatch(line)
        if match is None or int(match["size"]) > LARGEST:
            raise DestinationError(
                _("The listing of the server holds a line that cannot be understood: %(line)r"),
                hint=_("Look at what the account's login prints, and at the versions of rsync."),
                line=line.decode(errors="replace"),
            )
        regular = match["kind"] == b"-"
        if regular or (others and match["name"] != b"."):
            raw = ESCAPED.sub(lambda escape: bytes([int(escape[1], 8) & 0xFF]), match["name"])
            name = os.fsdecode(raw)
            yield Entry(name=name if regular else f"{name}/", size=int(match["size"]))


def parse_modified(output: bytes) -> datetime | None:
    """Return when the first regular file of a listing that was made with ``TZ=UTC`` was written."""
    for match in map(LINE.fullmatch, output.split(b"\n")):
        if match is not None and match["kind"] == b"-":
            with contextlib.suppress(ValueError):
                moment = f"{match['modified'].decode()}+0000"
                return datetime.strptime(moment, "%Y/%m/%d %H:%M:%S%z")
    return None
