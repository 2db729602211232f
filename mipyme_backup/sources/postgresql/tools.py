"""Finds PostgreSQL's client tools of the server's own major version.

A dump by a newer pg_dump cannot be restored to the server that it came from, and an older one
refuses to dump: so nothing but the same major version will do. To read a dump that was made
long ago a newer pg_restore will do as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mipyme_backup import process
from mipyme_backup.errors import BackupError, PreflightError
from mipyme_backup.messages import _

NEWER_MAJORS = 10
"""So many major versions after that of a dump are looked for to read it."""

# Where distributions keep several versions side by side.
FOLDERS = (
    "/usr/lib/postgresql/{major}/bin",  # Debian, Ubuntu
    "/usr/pgsql-{major}/bin",  # Red Hat, from postgresql.org
    "/usr/libexec/postgresql{major}",  # Alpine
    "/usr/lib/postgresql{major}/bin",  # openSUSE
    "/usr/local/pgsql-{major}/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/Applications/Postgres.app/Contents/Versions/{major}/bin",
)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A client program; `version` is what it says of itself, as in ``16.4``."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]


def find_tool(name: str, major: int, bin_dir: Path | None = None) -> Tool:
    """Return the program `name` of version `major`, from `bin_dir`, PATH or the usual places.

    Raises PreflightError naming the versions that were found instead.
    """
    others: list[Tool] = []
    for tool in _installed(name, major, bin_dir):
        if tool.major == major:
            return tool
        others.append(tool)
    raise PreflightError(
        _(
            "The server is PostgreSQL %(major)d, but there is no %(tool)s of that version here "
            "(found: %(found)s)"
        ),
        hint=_(
            "Install the client tools of the server's version: postgresql-client-%(major)d "
            "(Debian, Ubuntu), postgresql%(major)d (Red Hat), postgresql%(major)d-client (Alpine)."
        ),
        tool=name,
        major=major,
        found=_listed(others),
    )


def find_reader(major: int, bin_dir: Path | None = None) -> Tool:
    """Return a pg_restore that reads dumps of version `major`: of that version or a newer one.

    Raises PreflightError naming the versions that were found instead.
    """
    others: list[Tool] = []
    for wanted in range(major, major + NEWER_MAJORS):
        for tool in _installed("pg_restore", wanted, bin_dir):
            if tool.major >= major:
                return tool
            others.append(tool)
    raise PreflightError(
        _(
            "The dump is of PostgreSQL %(major)d, but there is no pg_restore of that version or a "
            "newer one here (found: %(found)s)"
        ),
        hint=_("Install PostgreSQL's client tools, of version %(major)d or newer."),
        major=major,
        found=_listed(others),
    )


def candidates(name: str, major: int, bin_dir: Path | None, search_path: str) -> Iterator[Path]:
    """Yield each existing file that may be the program, best first, none twice.

    Debian's wrapper is passed over: the version it tells is not the one that it will run.
    """
    folders = [Path(folder) for folder in search_path.split(os.pathsep) if folder]
    folders += [Path(folder.format(major=major)) for folder in FOLDERS]
    if bin_dir is not None:
        folders.insert(0, Path(bin_dir))
    seen = set()
    for folder in folders:
        path = folder / name
        real = path.resolve()
        if real in seen or real.name == "pg_wrapper" or not os.access(path, os.X_OK):
            continue
        seen.add(real)
        yield path


def parse_version(output: str) -> str | None:
    """Return the version in what ``--version`` prints, None where there is none."""
    match = re.search(r"\(PostgreSQL\) (\d+\S*)", output)
    return match[1] if match else None


def _installed(name: str, major: int, bin_dir: Path | None) -> Iterator[Tool]:
    """Yield the programs that may be of version `major`, with what they say of themselves."""
    for path in candidates(name, major, bin_dir, os.environ.get("PATH", "")):
        tool = _ask(path)
        if tool is not None:
            yield tool


def _listed(tools: Sequence[Tool]) -> str:
    return ", ".join(dict.fromkeys(f"{t.version} ({t.path.parent})" for t in tools)) or "-"


def _ask(path: Path) -> Tool | None:
    try:
        version = parse_version(process.run([str(path), "--version"], timeout=20))
    except BackupError:
        return None
    return Tool(path=path, version=version) if version else None
