"""Wagtail's and Oscar's own models: saved, lost, brought back, rehearsed, and seen in the admin."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.field.project import Content, FieldProject, Rows
from tests.fingerprint import difference

pytestmark = pytest.mark.rare

# Of a project of one host whose schedule was not set up yet: the rest would be a false alarm.
TO_BE_DONE = ["copies_here", "schedule_silent"]
OF_THE_MACHINE = "lacks fixes"  # the server at hand and its tools may be of an old minor version


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A project of this package, and what is known of it once it is filled."""

    name: str
    package: str
    files: int
    rows: dict[str, int]
    change: str
    index: str
    """What it derives from the rest, another way on each engine."""


KINDS = (
    Kind(
        name="wagtail_site",
        package="wagtail",
        files=20,
        rows={"wagtailcore_revision": 10, "wagtailimages_rendition": 12, "taggit_tag": 11},
        change="DELETE FROM wagtail_site_galleryimage",
        index="wagtailsearch",
    ),
    Kind(
        name="oscar_shop",
        package="oscar",
        files=16,
        rows={"catalogue_productimage": 8, "order_order": 3, "basket_line": 17},
        change="DELETE FROM order_ordernote",
        index="catalogue.ProductCategoryHierarchy",
    ),
)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.package)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    if importlib.util.find_spec(kind.package) is None:
        pytest.skip(f"{kind.package} is not installed: pip install --group field")
    return kind


def test_sqlite(kind: Kind, tmp_path: Path) -> None:
    with sqlite_project(tmp_path / "a", PROJECT=kind.name) as project:
        rows = _tell(kind, project)
        with services.postgresql() as server:
            with postgresql_project(tmp_path / "b", server, PROJECT=kind.name) as other:
                _carry(kind, rows, project, other)


def test_postgresql(kind: Kind, tmp_path: Path) -> None:
    """On the newest server at hand: what they ask of it, each version gives."""
    with services.postgresql() as server:
        with postgresql_project(tmp_path / "a", server, PROJECT=kind.name) as project:
            rows = _tell(kind, project)
            with sqlite_project(tmp_path / "b", PROJECT=kind.name) as other:
                _carry(kind, rows, project, other)


def _tell(kind: Kind, project: Project) -> Rows:
    """One story: each step stands on the one before, and a project is costly to fill."""
    field = FieldProject(name=kind.name, project=project)
    project.manage("check", "--fail-level=WARNING")
    project.manage("makemigrations", "--check", "--dry-run", "mipyme_backup")
    field.fill()
    for table, count in kind.rows.items():
        assert project.execute(f"SELECT count(*) FROM {table}") == [(count,)]
    before, rows = field.content(), field.rows(kind.index)
    assert sum(entry[0] == "file" for entry in before[1].values()) == kind.files
    _backup(project)
    _lose_and_restore(field, before)
    drill = project.json("restore_drill")
    assert [step for step in drill["steps"] if not step["ok"]] == []
    assert drill["passed"]
    pages = field.call("statuses", "tests.field.pages")
    assert len(pages) > 10
    assert set(pages.values()) == {200}
    _undo(kind, field, before)
    return rows


def _carry(kind: Kind, rows: Rows, project: Project, other: Project) -> None:
    """Bring the rows into a new database of another engine, as docs/howto/restore.md says."""
    field = FieldProject(name=kind.name, project=other)
    other.manage("migrate", "--verbosity=0")
    other.manage("flush", "--no-input")
    shutil.copytree(project.backups, other.backups)
    shutil.copyfile(project.passphrase_file, other.passphrase_file)
    carried = other.restore("--latest", "--only", "fixtures")
    assert carried["status"] == "complete"
    assert difference(rows, field.rows(kind.index)) == []


def _backup(project: Project) -> None:
    made = project.backup()
    assert made["status"] == "complete"
    assert [warning for warning in made["warnings"] if OF_THE_MACHINE not in warning] == []
    (verified,) = project.json("verify_backups", "--level", "content")
    assert (verified["ok"], verified["problems"]) == (True, [])
    told = json.loads(project.manage("backup_status", "--json", check=False).stdout)
    findings = told["findings"]
    assert [
        finding["id"] for finding in findings if OF_THE_MACHINE not in finding["message"]
    ] == TO_BE_DONE, findings


def _lose_and_restore(field: FieldProject, before: Content) -> None:
    field.project.destroy()
    restored = field.project.restore("--latest")
    assert restored["status"] == "complete"
    assert _differences(field, before) == []


def _undo(kind: Kind, field: FieldProject, before: Content) -> None:
    field.project.execute(kind.change)
    next(path for path in field.project.media.rglob("*") if path.is_file()).unlink()
    changed = field.content()
    assert _differences(field, before)
    field.project.restore("--latest")
    assert _differences(field, before) == []
    field.project.restore("--undo")
    assert _differences(field, changed) == []


def _differences(field: FieldProject, expected: Content) -> list[str]:
    rows, files = field.content()
    return difference(expected[0], rows) + difference(expected[1], files)
