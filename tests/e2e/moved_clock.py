"""A host whose clock is moved from outside: it does what is due at each moment that it is told.

Started as ``python -m tests.e2e.moved_clock FILE``; FILE gets the moment, for programs that it
starts. Each line on stdin is a moment, and the arguments of a management command, or none: then it
does what the schedule asks for. It answers with a line of JSON. Nothing of it is moved but the
clock, which stands still while it works; and an address on this machine counts as one of the
internet.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import time_machine

from tests.e2e.project import REPOSITORY, Project

GPG = """\
#!/bin/sh
read -r moment < '{clock}'
exec '{gpg}' --faked-system-time "$moment" "$@"
"""


class Host:
    """The process, seen from the test; `clock` is its FILE."""

    def __init__(self, project: Project, clock: Path, environment: Mapping[str, str]) -> None:
        self._project = project
        self._clock = clock
        self._environment = {
            **project.environment(),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": f"{REPOSITORY}:{project.root}",
            **environment,
        }
        self._process: subprocess.Popen[str] | None = None

    def run(self, at: datetime, *command: str) -> list[dict[str, Any]]:
        """Have it work at the moment `at`; returns how each job of the schedule ended."""
        self.begin(at, *command)
        assert self._process is not None and self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, f"it has died: {self.log()}"
        outcomes: list[dict[str, Any]] = json.loads(answer)
        return outcomes

    def begin(self, at: datetime, *command: str) -> None:
        """Have it begin to work, and wait for nothing."""
        if self._process is None:
            self._process = self._started()
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join([at.isoformat(), *command]) + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Kill it, whatever it does; the next `run` starts it anew."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def log(self) -> str:
        return (self._project.root / "host.log").read_text(errors="replace")[-4000:]

    def _started(self) -> subprocess.Popen[str]:
        with (self._project.root / "host.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.moved_clock", str(self._clock)],
                cwd=self._project.root,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )


@contextmanager
def moved_host(project: Project, clock: Path, environment: Mapping[str, str]) -> Iterator[Host]:
    """Yield a host that ends with the block; it is started by its first work."""
    host = Host(project, clock, environment)
    try:
        yield host
    finally:
        host.kill()


def set_clock(clock: Path, at: datetime) -> None:
    clock.write_text(f"{int(at.timestamp())}\n")


def moved_gpg(folder: Path, clock: Path, gpg: Path) -> Path:
    """Make a `gpg` whose clock is that in the file `clock`; returns the folder for PATH."""
    folder.mkdir()
    program = folder / "gpg"
    program.write_text(GPG.format(clock=clock, gpg=gpg))
    program.chmod(0o700)
    return folder


def _main(clock: Path) -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from mipyme_backup import api
    from mipyme_backup.monitoring import exchange

    with mock.patch.object(exchange, "is_public", "127.0.0.1".__eq__):
        for line in sys.stdin:
            moment, *command = line.split()
            at = datetime.fromisoformat(moment)
            set_clock(clock, at)
            outcomes: list[dict[str, Any]] = []
            with time_machine.travel(at, tick=False):
                if command:
                    call_command(*command, stdout=io.StringIO(), stderr=sys.stderr)
                else:
                    outcomes = [outcome.to_dict() for outcome in api.run_due()]
            sys.stdout.write(json.dumps(outcomes) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
