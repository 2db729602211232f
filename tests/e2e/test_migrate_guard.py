"""``migrate`` with its guard: a backup before what may lose data, and nothing without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project, sqlite_project

MODELS = """\
from django.db import models

class Item(models.Model):
    name = models.CharField(max_length=20)
"""
FIRST = """\
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = []
    operations = [
        migrations.CreateModel("Item", [
            ("id", models.BigAutoField(primary_key=True)),
            ("name", models.CharField(max_length=20)),
            ("note", models.CharField(max_length=20, default="precious")),
        ]),
    ]
"""
ADDS = """\
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("shelf", "0001_initial")]
    operations = [migrations.AddField("Item", "more", models.IntegerField(default=1))]
"""
REMOVES = """\
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("shelf", "0002_adds")]
    operations = [migrations.RemoveField("Item", "note")]
"""


@pytest.fixture
def shelf(workdir: Path) -> Iterator[Project]:
    """A project whose app `shelf` has a first migration applied, and a row."""
    with sqlite_project(workdir / "site", MIGRATE_GUARD=True) as project:
        project.more_settings = 'INSTALLED_APPS += ["shelf"]\n'
        project.write()
        folder = project.root / "shelf" / "migrations"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / "__init__.py").touch()
        (folder.parent / "models.py").write_text(MODELS)
        (folder / "0001_initial.py").write_text(FIRST)
        project.manage("migrate")
        project.execute("INSERT INTO shelf_item (name, note) VALUES ('a', 'precious')")
        yield project


def write(project: Project, name: str, text: str) -> None:
    (project.root / "shelf" / "migrations" / f"{name}.py").write_text(text)


def kinds(project: Project) -> list[str]:
    return [row["kind"] for row in project.json("list_backups")] if project.backups.exists() else []


def test_first_migrate_and_what_only_adds_run_without(shelf: Project) -> None:
    assert kinds(shelf) == []
    write(shelf, "0002_adds", ADDS)

    shelf.manage("migrate")

    assert kinds(shelf) == []


def test_what_is_dropped_comes_back(shelf: Project) -> None:
    write(shelf, "0002_adds", ADDS)
    write(shelf, "0003_removes", REMOVES)

    said = shelf.manage("migrate").stderr
    (row,) = shelf.json("list_backups")
    again = shelf.manage("migrate")
    columns = [column[1] for column in shelf.execute("PRAGMA table_info(shelf_item)")]
    shelf.restore("--latest")
    notes = shelf.execute("SELECT note FROM shelf_item")

    assert row["kind"] == "pre_deploy" and row["label"] == "before migrate: shelf.0003_removes"
    assert row["name"] in said and again.returncode == 0
    assert "note" not in columns
    assert [tuple(note) for note in notes] == [("precious",)]


def test_migration_that_is_taken_back(shelf: Project) -> None:
    write(shelf, "0002_adds", ADDS)
    shelf.manage("migrate")

    shelf.manage("migrate", "shelf", "0001")

    assert kinds(shelf) == ["pre_deploy"]


def test_nothing_is_migrated_without_a_backup(shelf: Project) -> None:
    write(shelf, "0002_adds", ADDS)
    write(shelf, "0003_removes", REMOVES)
    shelf.passphrase_file.unlink()

    ended = shelf.manage("migrate", check=False)
    columns = [column[1] for column in shelf.execute("PRAGMA table_info(shelf_item)")]

    assert ended.returncode == 1
    assert "Nothing was migrated" in ended.stderr and "MIGRATE_GUARD" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "note" in columns and "more" not in columns
