"""The line for the crontab, run as cron runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.e2e.project import sqlite_project


def test_line_does_what_is_due_with_the_environment_of_cron(workdir: Path) -> None:
    with sqlite_project(workdir / "100% site") as project:
        project.populate()
        line = project.json("schedule_backups", "install-cron", "--print")["line"]
        when, command = line.split(" ", 5)[:5], line.split(" ", 5)[5].replace(r"\%", "%")
        environment = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}

        first, second = (
            subprocess.run(
                ["/bin/sh", "-c", command],
                env=environment,
                cwd="/",
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            for _time in range(2)
        )
        rows = project.json("list_backups")

    assert when == ["*/15", "*", "*", "*", "*"]
    assert [(run.returncode, run.stdout, run.stderr) for run in (first, second)] == [
        (0, "", "")
    ] * 2
    assert sorted(row["kind"] for row in rows) == ["daily", "monthly"]
