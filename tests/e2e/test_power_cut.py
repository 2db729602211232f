"""What each command asks the kernel for, so that what it noted is there after a power cut."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.project import Project, sqlite_project

TRACED = "openat,rename,renameat,renameat2,link,linkat,fsync,fdatasync,syncfs"
LINE = re.compile(r"(\d+) +(.*)")
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
CALL = re.compile(r"(\w+)\((.*)\) += \d+(?:<.*>)?")
NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
DESCRIPTOR = re.compile(r"\d+<([^>]*)>")

pytestmark = [
    pytest.mark.rare,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


class Call(NamedTuple):
    """A call that succeeded, and the paths that it is of."""

    name: str
    paths: list[str]
    arguments: str


def traced(project: Project, output: Path, *arguments: str) -> list[Call]:
    """Run a command to its end; return what it and its processes called, in that order."""
    strace = ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={TRACED}", "-o", str(output)]
    done = subprocess.run(
        [*strace, *project.command(*arguments)],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    if "PTRACE" in done.stderr:
        pytest.skip("this machine lets nobody trace")
    assert done.returncode == 0, done.stderr
    return [*_calls(output.read_text(errors="surrogateescape").splitlines(), project.root)]


def _calls(lines: list[str], folder: Path) -> Iterator[Call]:
    begun: dict[str, str] = {}
    for line in lines:
        match = LINE.match(line)
        assert match is not None, line
        process, text = match.groups()
        if text.endswith(UNFINISHED):
            begun[process] = text.removesuffix(UNFINISHED)
            continue
        if resumed := RESUMED.match(text):
            text = begun.pop(process) + resumed[1]
        if call := CALL.match(text):
            name, arguments = call.groups()
            pairs = NAME.findall(arguments)
            paths = [str(Path(above or folder, base)) for above, base in pairs]
            yield Call(name, paths or DESCRIPTOR.findall(arguments), arguments)


def not_durable(calls: list[Call], kept: Callable[[str], bool]) -> Iterator[str]:
    """Yield what was renamed before its content was synced, or whose name was not synced.

    Of the names, those count that are `kept`.
    """
    written: set[str] = set()
    synced: set[str] = set()
    for place, call in enumerate(calls):
        if call.name in {"fsync", "fdatasync"}:
            synced.update(call.paths)
        elif call.name == "syncfs":  # media: once for all of it
            synced.update(written)
        elif call.name == "openat" and "O_RDONLY" not in call.arguments:
            synced.difference_update(call.paths)
            written.update(call.paths)
        elif call.name.startswith(("rename", "link")):
            old, new = call.paths
            if old in synced:
                synced.add(new)
            if not kept(new):
                continue
            if new not in synced and not Path(new).is_dir():
                yield f"{old} is not synced before it is called {new}"
            later = [path for c in calls[place:] if c.name == "fsync" for path in c.paths]
            if str(Path(new).parent) not in later:
                yield f"{new} may be called {old} after a power cut"


def test_each_file_is_synced_before_it_is_named_and_its_folder_afterwards(workdir: Path) -> None:
    with sqlite_project(workdir / "project") as project:
        project.populate()
        first = project.backup()
        passing = (f"{project.state}/work/", f"{project.backups}/.tmp-")

        def kept(path: str) -> bool:
            ours = path.startswith(str(workdir)) and not path.startswith(passing)
            return ours and "/__pycache__/" not in path

        renamed = 0
        for number, arguments in enumerate(
            [
                ["backup"],
                ["pin_backup", first["id"]],
                ["restore", "--latest", "--no-input"],
                ["restore", "--undo", "--no-input"],
                ["restore", "--latest", "--no-input", "--to-media", str(workdir / "new")],
                ["restore_drill"],
                ["schedule_backups", "run-due"],
                ["prune_backups"],
            ]
        ):
            calls = traced(project, workdir / f"trace{number}", *arguments)
            renamed += sum(call.name.startswith("rename") and kept(call.paths[1]) for call in calls)
            assert [*not_durable(calls, kept)] == [], arguments
        assert renamed > 20
