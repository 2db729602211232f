"""What was saved comes back, whole, on every engine, by the commands that an operator types."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.fingerprint import MediaEntry, difference
from tests.services import PostgreSQLServer

Content = tuple[dict[str, str], dict[bytes, MediaEntry]]

NO_FILES = (b"pipe",)
TOLD = (b"outward link", *NO_FILES)

FRESH_KEYS = """
from tests.zoo.models import *
print([model.objects.create(**values).pk for model, values in (
    (Empty, {"value": "x"}), (Emptied, {"value": "x"}),
    (Message, {"text": "x"}), (Everything, {"text": "x"}), (Restaurant, {"name": "x"}),
)])
"""
NEXT_KEYS = """
from django.db.models import Max
from tests.zoo.models import *
print([1, 301] + [(m._base_manager.aggregate(n=Max("pk"))["n"]) + 1 for m in
    (Message, Everything, Place)])
"""


# What generic foreign keys point at, whatever numbers the content types have.
NOTES = """
from tests.zoo.models import Note
print(list(Note.objects.order_by("pk").values_list(
    "pk", "content_type__app_label", "content_type__model", "object_id", "text")))
"""

Saved = tuple[Project, Content]


@pytest.fixture(scope="module")
def saved_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    with sqlite_project(tmp_path_factory.mktemp("sqlite")) as project:
        yield _saved(project)


@pytest.fixture(scope="module")
def saved_postgresql(
    postgresql_server: PostgreSQLServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Saved]:
    with postgresql_project(tmp_path_factory.mktemp("postgresql"), postgresql_server) as project:
        yield _saved(project)


class RoundTrips:
    """The promises; each engine's class below says where the projects live.

    `original` was filled and backed up, and held `content`; `project` is a copy of it for one
    test to break.
    """

    @pytest.fixture
    def original(self, saved: Saved) -> Project:
        return saved[0]

    @pytest.fixture
    def content(self, saved: Saved) -> Content:
        return saved[1]

    @pytest.fixture
    def project(self, original: Project, workdir: Path) -> Project:
        return original.clone(workdir)

    def test_what_was_lost_comes_back_in_its_place(self, empty: Project) -> None:
        empty.populate()
        _add_what_is_no_file(empty.media)
        before = _content(empty)
        report = empty.backup()

        empty.destroy()
        restored = empty.restore("--latest")

        assert report["status"] == "complete"
        assert {copy["status"] for copy in report["copies"]} == {"complete"}
        assert restored["safety_backup"] is None
        files = {name: entry for name, entry in before[1].items() if name not in NO_FILES}
        files[b"link"] = files[b"plain.txt"]
        assert _differences((before[0], files), _content(empty)) == []
        for name in TOLD:
            assert any(name.decode() in warning for warning in report["warnings"]), name

    def test_next_rows_get_the_next_keys(self, project: Project) -> None:
        project.destroy()
        project.restore("--latest")

        expected = project.manage("shell", "-c", NEXT_KEYS).stdout.splitlines()[-1]
        assert project.manage("shell", "-c", FRESH_KEYS).stdout.splitlines()[-1] == expected

    @pytest.mark.parametrize("database_is_there", [False, True], ids=["no database", "empty one"])
    def test_bare_host_needs_the_destination_and_the_passphrase_only(
        self, original: Project, content: Content, workdir: Path, database_is_there: bool
    ) -> None:
        host = original.bare_host(workdir / "host")
        if database_is_there:
            host.create_database()

        host.restore("--latest")

        assert _differences(content, _content(host)) == []
        listed = {row["kind"]: row["status"] for row in host.json("list_backups")}
        assert listed["manual"] == "complete"

    def test_live_data_is_replaced_and_undo_brings_it_back(
        self, project: Project, content: Content
    ) -> None:
        _change(project)
        changed = _content(project)

        restored = project.restore("--latest")
        after_restore = _content(project)
        project.json("restore", "--undo", "--no-input")

        assert restored["safety_backup"]
        assert set(restored["replaced"]) == {"database:default", "media"}
        assert _differences(content, after_restore) == []
        assert _differences(changed, _content(project)) == []

    def test_safety_backup_brings_back_what_was_replaced(self, project: Project) -> None:
        _change(project)
        changed = _content(project)

        restored = project.restore("--latest")
        project.restore(restored["safety_backup"])

        assert _differences(changed, _content(project)) == []

    def test_latest_is_never_the_safety_backup(self, project: Project, content: Content) -> None:
        _change(project)

        project.restore("--latest")
        project.restore("--latest")

        assert _differences(content, _content(project)) == []

    def test_only_the_database_is_restored(self, project: Project, content: Content) -> None:
        _change(project)
        changed = _content(project)

        project.restore("--latest", "--only", "database:default")

        assert _differences((content[0], changed[1]), _content(project)) == []

    def test_only_the_media_is_restored(self, project: Project, content: Content) -> None:
        _change(project)
        changed = _content(project)

        project.restore("--latest", "--only", "media")

        assert _differences((changed[0], content[1]), _content(project)) == []

    def test_only_the_fixtures_fill_a_new_database(
        self, original: Project, project: Project, content: Content
    ) -> None:
        project.destroy()
        project.create_database()
        project.manage("migrate", "--verbosity=0")
        # Content types and permissions under other keys than those that the rows refer to.
        project.execute("DELETE FROM auth_permission")
        project.execute("DELETE FROM django_content_type")
        project.manage("migrate", "--verbosity=0")

        project.restore("--latest", "--only", "fixtures", "--no-safety-backup")

        expected, actual = _model_rows(content[0]), _model_rows(project.fingerprint())
        assert len(expected) > 25
        assert difference(expected, actual) == []
        notes = original.manage("shell", "-c", NOTES).stdout.splitlines()[-1]
        assert project.manage("shell", "-c", NOTES).stdout.splitlines()[-1] == notes

    def test_another_database_is_loaded_and_live_data_stays(
        self, project: Project, content: Content, workdir: Path
    ) -> None:
        _change(project)
        changed = _content(project)
        name = f"{project.database['NAME']}_other"

        project.restore("--latest", "--to-database", name)

        assert difference(content[0], project.fingerprint(name)) == []
        assert _differences(changed, _content(project)) == []

    def test_another_folder_is_loaded_and_live_data_stays(
        self, project: Project, content: Content, workdir: Path
    ) -> None:
        _change(project)
        changed = _content(project)
        folder = workdir / "other media"

        project.restore("--latest", "--to-media", str(folder))

        assert difference(content[1], project.media_fingerprint(folder)) == []
        assert _differences(changed, _content(project)) == []

    def test_plan_changes_nothing(self, project: Project) -> None:
        _change(project)
        changed = _content(project)
        stored = sorted(project.backups.rglob("*.gpg*"))

        planned = project.json("restore", "--latest", "--plan")

        assert planned["plan"]
        assert _differences(changed, _content(project)) == []
        assert sorted(project.backups.rglob("*.gpg*")) == stored

    def test_nothing_readable_is_stored(self, original: Project) -> None:
        stored = [path for path in original.backups.rglob("*") if path.is_file()]
        passphrase = original.passphrase_file.read_bytes().strip()

        volumes = [path for path in stored if ".gpg." in path.name]
        assert len(volumes) >= 4
        for path in stored:
            content = path.read_bytes()
            assert b"employee 17" not in content and passphrase not in content, path


class TestSQLite(RoundTrips):
    @pytest.fixture
    def saved(self, saved_sqlite: Saved) -> Saved:
        return saved_sqlite

    @pytest.fixture
    def empty(self, workdir: Path) -> Iterator[Project]:
        with sqlite_project(workdir) as project:
            yield project


class TestPostgreSQL(RoundTrips):
    """As a plain role that owns its database and may create others."""

    @pytest.fixture
    def saved(self, saved_postgresql: Saved) -> Saved:
        return saved_postgresql

    @pytest.fixture
    def empty(self, postgresql_server: PostgreSQLServer, workdir: Path) -> Iterator[Project]:
        with postgresql_project(workdir, postgresql_server) as project:
            yield project

    @pytest.mark.parametrize("lost", [True, False], ids=["lost", "live"])
    def test_settings_of_the_database_are_kept(self, empty: Project, lost: bool) -> None:
        name = empty.database["NAME"]
        empty.manage("migrate", "--verbosity=0")
        empty.execute(f"ALTER DATABASE {name} SET work_mem = '5MB'")
        empty.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 40")
        empty.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
        before = empty.fingerprint()
        empty.backup("--only", "database")

        if lost:
            empty.destroy()
        empty.restore("--latest", "--only", "database")

        assert difference(before, empty.fingerprint()) == []

    def test_superuser_restores_what_only_a_superuser_may_create(
        self, postgresql_server: PostgreSQLServer, workdir: Path
    ) -> None:
        with postgresql_project(workdir, postgresql_server, superuser=True) as project:
            project.populate()
            before = project.fingerprint()
            project.backup("--only", "database")

            project.destroy()
            project.restore("--latest", "--only", "database")

            assert difference(before, project.fingerprint()) == []


def _saved(project: Project) -> Saved:
    project.populate()
    project.backup()
    return project, _content(project)


def _content(project: Project) -> Content:
    return project.fingerprint(), project.media_fingerprint()


def _differences(expected: Content, actual: Content) -> list[str]:
    return difference(expected[0], actual[0]) + difference(expected[1], actual[1])


def _change(project: Project) -> None:
    """Change what is live in every way: rows, tables, files."""
    project.execute("UPDATE zoo_account SET balance = balance + 1")
    project.execute("DELETE FROM zoo_transfer")
    project.execute("CREATE TABLE newer (id integer PRIMARY KEY, tag integer REFERENCES zoo_tag)")
    project.execute("INSERT INTO newer SELECT id, id FROM zoo_tag")
    project.execute("ALTER TABLE zoo_employee RENAME TO renamed")
    media = project.media
    (media / "plain.txt").write_text("changed")
    (media / "empty").unlink()
    (media / "newer").mkdir()
    (media / "newer" / "file").write_text("newer")
    (media / "same content 1").unlink()
    (media / "same content 1").mkdir()
    shutil.rmtree(media / ".hidden")
    (media / ".hidden").write_text("a file now")


def _model_rows(content: dict[str, str]) -> dict[str, str]:
    """Return the rows of managed models that hold no number of a content type."""
    names = ("zoo", "auth_group", "auth_user")
    rows: dict[str, str] = {}
    for key, value in content.items():
        kind, _space, name = key.partition(" ")
        table = name.removeprefix("public.").strip('"')
        if kind == "rows" and table.startswith(names) and table != "zoo_note":
            rows[table] = value
    return rows


def _add_what_is_no_file(media: Path) -> None:
    """Add a link to a file of the folder, which is saved as that file, and what is left out."""
    (media / "link").symlink_to("plain.txt")
    (media / "outward link").symlink_to("/etc")
    os.mkfifo(media / "pipe")
