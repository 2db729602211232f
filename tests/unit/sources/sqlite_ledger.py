"""An SQLite database with an invariant over two tables, and a process that writes to it.

Every transaction adds a row to `entry` and one to the count in `total`. The writer acknowledges
each commit in a log: what is there must be found again.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

WRITER = """
import sqlite3, sys, time
path, log = sys.argv[1:]
with open(log, "a", buffering=1) as acknowledged:
    while True:
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=1)
        connection.isolation_level = None
        try:
            while True:
                connection.execute("BEGIN IMMEDIATE")
                word, count = connection.execute("SELECT word, count FROM total").fetchone()
                connection.execute("INSERT INTO entry VALUES (?, ?)", (count + 1, "x" * 50))
                connection.execute("UPDATE total SET count = count + 1")
                connection.execute("COMMIT")
                acknowledged.write(f"{word} {count + 1}\\n")
                time.sleep(0.0005)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (5, 6):
                raise
        finally:
            connection.close()
"""


def create(
    path: Path, word: str, *, mode: str = "delete", page_size: int = 4096, ballast: int = 500
) -> None:
    """Create a ledger called `word`, with `ballast` KiB of rows that nobody changes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY, payload TEXT)")
        connection.execute("CREATE TABLE total (word TEXT, count INTEGER)")
        connection.execute("CREATE TABLE ballast (content TEXT)")
        connection.execute("INSERT INTO total VALUES (?, 0)", (word,))
        rows = ((word * (1024 // len(word)),) for _number in range(ballast))
        connection.executemany("INSERT INTO ballast VALUES (?)", rows)
        connection.execute("COMMIT")


def read(path: Path) -> tuple[str, set[int]]:
    """Return the ledger's word and the numbers of its entries, having checked the invariant."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        word, count = connection.execute("SELECT word, count FROM total").fetchone()
        numbers = {number for (number,) in connection.execute("SELECT number FROM entry")}
        strangers = connection.execute(
            "SELECT count(*) FROM ballast WHERE substr(content, 1, ?) <> ?", (len(word), word)
        )
        assert strangers.fetchone() == (0,)
        assert numbers == set(range(1, count + 1))
        return word, numbers


def table_names(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def acknowledged(log: Path, word: str) -> set[int]:
    """Return the entries that the writer knows to be committed to the ledger called `word`."""
    lines = log.read_text().splitlines()
    return {int(number) for name, number in map(str.split, lines) if name == word}


@contextmanager
def writing(path: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Let a process write to the ledger until the end of the block."""
    before = log.stat().st_size if log.exists() else 0
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, log], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not log.exists() or log.stat().st_size <= before:
            assert writer.poll() is None and time.monotonic() < deadline, "the writer never wrote"
            time.sleep(0.01)
        yield writer
        assert writer.poll() is None, writer.stderr.read().decode() if writer.stderr else ""
    finally:
        writer.kill()
        writer.communicate()
