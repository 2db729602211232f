"""Backs up a shop, destroys it, restores it, and compares every row and every file.

Needs no server and no root: SQLite, a temporary folder, and gpg. Each step runs ``manage.py``
as a user would. Exits with 1, and says why, unless everything came back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PROJECT = Path(__file__).resolve().parent
FOREIGN_SETTINGS = ("DJANGO_", "DATABASE_", "BACKUP_", "MEDIA_", "STATIC_")
MOST_DIFFERENCES_SHOWN = 10

SQLITE_START = b"SQLite format 3\x00"
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
SHORTEST_NEEDLE = 10
VOLUME_NAME = re.compile(r".+\.\d{5}")
# RFC 9580, section 4.2: a symmetric-key encrypted session key packet, old and new header.
OPENPGP_STARTS = (b"\x8c", b"\xc3")


class DemoError(Exception):
    """Something is not as it must be."""


@dataclass(kw_only=True)
class Stage:
    """The folder that the demo plays in, and its voice."""

    folder: Path
    console: Console
    durations: dict[str, float] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.folder / "shop.sqlite3"

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def passphrase_file(self) -> Path:
        return self.folder / "backup.passphrase"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "DJANGO_LANGUAGE_CODE": "en",
            "DATABASE_URL": f"sqlite:///{quote(str(self.database))}",
            "MEDIA_ROOT": str(self.media),
            "BACKUP_DIR": str(self.backups),
            "BACKUP_PASSPHRASE_FILE": str(self.passphrase_file),
        }

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and time it; a step that fails ends the demo."""
        self.console.print()
        self.console.rule(f"[bold]{len(self.durations) + 1}. {title}", align="left", style="cyan")
        started = time.monotonic()
        yield
        self.durations[title] = time.monotonic() - started

    def say(self, text: str) -> None:
        self.console.print(f"[green]✓[/] {text}", highlight=False)

    def manage(self, *arguments: str, fails: bool = False) -> None:
        """Run ``manage.py`` with its output shown; raise DemoError unless it ends as expected."""
        self.console.print(Text(f"$ python manage.py {shlex.join(arguments)}", style="bold"))
        with self._start(arguments, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                text = Text.assemble(("  │ ", "dim"), line.rstrip("\n"))
                self.console.print(text, soft_wrap=True)
        if (process.returncode != 0) != fails:
            expected = "should have failed" if fails else "failed"
            raise DemoError(f"manage.py {arguments[0]} {expected}: exit {process.returncode}")

    def fingerprint(self) -> Mapping[str, Any]:
        """Return a hash of every row and every file, as they are now."""
        self.console.print(Text("$ python manage.py fingerprint_shop", style="bold"))
        with self._start(["fingerprint_shop"], stderr=None) as process:
            output, _ = process.communicate()
        if process.returncode != 0:
            raise DemoError("The shop's rows and files could not be read.")
        found: Mapping[str, Any] = json.loads(output)
        return found

    def _start(self, arguments: Iterable[str], *, stderr: int | None) -> subprocess.Popen[str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(FOREIGN_SETTINGS)
        }
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env={
                **inherited,
                **self.variables,
                # The package of this repository, whether or not it is installed.
                "PYTHONPATH": str(PROJECT.parent),
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8",
                "COLUMNS": str(self.console.width - 4),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
        )


def play(stage: Stage) -> None:
    """Tell the whole story; raises DemoError where it does not end well."""
    with stage.step("Open a shop"):
        make_passphrase(stage.passphrase_file)
        stage.manage("migrate", "--verbosity", "0")
        stage.manage("seed_shop", "--seed", "2025")
        stage.manage("check_shop")
    with stage.step("Remember every row and every file"):
        before = stage.fingerprint()
        stage.say(f"{summary(before)}, each with its SHA-256")
    with stage.step("Back up, encrypted"):
        stage.manage("backup", "--label", "before the accident")
    with stage.step("Verify: decrypt and parse what is stored"):
        stage.manage("verify_backups", "--latest", "--level", "content")
        stage.manage("list_backups")
    with stage.step("Look for plaintext in the stored bytes"):
        look_for_plaintext(stage)
    with stage.step("Destroy the database and the uploads"):
        destroy(stage)
        stage.manage("check_shop", fails=True)
        if not (lost := differences(before, stage.fingerprint())):
            raise DemoError("The comparison does not notice that everything is gone.")
        stage.say(f"Gone, as the same comparison sees it: {len(lost):,} differences")
    with stage.step("Restore"):
        stage.manage("restore", "--latest", "--no-input")
    with stage.step("Compare row by row, file by file"):
        compare(stage, before, stage.fingerprint())
        stage.manage("check_shop")


def make_passphrase(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def destroy(stage: Stage) -> None:
    for path in stage.folder.glob(f"{stage.database.name}*"):
        stage.console.print(Text(f"$ rm {path}", style="bold red"))
        path.unlink()
    stage.console.print(Text(f"$ rm -r {stage.media}", style="bold red"))
    shutil.rmtree(stage.media)


def look_for_plaintext(stage: Stage) -> None:
    """Raise DemoError if a stored byte gives something of the shop away."""
    stored = sorted(path for path in stage.backups.rglob("*") if path.is_file())
    for path in stored:
        line = f"  │ {path.stat().st_size:>11,}  {path.relative_to(stage.backups)}"
        stage.console.print(Text(line, style="dim"), soft_wrap=True)
    needles = known_content(stage.database)
    live = [stage.database, *(path for path in stage.media.rglob("*") if path.is_file())]
    # A search that finds nothing where it must find everything would prove nothing.
    if unseen := needles - found_in(live, needles):
        raise DemoError(f"The search misses {len(unseen)} known texts in the live data.")
    if leaked := found_in(stored, needles):
        raise DemoError(f"In plaintext among the stored bytes: {sorted(leaked)[:3]}")
    stage.say(f"{len(needles):,} known texts: all in the live data, none in the stored bytes")
    volumes = [path for path in stored if VOLUME_NAME.fullmatch(path.name)]
    unencrypted = [path.name for path in volumes if not is_encrypted(path)]
    if not volumes or unencrypted:
        raise DemoError(f"Of {len(volumes)} stored volumes, not encrypted: {unencrypted}")
    stage.say(f"All {len(volumes)} volumes are OpenPGP messages")
    private = [stage.backups, *stage.backups.rglob("*")]
    if exposed := [str(path) for path in private if path.stat().st_mode & 0o077]:
        raise DemoError(f"Open to other users: {exposed[:3]}")
    stage.say("No other user of this machine may read them")


def known_content(database: Path) -> set[bytes]:
    """Return names, addresses and file starts that the live data holds."""
    connection = sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)
    with contextlib.closing(connection):
        rows = connection.execute(
            "SELECT name FROM shop_product UNION SELECT email FROM shop_customer"
        ).fetchall()
    texts = (text.encode() for (text,) in rows)
    return {SQLITE_START, PNG_START, *(text for text in texts if len(text) >= SHORTEST_NEEDLE)}


def found_in(paths: Iterable[Path], needles: set[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for path in paths:
        content = path.read_bytes()
        found |= {needle for needle in needles - found if needle in content}
    return found


def is_encrypted(volume: Path) -> bool:
    """Whether a volume is, or continues, an OpenPGP message."""
    name, _, number = volume.name.rpartition(".")
    with volume.open("rb") as file:
        start = file.read(1)
    return name.endswith(".gpg") and (int(number) > 0 or start in OPENPGP_STARTS)


def summary(fingerprint: Mapping[str, Any]) -> str:
    rows = sum(len(table) - 1 for table in fingerprint["tables"].values())  # less the definition
    tables, files = len(fingerprint["tables"]), len(fingerprint["files"])
    return f"{rows:,} rows in {tables} tables, and {files:,} files"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each row, table definition or file that is not as it was."""
    tables = sorted({*before["tables"], *after["tables"]})
    pairs = [
        (table, before["tables"].get(table, {}), after["tables"].get(table, {})) for table in tables
    ]
    pairs.append(("uploaded file", before["files"], after["files"]))
    return [
        f"{place}: {key} is {_change(key, old, new)}"
        for place, old, new in pairs
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _change(key: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    if key not in new:
        return "missing"
    return "different" if key in old else "new"


def compare(stage: Stage, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    found = differences(before, after)
    for line in found[:MOST_DIFFERENCES_SHOWN]:
        stage.console.print(Text(f"✗ {line}", style="red"))
    if found:
        raise DemoError(f"{len(found):,} differences between what was and what came back.")
    stage.say(f"{summary(after)}: all as they were before the accident")


def durations_table(durations: Mapping[str, float]) -> Table:
    table = Table(box=None, show_header=False, show_footer=True, padding=(0, 2, 0, 0))
    table.add_column(footer="Together")
    table.add_column(justify="right", footer=f"{sum(durations.values()):.1f} s")
    for title, seconds in durations.items():
        table.add_row(title, f"{seconds:.1f} s")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="keep the folder that it played in")
    keep = parser.parse_args().keep
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="mipyme-demo-")).resolve()
    stage = Stage(folder=folder, console=console)
    console.print(f"A shop is opened, backed up, destroyed and restored in {folder}")
    try:
        play(stage)
    except DemoError as error:
        keep = True
        console.print()
        console.print(Text.assemble(("FAILED  ", "bold red"), str(error)))
        return 1
    except KeyboardInterrupt:
        return 130
    else:
        console.print()
        console.rule("[bold]Everything came back", align="left", style="green")
        console.print(Padding(durations_table(stage.durations), (0, 0, 1, 0)))
        return 0
    finally:
        if keep:
            console.print("To look around, go to example_project and set:")
            for name, value in stage.variables.items():
                console.print(Text(f"  export {name}={shlex.quote(value)}"), soft_wrap=True)
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
