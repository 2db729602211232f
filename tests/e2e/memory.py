"""How much memory a command and everything below it take together, from ``/proc``."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.project import Project

POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most that was taken at one moment, in bytes; `parts` says by which programs."""

    size: int
    parts: dict[str, int]
    samples: int
    seconds: float

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in self.parts.items())
        return f"{self.size / 1e6:.0f} MB ({parts}) in {self.seconds:.0f} s"


def peak_of(project: Project, *args: str, timeout: float = 900) -> Peak:
    """Run ``manage.py`` to its end and return the peak; a failure is an AssertionError.

    The measure is the sum of the proportional set sizes: what processes share counts once.
    """
    peak, parts, samples = 0, {}, 0
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
            if sum(sizes.values()) > peak:
                peak, parts = sum(sizes.values()), _by_program(sizes)
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    said = (project.root / "output").read_text(errors="replace")
    assert process.returncode == 0, said[-2000:]
    return Peak(size=peak, parts=parts, samples=samples, seconds=time.monotonic() - started)


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


def _by_program(sizes: dict[int, int]) -> dict[str, int]:
    programs: dict[str, int] = {}
    for pid, size in sizes.items():
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            programs[name] = programs.get(name, 0) + size
    return programs
