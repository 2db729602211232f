"""A project that keeps files in many places: all are saved, and come back to their own place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project, sqlite_project

SETTINGS = """
INSTALLED_APPS += ["tests.vault"]
FILES = "django.core.files.storage.FileSystemStorage"
STORAGES = {
    "default": {"BACKEND": FILES},
    "private": {"BACKEND": FILES, "OPTIONS": {"location": BASE_DIR / "private"}},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
SCANS = BASE_DIR / "scans"
TENANTS = BASE_DIR / "tenants"
MIPYME_BACKUP["SOURCES"] = {
    "database": {"BACKEND": "mipyme_backup.sources.DatabaseSource"},
    "fixtures": {"BACKEND": "mipyme_backup.sources.FixturesSource"},
    "media": {"BACKEND": "mipyme_backup.sources.MediaSource"},
    "certificates": {
        "BACKEND": "mipyme_backup.sources.FolderSource",
        "OPTIONS": {"folder": BASE_DIR / "certificates"},
    },
}
"""
NAMES = {
    "media": "media",
    "media:private": "private",
    "media:vault.Paper.scan": "scans",
    "media:vault.Paper.contract": "tenants",
}
FILES = {
    "media/plain.txt": b"plain",
    "private/hidden.txt": b"hidden",
    "scans/2024/scan.txt": b"plain",  # the content of another storage's file
    "tenants/north/contract.txt": b"of the north",
    "tenants/south/contract.txt": b"of the south",
    "certificates/site.key": b"key",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with sqlite_project(tmp_path_factory.mktemp("storages")) as project:
        project.more_settings = SETTINGS
        project.write()
        project.populate()
        for name, content in FILES.items():
            write(project, name, content)
        project.execute(
            "INSERT INTO vault_paper (plain, hidden, scan, contract) VALUES"
            " ('plain.txt', 'hidden.txt', '2024/scan.txt', 'contract.txt')"
        )
        project.backup()
        yield project


@pytest.fixture
def project(saved: Project, tmp_path: Path) -> Project:
    """A clone, with all files."""
    clone = saved.clone(tmp_path / "clone")
    for folder in {name.partition("/")[0] for name in FILES} - {"media"}:
        shutil.copytree(saved.root / folder, clone.root / folder)
    return clone


def write(project: Project, name: str, content: bytes) -> None:
    path = project.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def files(project: Project) -> dict[str, bytes]:
    return {name: path.read_bytes() for name in FILES if (path := project.root / name).is_file()}


def test_every_storage_comes_back(project: Project) -> None:
    (row,) = project.json("list_backups")
    assert {name for name in row["sources"] if name.startswith("media")} == {*NAMES}
    assert row["warnings"] == []
    project.destroy()
    for folder in ("private", "scans", "tenants", "certificates"):
        shutil.rmtree(project.root / folder)

    project.restore("--latest")

    assert files(project) == {k: v for k, v in FILES.items() if k != "certificates/site.key"}
    project.restore("--latest", "--only", "certificates")
    assert files(project) == FILES


@pytest.mark.rare
def test_one_storage_is_restored_and_undone(project: Project) -> None:
    write(project, "private/hidden.txt", b"changed")
    write(project, "scans/2024/scan.txt", b"changed")

    project.restore("--latest", "--only", "media:private")
    assert (project.root / "private/hidden.txt").read_bytes() == b"hidden"
    assert (project.root / "scans/2024/scan.txt").read_bytes() == b"changed"
    project.manage("restore", "--undo", "--no-input")

    assert (project.root / "private/hidden.txt").read_bytes() == b"changed"


@pytest.mark.rare
def test_name_before_the_colon_means_all(project: Project) -> None:
    for name in FILES:
        write(project, name, b"changed")

    project.restore("--latest", "--only", "media")

    changed = {name for name, content in files(project).items() if content == b"changed"}
    assert changed == {"certificates/site.key"}


def test_drill_finds_each_file(project: Project) -> None:
    drill = project.json("restore_drill")

    assert drill["passed"], drill
    assert "files" in {step["name"] for step in drill["steps"]}
    assert files(project) == FILES


@pytest.mark.rare
def test_next_backup_stores_nothing_again(project: Project) -> None:
    write(project, "scans/new.txt", b"new")

    printed = project.manage("backup").stdout

    assert project.manage("verify_backups", "--all", "--level", "content").returncode == 0
    assert sum(" 0 new" in line for line in printed.splitlines()) == 4, printed
    assert sum(" 1 new" in line for line in printed.splitlines()) == 1, printed


def test_file_that_is_gone_is_missed_in_its_own_storage(project: Project) -> None:
    (project.root / "private/hidden.txt").unlink()
    (project.root / "tenants/north/contract.txt").unlink()
    (project.root / "tenants/south/contract.txt").unlink()

    warnings = "\n".join(project.backup()["warnings"])

    assert "hidden.txt" in warnings
    assert "contract.txt" in warnings


@pytest.mark.rare
def test_elsewhere_each_gets_a_folder(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"

    project.restore("--latest", "--only", "media", "--to-media", str(out))

    assert (out / "media" / "plain.txt").read_bytes() == b"plain"
    assert (out / "media:private" / "hidden.txt").read_bytes() == b"hidden"
    assert files(project) == FILES


def test_storage_that_is_left_out_is_told_by_field(project: Project) -> None:
    media = {"BACKEND": "mipyme_backup.sources.MediaSource", "OPTIONS": {"exclude": ["private"]}}
    project.more_settings += f"MIPYME_BACKUP['SOURCES']['media'] = {media}\n"
    project.write()
    assert not any("vault.Paper.hidden" in text for text in project.backup()["warnings"])

    media["OPTIONS"] = {"storages": ["default"]}
    project.more_settings += f"MIPYME_BACKUP['SOURCES']['media'] = {media}\n"
    project.write()
    warnings = project.backup()["warnings"]

    for name in ("hidden", "scan", "contract"):
        assert any(
            text.startswith(f"1 files named by vault.Paper.{name} are not") for text in warnings
        )
    status = project.manage("backup_status", check=False)
    assert "vault.Paper.hidden" in status.stdout

    project.more_settings += "del MIPYME_BACKUP['SOURCES']['media']['OPTIONS']\n"
    project.write()
    plan = " ".join(project.json("restore", "--latest", "--plan")["plan"])
    assert "Not in this backup, so not changed: media:private" in plan


@pytest.mark.parametrize(
    ("folder", "source"),
    [("scans", "media:vault.Paper.scan"), ("certificates", "certificates")],
)
def test_place_that_cannot_be_read_keeps_nothing_from_being_saved(
    project: Project, folder: str, source: str
) -> None:
    """What the last backup has of it is kept, and the run is not whole."""
    (project.root / folder).rename(project.root / "away")
    (project.root / folder).write_bytes(b"no folder")

    run = project.manage("backup", "--json", check=False)

    assert run.returncode == 3, run.stdout
    saved = json.loads(run.stdout)
    assert any(f"{source} are not saved" in text for text in saved["warnings"])
    (project.root / folder).unlink()
    project.restore(saved["id"], "--only", source)
    assert files(project) == FILES


def test_folder_that_the_settings_name_and_that_is_not_there(project: Project) -> None:
    shutil.rmtree(project.root / "certificates")

    run = project.manage("backup", "--json", check=False)

    assert run.returncode == 3, run.stdout
    assert any("certificates does not exist" in text for text in json.loads(run.stdout)["warnings"])
    assert "certificates" in project.manage("backup_status", check=False).stdout
