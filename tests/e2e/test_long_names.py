"""Databases whose long names begin alike: nothing that is made for one is taken for the other's."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.services import PostgreSQLServer

# 61 to 63 bytes, cut in the middle of a character by any of our suffixes.
HEADS = ("tenant_of_the_shop_in_the_old_town_of_", "ñandú_" * 5, "🦆" * 10)
MARKED = "CREATE TABLE marked (word text)"


@pytest.fixture(params=HEADS, ids=["ascii", "latin", "ducks"])
def shop(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, tmp_path: Path
) -> Iterator[tuple[Project, dict[str, str]]]:
    """A project of three databases, and the word that each holds by name."""
    mark = secrets.token_hex(3)
    head = mark + request.param
    with postgresql_project(tmp_path, postgresql_server) as project:
        names = [_filled(head, letter) for letter in "abc"]
        entries = {
            letter: {**project.database, "NAME": n} for letter, n in zip("abc", names, strict=True)
        }
        for name in names:
            postgresql_server.create_database(name, owner=project.database["USER"])
            _write(project, name, f"saved {name}")
        project.more_settings = f"DATABASES.update({entries!r})\n"
        project.write()
        try:
            yield project, {name: f"saved {name}" for name in names}
        finally:
            for (name,) in postgresql_server.execute("SELECT datname FROM pg_database"):
                if name.startswith(mark):
                    postgresql_server.drop_database(name)


def _filled(head: str, last: str) -> str:
    """Return a name of 63 bytes or just less that ends with `last`."""
    room = 62 - len(head.encode())
    return head + "é" * (room // 2) + last


def _write(project: Project, name: str, word: str) -> None:
    project.execute(f"DROP TABLE IF EXISTS marked; {MARKED}", name=name)
    rows = "abc".index(name[-1]) + 1
    project.execute(
        f"INSERT INTO marked SELECT '{word}' FROM generate_series(1, {rows})", name=name
    )


def _words(project: Project, names: dict[str, str]) -> dict[str, str]:
    return {name: project.execute("SELECT word FROM marked", name=name)[0][0] for name in names}


def _beside(project: Project, names: dict[str, str]) -> list[str]:
    assert project.server is not None
    mark = next(iter(names))[:6]
    found = project.server.execute("SELECT datname FROM pg_database")
    return sorted(name for (name,) in found if name.startswith(mark) and name not in names)


@pytest.mark.rare
def test_each_gets_its_own_back_and_what_it_replaced(
    shop: tuple[Project, dict[str, str]],
) -> None:
    project, saved = shop
    only = [f"--only=database:{letter}" for letter in "abc"]
    backup = project.backup(*only)
    changed = {name: f"changed {name}" for name in saved}
    for name, word in changed.items():
        _write(project, name, word)

    project.restore("--latest", *only)
    assert _words(project, saved) == saved
    before = _beside(project, saved)
    assert len(before) == 3
    assert sorted(_words(project, dict.fromkeys(before, "")).values()) == sorted(changed.values())

    project.manage("restore", "--undo", "--no-input")
    assert _words(project, saved) == changed

    assert len(put_aside := _beside(project, saved)) == 3

    report = project.manage("restore_drill", backup["id"], "--json", check=False)
    (step,) = [s for s in json.loads(report.stdout)["steps"] if s["name"] == "counts"]
    assert step["ok"]  # each holds the rows that the manifest says of it
    assert _words(project, saved) == changed
    assert _beside(project, saved) == put_aside


def test_files_with_the_longest_names_get_their_own_back(tmp_path: Path) -> None:
    with sqlite_project(tmp_path / "project") as project:
        names = {letter: str(tmp_path / ("ñ" * 120 + letter)) for letter in "ab"}
        entries = {
            letter: {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
            for letter, name in names.items()
        }
        project.more_settings = f"DATABASES.update({entries!r})\n"
        project.write()
        for name in names.values():
            project.execute(MARKED, name=name)
            project.execute(f"INSERT INTO marked VALUES ('saved {name[-1]}')", name=name)
        only = [f"--only=database:{letter}" for letter in names]
        project.backup(*only)
        for name in names.values():
            project.execute("UPDATE marked SET word = 'changed ' || word", name=name)

        project.restore("--latest", *only)
        assert _words_of_files(project, names) == ["saved a", "saved b"]
        project.manage("restore", "--undo", "--no-input")
        assert _words_of_files(project, names) == ["changed saved a", "changed saved b"]


def _words_of_files(project: Project, names: dict[str, str]) -> list[str]:
    return [project.execute("SELECT word FROM marked", name=n)[0][0] for n in names.values()]
