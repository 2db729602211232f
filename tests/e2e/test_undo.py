"""An undo brings back what a restore replaced, and never leaves the site without its data."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project

GROUPS = "SELECT name FROM auth_group ORDER BY name"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A project with one row and one file that counts, and a backup of them."""
    folder = tmp_path_factory.mktemp("undo")
    if request.param == "sqlite":
        with sqlite_project(folder) as made:
            _fill(made)
            yield made
        return
    with services.postgresql() as server, postgresql_project(folder, server) as made:
        _fill(made)
        yield made


@pytest.fixture
def project(saved: Project, workdir: Path) -> Project:
    return saved.clone(workdir)


def _fill(project: Project) -> None:
    project.manage("migrate", "--verbosity=0")
    _name(project, "saved")
    project.backup()


def _name(project: Project, word: str) -> None:
    project.execute("DELETE FROM auth_group")
    project.execute(f"INSERT INTO auth_group (name) VALUES ('{word}')")
    project.media.mkdir(exist_ok=True)
    (project.media / "file").write_text(word)


def _lose_database(project: Project) -> None:
    media = project.media.rename(project.root / "kept")
    project.destroy()
    media.rename(project.media)


def _state(project: Project) -> tuple[str, str]:
    rows = project.execute(GROUPS)
    return ",".join(name for (name,) in rows), (project.media / "file").read_text()


def _refused(project: Project, *args: str, code: str, status: int) -> dict[str, Any]:
    result = project.manage(*args, "--json", check=False)
    error: dict[str, Any] = json.loads(result.stdout)["error"]
    assert (result.returncode, error["code"]) == (status, code), error
    return error


@pytest.mark.parametrize("left", ["nothing", "empty places"])
def test_on_a_bare_server_there_is_nothing_to_undo(project: Project, left: str) -> None:
    project.destroy()
    if left == "empty places":
        project.create_database()
        project.media.mkdir()
    planned = " ".join(project.json("restore", "--latest", "--plan")["plan"])
    project.restore("--latest")

    for plan in ([], ["--plan"]):
        error = _refused(
            project, "restore", "--undo", "--no-input", *plan, code="no_backup", status=4
        )
        assert "replaced nothing" in error["message"] and "list_backups" in error["hint"]

    assert _state(project) == ("saved", "saved")
    assert "safety backup" not in planned and "--undo" not in planned
    assert "nothing is replaced" in planned


def test_what_replaced_nothing_stays_and_the_rest_comes_back(project: Project) -> None:
    _name(project, "since")
    _lose_database(project)
    project.restore("--latest")

    planned = project.json("restore", "--undo", "--plan")
    before = _state(project)
    undone = project.restore("--undo")

    assert before == ("saved", "saved")
    assert planned["status"] == "planned"
    assert "database:default stays as it is" in " ".join(planned["plan"])
    assert undone["stays"] == planned["stays"] == ["database:default"]
    assert _state(project) == ("saved", "since")
    assert undone["safety_backup"]
    assert _safety_sources(project, undone["safety_backup"]) == ["media"]
    project.backup()
    _refused(project, "restore", "--undo", "--no-input", code="no_backup", status=4)
    assert _state(project) == ("saved", "since")


@pytest.mark.rare
def test_lost_media_stays_while_the_database_comes_back(project: Project) -> None:
    _name(project, "since")
    shutil.rmtree(project.media)
    project.restore("--latest")

    said = project.manage("restore", "--undo", "--no-input").stdout

    assert "media: the restore replaced nothing there" in " ".join(said.split())
    assert _state(project) == ("since", "saved")


@pytest.mark.rare
def test_what_is_put_aside_is_saved_first(project: Project) -> None:
    _name(project, "since")
    project.restore("--latest")
    _name(project, "after the restore")

    undone = project.restore("--undo")

    assert _state(project) == ("since", "since")
    project.restore(undone["safety_backup"])
    assert _state(project) == ("after the restore", "after the restore")


