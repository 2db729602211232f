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
def test_gigabyte_is_rehearsed_within_the_hour(workdir: Path, tell: Callable[[str], None]) -> None:
    with services.postgresql() as server, postgresql_project(workdir, server) as project:
        project.manage("migrate", "--verbosity=0")
        fill(project, SIZE)
        project.backup()
        guessed = _predicted(project)

        report = project.json("restore_drill", "--no-input")
        learned = _predicted(project)
        restored = project.restore("--latest")

        tell(
            f"{SIZE // MEGABYTE} MB and as much media: predicted {guessed:.0f} s, the drill took"
            f" {report['seconds']:.0f} s, predicted then {learned:.0f} s,"
            f" the restore took {restored['seconds']:.0f} s"
        )
        assert report["passed"], report["steps"]
        assert project.execute("SELECT count(*) FROM bulk") == [(SIZE // ROW,)]
        assert max(guessed, learned, report["seconds"], restored["seconds"]) < RTO
        assert guessed / 10 < restored["seconds"] < guessed * 2
        assert learned / 5 < restored["seconds"] < learned * 2


def _predicted(project: Project) -> float:
    shown = project.manage("backup_status", "--json", check=False)
    seconds: float = json.loads(shown.stdout)["facts"]["predicted_restore_seconds"]
    return seconds
