"""A disk that fills, or turns read-only, at a chosen moment of a restore, an undo or a backup.

Each disk is a small tmpfs of its own, which the test fills to the last byte, or mounts again
read-only, while the run is stopped for a moment. The space check has passed by then.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.e2e.arena import change
from tests.e2e.inspector import Content, Inspector, inspecting
from tests.e2e.project import Project, sqlite_project

MEBIBYTE = 2**20
DISK = 96 * MEBIBYTE
SAMPLE = 2
SECONDS = 120
PLACES = ("data", "media", "backups")
"""Where the disks are: of the database, of the media, of the backups."""

Fault = Literal["full", "read-only"]
Tell = Callable[[str], None]


@dataclass
class Disk:
    """A mounted tmpfs."""

    folder: Path

    @property
    def filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """Take all that is left, but for a random rest that holds a small file."""
        with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
            while file.write(bytes(MEBIBYTE)):
                pass
        with contextlib.suppress(OSError), self.filler.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def free(self) -> None:
        for filler in [*self.folder.rglob("filler")]:  # a swap of media moves it
            filler.unlink()

    def forbid_writing(self) -> bool:
        """Say whether it is read-only now; a file that is open for writing forbids that."""
        return self._mount("remount,ro").returncode == 0

    def allow_writing(self) -> None:
        assert self._mount("remount,rw").returncode == 0

    def _mount(self, options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["mount", "-o", options, self.folder], capture_output=True)


@contextlib.contextmanager
def disk(folder: Path, size: int = DISK, mode: str = "700") -> Iterator[Disk]:
    """Mount a tmpfs of `size` bytes on `folder`; skips the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode={mode}", "tmpfs", folder],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a disk of its own needs root and mount: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Host:
    """A project whose places are disks of their own, with backups of `new` and `old` content."""

    def __init__(self, project: Project, inspector: Inspector, disks: dict[str, Disk]) -> None:
        self.project = project
        self.disks = disks
        self.inspector = inspector
        self._kept = project.root.parent / "kept"
        project.populate()
        self.new = self.content()
        self.first: str = project.backup()["id"]
        change(project)
        self.old = self.content()
        self.second: str = project.backup()["id"]
        for name, place in disks.items():
            shutil.copytree(place.folder, self._kept / name, symlinks=True)

    @property
    def state(self) -> Path:
        return self.project.state

    def reset(self) -> None:
        for name, place in self.disks.items():
            place.allow_writing()
            for path in place.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(self._kept / name, place.folder, symlinks=True, dirs_exist_ok=True)

    def content(self) -> Content:
        """Return what is live, without what is kept beside it: media are a mount point here."""
        database, media = self.inspector.content()
        beside = (b".mipyme_backup_", b"filler")
        return database, {n: e for n, e in media.items() if not n.startswith(beside)}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    root = tmp_path_factory.mktemp("disks")
    with contextlib.ExitStack() as stack:
        project = stack.enter_context(sqlite_project(root / "project"))
        folders = {
            "data": Path(project.database["NAME"]).parent,
            "media": project.media,
            "backups": project.backups,
        }
        disks = {name: stack.enter_context(disk(folder)) for name, folder in folders.items()}
        yield Host(project, stack.enter_context(inspecting(project)), disks)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_disk_that_fails_in_the_middle(
    host: Host, fault: Fault, torture_random: random.Random, tell: Tell
) -> None:
    assert_overcome(host, fault, SAMPLE, torture_random, tell)