@pytest.mark.rare
def test_without_a_safety_backup_where_that_is_said(project: Project) -> None:
    _name(project, "since")
    project.restore("--latest", "--no-safety-backup")
    count = len(project.json("list_backups"))

    planned = project.json("restore", "--undo", "--plan", "--no-safety-backup")
    undone = project.restore("--undo", "--no-safety-backup")

    assert any("NO safety backup" in line for line in planned["plan"])
    assert undone["safety_backup"] is None
    assert len(project.json("list_backups")) == count
    assert _state(project) == ("since", "since")


@pytest.mark.rare
def test_what_was_restored_and_cannot_be_read_is_undone_without_saving_it(project: Project) -> None:
    _name(project, "since")
    project.restore("--latest")
    if project.server is None:
        Path(project.database["NAME"]).write_bytes(b"garbage" * 1000)
    else:
        project.server.execute("CREATE TABLE of_another_role (a int)", project.database["NAME"])

    error = _refused(project, "restore", "--undo", "--no-input", code="restore", status=1)
    project.restore("--undo", "--no-safety-backup")

    assert "nothing was undone" in error["message"]
    assert "--undo --no-safety-backup" in error["hint"]
    assert _state(project) == ("since", "since")


@pytest.mark.rare
def test_a_plan_names_no_id_that_the_restore_will_not_use(project: Project) -> None:
    _name(project, "since")
    planned = project.json("restore", "--latest", "--plan")
    done = project.restore("--latest")

    assert planned["id"] == ""
    kept = [path.replace(done["id"], "<id>") for path in done["replaced"].values()]
    for name in kept:
        assert any(name in line for line in planned["plan"]), (name, planned["plan"])
        assert done["id"] in " ".join(done["plan"])


@pytest.mark.rare
def test_journal_of_an_earlier_version_is_undone_as_safely(project: Project) -> None:
    _name(project, "since")
    _lose_database(project)
    project.restore("--latest")
    for file in (project.state / "restores").glob("*.json"):
        entry = json.loads(file.read_text())
        for state in entry["targets"]:
            del state["had_live"]
        file.write_text(json.dumps(entry))

    undone = project.restore("--undo")

    assert undone["stays"] == ["database:default"]
    assert _state(project) == ("saved", "since")


@pytest.mark.rare
def test_undo_that_an_earlier_version_began_leaves_the_site_a_database(project: Project) -> None:
    _name(project, "since")
    _lose_database(project)
    project.restore("--latest")
    for file in (project.state / "restores").glob("*.json"):
        entry = json.loads(file.read_text())
        entry |= {"phase": "undoing", "finished_at": None}
        file.write_text(json.dumps(entry))

    project.backup()

    assert _state(project) == ("saved", "since")


@pytest.mark.rare
def test_command_that_goes_on_after_a_question(project: Project) -> None:
    _name(project, "since")
    project.restore("--latest")

    result = project.manage("restore", "--undo", input="n\n")

    assert "what the restore replaced is swapped back" in " ".join(result.stdout.split())
    assert _state(project) == ("saved", "saved")


@pytest.mark.rare
def test_killed_undo_is_finished_by_the_next_run(
    project: Project, torture_random: random.Random
) -> None:
    for _round in range(4):
        _name(project, "since")
        _lose_database(project)
        project.restore("--latest")
        undo = subprocess.Popen(
            project.command("restore", "--undo", "--no-input"),
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(torture_random.uniform(0.5, 6))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(undo.pid, signal.SIGKILL)
        undo.wait()

        project.backup("--only", "media")

        assert _state(project) in {("saved", "saved"), ("saved", "since")}
        if _state(project)[1] == "saved":  # it was killed before it began
            project.restore("--undo")
        assert _state(project) == ("saved", "since")


def _safety_sources(project: Project, name: str) -> list[str]:
    return next(row["sources"] for row in project.json("list_backups") if row["name"] == name)
