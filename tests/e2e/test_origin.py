"""Two projects of one template share a folder and a passphrase: a restore tells them apart."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project

GROUPS = "SELECT name FROM auth_group"
OTHER_HOST = "import socket\nsocket.gethostname = lambda: 'another-host'\n"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Project]]:
    """Two shops; the second one made the newest backup of the folder."""
    folder = tmp_path_factory.mktemp("origin")
    with (
        services.postgresql() as server,
        postgresql_project(folder / "first", server) as first,
        postgresql_project(folder / "second", server) as second,
    ):
        second.more_settings = (
            f"MIPYME_BACKUP['DESTINATIONS']['local']['OPTIONS']['location'] = '{first.backups}'\n"
        )
        second.write()
        shutil.copyfile(first.passphrase_file, second.passphrase_file)
        for project, name in ((first, "first"), (second, "second")):
            project.manage("migrate", "--verbosity=0")
            project.execute(f"INSERT INTO auth_group (name) VALUES ('{name}')")
            project.media.mkdir()
            project.backup()
        yield first, second


@pytest.fixture
def first(both: tuple[Project, Project]) -> Project:
    return both[0]


@pytest.fixture
def second(both: tuple[Project, Project]) -> Project:
    return both[1]


def _groups(project: Project) -> list[str]:
    return [name for (name,) in project.execute(GROUPS)]


def _refused(project: Project, *args: str) -> dict[str, Any]:
    result = project.manage("restore", *args, "--no-input", "--json", check=False)
    error: dict[str, Any] = json.loads(result.stdout)["error"]
    assert (result.returncode, error["code"]) == (1, "other_origin"), error
    return error


def test_backup_of_another_project_is_refused(first: Project, second: Project) -> None:
    error = _refused(first, "--latest")

    assert first.database["NAME"] in error["message"]
    assert second.database["NAME"] in error["message"]
    assert "--other-origin" in error["hint"] and "list_backups" in error["hint"]
    assert _groups(first) == ["first"]

    plan = first.json("restore", "--latest", "--plan")
    said = " ".join(plan["plan"])
    for word in ("project config", socket.gethostname(), second.database["NAME"]):
        assert word in said
    assert plan["other_origin"]


@pytest.mark.rare
def test_media_alone_of_another_project_is_refused(first: Project) -> None:
    _refused(first, "--latest", "--only", "media")


@pytest.mark.rare
def test_right_one_can_be_told_and_named(first: Project, second: Project) -> None:
    rows = first.json("list_backups", "--destination", "local")
    shown = first.manage("list_backups", "--destination", "local", env={"COLUMNS": "250"}).stdout
    own = next(
        row["id"]
        for row in rows
        if row["databases"]["database:default"]["name"] == first.database["NAME"]
        and row["kind"] == "manual"
    )

    assert {row["host"] for row in rows} == {socket.gethostname()}
    assert first.database["NAME"] in shown and second.database["NAME"] in shown
    assert first.restore(own)["other_origin"] == []
    assert _groups(first) == ["first"]


@pytest.mark.rare
def test_person_is_asked_in_plain_words(first: Project, second: Project) -> None:
    result = first.manage("restore", "--latest", input="n\n")

    said = " ".join(result.stdout.split())
    assert "may be of another project" in said
    assert second.database["NAME"] in said
    assert "Nothing was changed" in said
    assert _groups(first) == ["first"]


@pytest.mark.rare
def test_beside_the_live_data_any_backup_may_be_looked_at(first: Project) -> None:
    name = f"{first.database['NAME']}_look"
    first.restore("--latest", "--only", "database", "--to-database", name)

    assert [group for (group,) in first.execute(GROUPS, name=name)] == ["second"]
    assert first.json("restore_drill")["passed"]


@pytest.mark.rare
def test_answer_yes_and_the_option_restore_it(first: Project) -> None:
    first.manage("restore", "--latest", "--no-input", "--other-origin")
    assert _groups(first) == ["second"]
    first.restore("--undo")
    assert _groups(first) == ["first"]

    first.manage("restore", "--latest", input="y\n")
    assert _groups(first) == ["second"]
    first.restore("--undo")


@pytest.fixture
def shop(workdir: Path) -> Iterator[Project]:
    with sqlite_project(workdir / "shop") as made:
        made.manage("migrate", "--verbosity=0")
        made.execute("INSERT INTO auth_group (name) VALUES ('saved')")
        made.media.mkdir()
        (made.media / "file").write_text("saved")
        yield made


def test_another_host_matters_where_data_is_live(shop: Project) -> None:
    shop.backup()
    elsewhere = replace(shop, more_settings=OTHER_HOST)
    elsewhere.write()

    error = _refused(elsewhere, "--latest")
    assert "another-host" in error["message"] and socket.gethostname() in error["message"]

    elsewhere.destroy()
    restored = elsewhere.restore("--latest")
    assert restored["other_origin"] == []
    assert any(socket.gethostname() in line for line in restored["plan"])
    assert _groups(elsewhere) == ["saved"]


@pytest.mark.rare
def test_moved_file_is_the_same_database(shop: Project, workdir: Path) -> None:
    shop.backup()
    (workdir / "moved").mkdir()
    moved = shutil.move(shop.database["NAME"], workdir / "moved" / "db.sqlite3")
    shop.database["NAME"] = str(moved)
    shop.write()

    assert shop.restore("--latest")["other_origin"] == []

    shop.database["NAME"] = str(Path(moved).with_name("of_another.sqlite3"))
    shop.write()
    _refused(shop, "--latest")


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ("del MIPYME_BACKUP['PROJECT']\n", True),
        ("MIPYME_BACKUP['PROJECT'] = 'config'\n", False),
    ],
)
def test_name_that_many_have_is_warned_of_before_the_first_backup(
    shop: Project, more: str, warned: bool
) -> None:
    shop.more_settings = more
    shop.write()

    first, second = (" ".join(shop.backup()["warnings"]) for _run in range(2))

    assert ("Set PROJECT" in first) is warned
    assert "Set PROJECT" not in second
