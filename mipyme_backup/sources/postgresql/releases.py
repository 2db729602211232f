"""The minor releases of PostgreSQL that closed holes in what a backup or a restore does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.postgresql.tools import Tool


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A flaw, and the first minor release without it by major version.

    A major version that is older than those listed has it still, a newer one never had it.
    """

    flaw: str
    server: bool = False
    client: bool = True
    minors: Mapping[int, int]


# Sources: https://www.postgresql.org/support/security/<flaw>/ and the notes of those releases.
FIXES = (
    # A table that is swapped for a view runs its owner's code with the rights of the dump; closed
    # only where both the server and pg_dump are new enough.
    Fix(
        flaw="CVE-2024-7348",
        server=True,
        minors={16: 4, 15: 8, 14: 13, 13: 16, 12: 20},
    ),
    # What a superuser of the source, or an object's name with a line break, puts into the script
    # that psql runs in a restore in place: code for this host.
    Fix(
        flaw="CVE-2025-8714, CVE-2025-8715",
        minors={17: 6, 16: 10, 15: 14, 14: 19, 13: 22},
    ),
    # A superuser of the server overwrites the memory of pg_dump while it reads a large object.
    Fix(flaw="CVE-2026-6477", minors={18: 4, 17: 10, 16: 14, 15: 18, 14: 23}),
    # As CVE-2025-8714, by way of its fix.
    Fix(flaw="CVE-2026-18408", minors={18: 6, 17: 11, 16: 15, 15: 19, 14: 24}),
    # A crafted archive runs code in pg_restore.
    Fix(flaw="CVE-2026-116314", minors={18: 7, 17: 12, 16: 16, 15: 20, 14: 25}),
)


def server_warnings(number: int) -> Iterator[Message]:
    """Yield at most one warning of a server whose ``server_version_num`` is `number`."""
    major, minor = divmod(number, 10000)
    if found := [fix for fix in FIXES if fix.server and _has(fix, major, minor)]:
        yield Message(
            _(
                "The server is PostgreSQL %(version)s, which lacks fixes that protect backups"
                " (%(flaws)s): update it to %(wanted)s or newer."
            ),
            {"version": f"{major}.{minor}", **_told(found, major)},
        )


def client_warnings(tool: Tool) -> Iterator[Message]:
    """Yield at most one warning of the client programs that came with `tool`."""
    match = re.fullmatch(r"\d+\.(\d+)", tool.version)
    minor = int(match[1]) if match else -1  # of a beta
    if found := [fix for fix in FIXES if fix.client and _has(fix, tool.major, minor)]:
        yield Message(
            _(
                "%(tool)s is of PostgreSQL %(version)s, which lacks fixes that protect this host"
                " and its database (%(flaws)s): update the client tools to %(wanted)s or newer."
            ),
            {"tool": tool.path, "version": tool.version, **_told(found, tool.major)},
        )


def _has(fix: Fix, major: int, minor: int) -> bool:
    return major < min(fix.minors) or minor < fix.minors.get(major, -1)


def _told(found: list[Fix], major: int) -> dict[str, object]:
    oldest = max(min(fix.minors) for fix in found)
    wanted = max(major, oldest)
    return {
        "flaws": ", ".join(fix.flaw for fix in found),
        "wanted": f"{wanted}.{max(fix.minors.get(wanted, 0) for fix in found)}",
    }
