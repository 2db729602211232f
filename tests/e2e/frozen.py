"""Makes the frozen backups of `tests/artifacts`: ``python -m tests.e2e.frozen FOLDER``.

To be run once for each format version, by the release that writes it, and never again: what it
made then has to be restored by every release that follows.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project

PASSPHRASE = "frozen in time: ñandú 🦆\n"
ROWS = "SELECT id, slug FROM zoo_tag ORDER BY id"
TAGS = ("plain", "ñandú", "עברית", "🦆", "quote'\"\\")
FILES = {"a": b"", "folder/b": b"content", "folder/ñandú": bytes(range(256)) * 40}
POSTGRESQL = 16
OPTIONS: dict[str, Any] = {"PROJECT": "frozen", "VOLUME_SIZE": 65536}


def make(folder: Path) -> None:
    """Write ``sqlite`` and ``postgresql`` below `folder`: destinations with one backup each."""
    with tempfile.TemporaryDirectory(dir="/tmp") as work:
        with sqlite_project(Path(work) / "s", **OPTIONS) as project:
            _freeze(project, folder / "sqlite")
        # Every newer one reads what it writes, and each has the extensions that it has.
        with services.postgresql(POSTGRESQL) as server:
            with postgresql_project(Path(work) / "p", server, **OPTIONS) as project:
                _freeze(project, folder / "postgresql")


def _freeze(project: Project, target: Path) -> None:
    project.passphrase_file.write_text(PASSPHRASE)
    project.manage("migrate", "--verbosity=0")
    project.execute("DELETE FROM zoo_tag")
    with project.connect() as connection:
        mark = "?" if project.server is None else "%s"
        for number, slug in enumerate(TAGS, start=1):
            connection.execute(f"INSERT INTO zoo_tag (id, slug) VALUES ({number}, {mark})", [slug])
        connection.commit()
    for name, content in FILES.items():
        path = project.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    project.backup("--label", "frozen")
    shutil.copytree(project.backups, target, ignore=shutil.ignore_patterns(".state"))
    (target / "expected.json").write_text(json.dumps(expected(project), indent=1))


def expected(project: Project, database: str | None = None, media: Path | None = None) -> Any:
    """Return what a project, or what was restored beside it, holds of what was frozen."""
    files = project.media_fingerprint(media)
    return {
        "tags": [list(row) for row in project.execute(ROWS, name=database)],
        "files": {os.fsdecode(name): list(entry) for name, entry in files.items()},
    }


if __name__ == "__main__":
    make(Path(sys.argv[1]))
