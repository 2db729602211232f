"""Fills a project with as much as is asked for: a large table, and media of many sizes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.project import Project

MEGABYTE = 1000 * 1000
ROW = 10_000
BATCH = 500
FILE = 1_500_000
MODEL_ROWS = 30_000

MODELS = f"""
from tests.zoo.models import Message
Message.everything.bulk_create(
    [Message(text="text " * 20 + str(n)) for n in range({MODEL_ROWS})], batch_size=5000)
"""


def fill(project: Project, size: int) -> None:
    """Make a database of `size` bytes, and media of as many in files of many sizes."""
    project.manage("migrate", "--verbosity=0")
    project.manage("shell", "-c", MODELS)
    kind = "bytea" if project.server else "blob"
    place = "%s" if project.server else "?"
    project.execute(f"CREATE TABLE bulk (id integer PRIMARY KEY, content {kind})")
    with project.connect() as connection:
        for start in range(0, size // ROW, BATCH):
            numbers = range(start, min(start + BATCH, size // ROW))
            connection.cursor().executemany(
                f"INSERT INTO bulk VALUES ({place}, {place})",
                [(number, os.urandom(ROW)) for number in numbers],
            )
        connection.commit()
    left = size
    (project.media / "many").mkdir(parents=True)
    write_file(project.media / "large", size // 4)
    left -= size // 4
    for number in range(left // FILE + 1):
        write_file(project.media / "many" / f"{number}", FILE)


def write_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        while size > 0:
            file.write(os.urandom(min(size, MEGABYTE)))
            size -= MEGABYTE