@pytest.mark.torture
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_disk_that_fails_at_many_moments(
    host: Host,
    fault: Fault,
    torture_random: random.Random,
    torture_rounds: int,
    tell: Tell,
) -> None:
    assert_overcome(host, fault, (torture_rounds + 3) // 4, torture_random, tell)


def assert_overcome(
    host: Host, fault: Fault, rounds: int, chance: random.Random, tell: Tell
) -> None:
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    paces: dict[str, float] = {}
    done = 0
    while done < rounds:
        verb = chance.choice(["backup", "restore", "undo"])
        place = chance.choice(PLACES)
        host.reset()
        if verb == "undo":
            host.project.restore(host.first)
        command = {
            "backup": ["backup"],
            "restore": ["restore", host.first, "--no-input"],
            "undo": ["restore", "--undo", "--no-input"],
        }[verb]
        if verb not in paces:
            began = time.monotonic()
            host.project.manage(*command)
            paces[verb] = time.monotonic() - began
            continue
        moment = chance.uniform(0.2, 1.2) * paces[verb]
        before, after = (host.new, host.old) if verb == "undo" else (host.old, host.new)
        if verb == "backup":
            after = before
        status, said, struck = _struck(host, command, host.disks[place], fault, moment)
        if not struck:
            outcomes["not struck"] += 1
            assert outcomes["not struck"] < 20 + 4 * rounds
            continue
        done += 1
        outcomes[f"{verb} {place}: {status}"] += 1
        label = f"{fault} {place} at {moment:.2f} s of {verb}"
        problems += [
            f"{label}: {problem}"
            for problem in _problems(host, place, status, said, verb, before, after)
        ]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    tell(f"{fault} (exit statuses): {counts}, {len(problems)} problems")
    assert not problems, "\n".join(problems)


def _struck(
    host: Host, command: list[str], place: Disk, fault: Fault, moment: float
) -> tuple[int, str, bool]:
    """Run the command, and have the disk fail at `moment`; say last whether it did in time."""
    output = host.project.root.parent / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            host.project.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=host.project.root,
            env=host.project.environment(),
        )
    struck = False
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        if process.poll() is None:
            struck = _strike(process, place, fault)
        status = process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()
    return status, output.read_text(errors="replace")[-3000:], struck


def _strike(process: subprocess.Popen[bytes], place: Disk, fault: Fault) -> bool:
    """Have the disk fail while the run is stopped; a read-only one as soon as it can be."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            if fault == "full":
                place.fill()
                return True
            if place.forbid_writing():
                return True
        finally:
            os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.002)
    return False


def _problems(
    host: Host, place: str, status: int, said: str, verb: str, before: Content, after: Content
) -> Iterator[str]:
    if status not in {0, 1, 3}:
        yield f"it ended with {status}: {said}"
    if "Traceback" in said:
        yield f"a traceback: {said}"
    try:
        content = host.content()
    except AssertionError as error:  # SQLite itself cannot roll back on such a disk
        content = None
        if "disk" not in str(error) and "readonly" not in str(error):
            yield f"live data cannot be read: {error}"
    both = (before, after)
    if content is not None:
        yield from _live(content, before, after, status, said)
    host.disks[place].allow_writing()
    host.disks[place].free()

    again = host.project.manage("backup", check=False)
    if again.returncode:
        heard = (again.stdout + again.stderr)[-2000:]
        yield f"the next backup ended with {again.returncode}: {heard}"
    content = host.content()
    if content not in both:
        yield f"live data is torn after the next run: {said}"
    if verb == "restore" and content == after:
        undone = host.project.manage("restore", "--undo", "--no-input", check=False)
        if undone.returncode or host.content() != before:
            yield f"the undo ended with {undone.returncode}: {undone.stderr[-2000:]}"
    yield from _next_restore(host)


def _live(
    content: Content, before: Content, after: Content, status: int, said: str
) -> Iterator[str]:
    """Yield what is wrong with the live data while the disk still fails."""
    if content[0] not in (before[0], after[0]):
        yield f"the database is torn after exit {status}"
    if status == 0 and content != after:
        yield f"live data is not new after exit 0: {said}"
    if status and content != before and "others not" not in said and "next" not in said:
        yield f"live data is not old after exit {status}, and nothing says so: {said}"


def _next_restore(host: Host) -> Iterator[str]:
    restored = host.project.manage("restore", host.first, "--no-input", check=False)
    if restored.returncode or host.content() != host.new:
        yield f"the next restore ended with {restored.returncode}: {restored.stderr[-2000:]}"
    yield from host.inspector.verify(level="content")
    damaged = {row["id"] for row in host.inspector.backups("local")}
    yield from (f"lost: {name}" for name in {host.first, host.second} - damaged)
    work = [*(host.state / "work").glob("*"), *host.project.backups.glob(".tmp-*")]
    yield from (f"left: {path}" for path in work)
