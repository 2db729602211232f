"""A project without MEDIA_ROOT, as `django-admin startproject` makes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import REPOSITORY, Project, postgresql_project, sqlite_project
from tests.e2e.test_naive_times import ADMIN, FILL, PAGES, TASKS, URLS, users
from tests.services import PostgreSQLServer

pytestmark = pytest.mark.rare

NO_PLACE = "del MEDIA_ROOT\n"
FRESH = """

INSTALLED_APPS += ["mipyme_backup"]
ALLOWED_HOSTS = ["testserver"]
MIPYME_BACKUP = {
    "DESTINATIONS": {
        "local": {
            "BACKEND": "mipyme_backup.destinations.LocalDestination",
            "OPTIONS": {"location": BASE_DIR / "backups"},
        },
    },
    "ENCRYPTION": {
        "BACKEND": "mipyme_backup.encryption.GPG",
        "OPTIONS": {"passphrase_file": BASE_DIR / "passphrase"},
    },
    "ADMIN_RESTORE": True,
}
"""


def start_project(folder: Path) -> Project:
    """Make a project as Django's own tutorial does, with what our README adds."""
    root = folder / "site"
    root.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "config", str(root)], check=True
    )
    with (root / "config/settings.py").open("a") as settings:
        settings.write(FRESH)
    (root / "config/urls.py").write_text(URLS)
    manage = (root / "manage.py").read_text()
    ours = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    (root / "manage.py").write_text(ours + manage)
    (root / "passphrase").touch(mode=0o600)
    (root / "passphrase").write_text("a passphrase for a fresh project\n")
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(root / "db.sqlite3")}
    return Project(root=root, database=database)


@pytest.fixture(params=["fresh", "sqlite", "postgresql"])
def shop(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, workdir: Path
) -> Iterator[Project]:
    if request.param == "fresh":
        project = start_project(workdir)
        project.manage("migrate", "--verbosity=0")
        project.manage("shell", "-v0", "-c", FILL)
        yield project
        return
    with (
        sqlite_project(workdir)
        if request.param == "sqlite"
        else postgresql_project(workdir, postgresql_server)
    ) as project:
        project.more_settings = NO_PLACE + ADMIN
        project.write()
        (project.root / "config/urls.py").write_text(URLS)
        project.manage("migrate", "--verbosity=0")
        project.manage("shell", "-v0", "-c", FILL)
        yield project


def test_from_the_first_backup_to_the_undo(shop: Project) -> None:
    made, before = shop.backup(), users(shop)
    assert made["status"] == "complete"
    assert "media" not in made["sources"] and "MEDIA" not in str(made["warnings"])
    verified = shop.json("verify_backups", "--all", "--level", "content")
    assert [copy["problems"] for copy in verified] == [[]]
    assert shop.json("restore_drill")["passed"]

    planned = shop.json("restore", "--latest", "--plan")
    assert planned["left_out"] == [] and "edia" not in str(planned["plan"])
    shop.execute("DELETE FROM auth_user")
    restored = shop.restore("--latest")
    assert restored["status"] == "complete" and restored["left_out"] == []
    assert "media" not in restored["replaced"]
    assert users(shop) == before
    shop.restore("--undo")
    assert users(shop) == []
    shop.destroy()
    shop.create_database()
    shop.restore(made["id"])
    assert users(shop) == before

    shop.manage("schedule_backups", "run-due")
    status = shop.manage("backup_status", "--json", check=False)
    assert "edia" not in str(json.loads(status.stdout)["findings"])
    assert "no folder is set" in shop.manage("backup_status", "--recovery-sheet").stdout
    done = json.loads(shop.manage("shell", "-v0", "-c", TASKS).stdout)
    assert set(done.values()) == {"complete"}, done
    pages = json.loads(shop.manage("shell", "-v0", "-c", PAGES).stdout)
    assert {page: code for page, (code, _text) in pages.items() if code != 200} == {}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with sqlite_project(tmp_path_factory.mktemp("origin")) as project:
        project.manage("migrate", "--verbosity=0")
        project.media.mkdir()
        (project.media / "picture").write_text("from another host")
        project.backup()
        yield project


class TestBackupOfAHostWithMedia:
    @pytest.fixture
    def host(self, origin: Project, workdir: Path) -> Project:
        host = origin.bare_host(workdir)
        host.more_settings = NO_PLACE
        host.write()
        return host

    def test_is_refused_with_what_to_do(self, host: Project) -> None:
        for arguments in (["--plan"], ["--no-input"], ["--no-input", "--only", "media"]):
            refused = host.manage("restore", "--latest", "--json", *arguments, check=False)
            assert refused.returncode != 0
            error = json.loads(refused.stdout)["error"]
            assert "MEDIA_ROOT" in error["message"]
            assert "--only database" in error["hint"] and "--to-media" in error["hint"]
        assert not host.database_exists()

    def test_hint_leads_to_all_of_it(self, host: Project, workdir: Path) -> None:
        first = host.restore("--latest", "--only", "database")
        assert first["status"] == "complete" and first["left_out"] == ["media"]
        assert host.execute("SELECT count(*) FROM auth_user") == [(0,)]

        second = host.restore("--latest", "--only", "media", "--to-media", str(workdir / "new"))

        assert second["left_out"] == ["database:default"]
        assert (workdir / "new/picture").read_text() == "from another host"

    def test_media_alone_says_what_it_leaves_out(self, host: Project, workdir: Path) -> None:
        arguments = ["restore", "--latest", "--to-media", str(workdir / "new")]

        planned = host.json(*arguments, "--plan")
        shown = host.manage(*arguments, "--no-input").stdout

        assert planned["left_out"] == ["database:default"]
        assert any("database:default" in line and "not" in line for line in planned["plan"])
        assert "database:default" in shown
        assert not host.database_exists()


def test_backup_that_noted_no_files_is_restored_without_a_place(workdir: Path) -> None:
    """Earlier versions, and hosts with an empty folder, note media in which there is nothing."""
    with sqlite_project(workdir / "origin") as origin:
        origin.manage("migrate", "--verbosity=0")
        made = origin.backup()
        assert "media" in made["sources"]
        host = origin.bare_host(workdir / "host")
        host.more_settings = NO_PLACE
        host.write()

        restored = host.restore("--latest")

        assert restored["status"] == "complete" and restored["left_out"] == []
        assert host.database_exists()
        assert host.json("restore_drill")["passed"]


def test_place_that_went_away_after_a_restore(workdir: Path) -> None:
    """The folder that was replaced is not where the settings say: nothing is swapped."""
    with sqlite_project(workdir / "shop") as project:
        project.manage("migrate", "--verbosity=0")
        project.media.mkdir()
        (project.media / "picture").write_text("saved")
        project.backup()
        (project.media / "picture").write_text("changed")
        project.restore("--latest")
        project.more_settings = NO_PLACE
        project.write()

        refused = project.manage("restore", "--undo", "--no-input", "--json", check=False)

        assert refused.returncode != 0
        error = json.loads(refused.stdout)["error"]
        assert str(project.media) in error["message"] and "settings" in error["message"]
        assert (project.media / "picture").read_text() == "saved"
        project.more_settings = ""
        project.write()
        project.restore("--undo")
        assert (project.media / "picture").read_text() == "changed"
