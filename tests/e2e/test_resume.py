"""A run that is killed while a far copy is on its way: the next one completes it, or sweeps."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import Project, sqlite_project

VOLUME = 65536
SECONDS = 120


@pytest.mark.parametrize(
    "dies_at",
    [
        pytest.param(1, marks=pytest.mark.rare),
        2,
        pytest.param(5, marks=pytest.mark.rare),
        "manifest",
    ],
)
def test_next_run_completes_or_sweeps(workdir: Path, dies_at: int | str) -> None:
    far = workdir / "far"
    with sqlite_project(workdir, VOLUME_SIZE=VOLUME) as project:
        project.populate()
        _place(project, far)
        puts = _count_puts(project, far) + 1
        last = puts if dies_at == "manifest" else int(dies_at)
        _place(project, far, dies_at=last)
        (project.media / "new").write_bytes(b"makes a pack")

        killed = subprocess.run(
            project.command("backup"), env=project.environment(), capture_output=True, cwd=workdir
        )
        _place(project, far)
        made = project.backup()

        assert killed.returncode == -9, killed.stderr
        assert made["status"] == "complete"
        rows = project.json("verify_backups", "--level", "content")
        assert all(row["ok"] for row in rows), rows
        held = {
            place: {row["name"] for row in rows if row["destination"] == place}
            for place in ("local", "far")
        }
        assert held["local"] == held["far"]
        later = project.backup()  # the next but one sweeps what was killed as it began to commit
        for place in (project.backups, far):
            folders = {path.name for path in place.iterdir() if path.name[0] != "."}
            folders.remove("recover.py")
            assert folders == held["local"] | {"pool", later["name"]}
        assert not [*(project.state / "runs").iterdir()]


def test_run_killed_before_it_noted_its_first_manifest(workdir: Path) -> None:
    far = workdir / "far"
    with sqlite_project(workdir, VOLUME_SIZE=VOLUME) as project:
        project.populate()
        far.touch()  # no folder
        _place(project, far)
        first = project.manage("backup", check=False)
        (note,) = (project.state / "runs").iterdir()
        noted = json.loads(note.read_text())
        note.write_text(json.dumps({**noted, "destinations": ["local", "far"], "committed": False}))
        note.with_suffix(".tmp").write_text("half of a no")
        far.unlink()

        made = project.manage("backup")

        assert first.returncode == 3 and noted["destinations"] == ["far"] and noted["committed"]
        assert "lacks a copy" not in made.stderr
        rows = project.json("verify_backups", "--level", "content")
        assert len(rows) == 4 and all(row["ok"] for row in rows), rows
        assert not [*note.parent.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_that_is_ended_keeps_the_copy_that_is_whole(
    workdir: Path, number: signal.Signals
) -> None:
    far = workdir / "far"
    with sqlite_project(workdir, VOLUME_SIZE=VOLUME) as project:
        project.populate()
        _place(project, far, seconds=1)
        process = subprocess.Popen(
            project.command("backup"),
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=workdir,
        )
        try:
            deadline = time.monotonic() + SECONDS
            while not (project.backups / "recover.py").exists():  # it is put after the manifest
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(number)
            status = process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
        (ended,) = project.json("list_backups")
        (local,) = project.json("list_backups", "--destination", "local")
        _place(project, far)
        made = project.backup()

        assert status not in (0, 3)
        assert ended["id"] == local["id"]
        assert ended["status"] == "partial"
        assert {copy["destination"]: copy["status"] for copy in ended["copies"]} == {
            "local": "complete",
            "far": "failed",
        }
        assert made["status"] == "complete"
        assert {row["status"] for row in project.json("list_backups")} == {"complete"}
        rows = project.json("verify_backups", "--level", "content")
        assert len(rows) == 4
        assert all(row["ok"] for row in rows), rows


def _count_puts(project: Project, far: Path) -> int:
    """Take a backup, and return how many objects a second one of nothing new would put."""
    project.backup()
    before = {path for path in far.rglob("*") if path.is_file()}
    project.backup()
    return len({path for path in far.rglob("*") if path.is_file()} - before)


def _place(project: Project, far: Path, **options: Any) -> None:
    local = {"location": str(project.backups)}
    project.backup_settings = {
        **project.backup_settings,
        "STATE_DIR": str(project.state),
        "DESTINATIONS": {
            "local": {
                "BACKEND": "mipyme_backup.destinations.LocalDestination",
                "OPTIONS": local,
            },
            "far": {
                "BACKEND": "tests.faulty.FarAway",
                "OPTIONS": {"location": str(far), "seconds": 0.02, **options},
            },
        },
    }
    project.write()
