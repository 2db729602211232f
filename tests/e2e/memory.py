"""How much memory, and disk, a command and everything below it take together, from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.project import Project

POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most that was taken at one moment, in bytes; `parts` says by which programs.

    `disk` is the most that work files took, those without a name included.
    """

    size: int
    parts: dict[str, int]
    disk: int
    samples: int
    seconds: float

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in self.parts.items())
        disk = f", {self.disk / 1e6:.0f} MB of work files" if self.disk else ""
        return f"{self.size / 1e6:.0f} MB ({parts}){disk} in {self.seconds:.0f} s"


def peak_of(project: Project, *args: str, work: Path | None = None, timeout: float = 900) -> Peak:
    """Run ``manage.py`` to its end and return the peak; a failure is an AssertionError.

    The measure is the sum of the proportional set sizes: what processes share counts once. Work
    files are looked for where a folder `work` is given: those below it, and those that have
    no name and are open, wherever they lie.
    """
    peak, parts, disk, samples = 0, {}, 0, 0
    started = time.monotonic()
    with (project.root / "output").open("wb") as output:
        process = subprocess.Popen(
            project.command(*args),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=project.root,
            env=project.environment(),
        )
    try:
        while process.poll() is None:
            assert time.monotonic() - started < timeout
            sizes = {pid: _proportional_size(pid) for pid in _family(process.pid)}
            samples += 1
            if work is not None:
                disk = max(disk, _work_files(work, sizes))
            if sum(sizes.values()) > peak:
                peak, parts = sum(sizes.values()), _by_program(sizes)
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    said = (project.root / "output").read_text(errors="replace")
    assert process.returncode == 0, said[-2000:]
    seconds = time.monotonic() - started
    return Peak(size=peak, parts=parts, disk=disk, samples=samples, seconds=seconds)


def _family(pid: int) -> Iterator[int]:
    """Yield the process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name in parentheses, which may hold anything: state, parent.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    family = [pid]
    for member in family:
        yield member
        family += children.get(member, [])


def _proportional_size(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0  # it has just ended


def _work_files(folder: Path, pids: Iterable[int]) -> int:
    """Return the bytes that files below `folder`, and nameless ones, occupy; each counts once."""
    taken: dict[tuple[int, int], int] = {}
    with contextlib.suppress(OSError):  # it changes while we look
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                _note_file(path.lstat(), taken)
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    # What lies in memory alone is no file, for all that it looks like one.
                    if not os.readlink(link).startswith(("/memfd:", "/dev/")):
                        status = link.stat()
                        if status.st_nlink == 0:
                            _note_file(status, taken)
    return sum(taken.values())


def _note_file(status: os.stat_result, taken: dict[tuple[int, int], int]) -> None:
    if stat.S_ISREG(status.st_mode):
        taken[status.st_dev, status.st_ino] = status.st_blocks * 512


def _by_program(sizes: dict[int, int]) -> dict[str, int]:
    programs: dict[str, int] = {}
    for pid, size in sizes.items():
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            programs[name] = programs.get(name, 0) + size
    return programs
