"""A drill of a gigabyte ends within the RTO, and so does the restore it rehearses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import services
from tests.e2e.bulk import MEGABYTE, ROW, fill
from tests.e2e.project import Project, postgresql_project

SIZE = 1000 * MEGABYTE
RTO = 3600


@pytest.mark.torture
def test_gigabyte_is_rehearsed_within_the_hour(
    workdir: Path, tell: Callable[[str], None], scaled: Callable[[int, int], int]
) -> None:
    """In a slice less is, and how long that will take is foretold within wider bounds."""
    size = scaled(SIZE, 50 * MEGABYTE)
    with services.postgresql() as server, postgresql_project(workdir, server) as project:
        project.manage("migrate", "--verbosity=0")
        fill(project, size)
        project.backup()
        guessed = _predicted(project)

        report = project.json("restore_drill", "--no-input")
        learned = _predicted(project)
        restored = project.restore("--latest")

        tell(
            f"{size // MEGABYTE} MB and as much media: predicted {guessed:.0f} s, the drill took"
            f" {report['seconds']:.0f} s, predicted then {learned:.0f} s,"
            f" the restore took {restored['seconds']:.0f} s"
        )
        assert report["passed"], report["steps"]
        assert project.execute("SELECT count(*) FROM bulk") == [(size // ROW,)]
        assert max(guessed, learned, report["seconds"], restored["seconds"]) < RTO
        slack = 1 if size == SIZE else 5
        assert guessed / 10 / slack < restored["seconds"] < guessed * 2 * slack
        assert learned / 5 / slack < restored["seconds"] < learned * 2 * slack


def _predicted(project: Project) -> float:
    shown = project.manage("backup_status", "--json", check=False)
    seconds: float = json.loads(shown.stdout)["facts"]["predicted_restore_seconds"]
    return seconds
