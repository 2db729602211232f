"""Plain data is restored nowhere among the backups, into the state, or into what is public."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from mipyme_backup import api
from mipyme_backup.errors import RestoreError

Place = Callable[[Path], Path]

FORBIDDEN: dict[str, Place] = {
    "destination": lambda root: root / "backups" / "new",
    "destination itself": lambda root: root / "backups",
    "far below": lambda root: root / "backups" / "pool" / "a" / "b",
    "destination not made yet": lambda root: root / "Other" / "new",
    "by another case": lambda root: root / "oTHER" / "new",
    "around a destination": lambda root: root / "around",
    "state": lambda root: root / "state" / "new",
    "media": lambda root: root / "media" / "new",
    "static": lambda root: root / "static" / "new",
    "staticfiles": lambda root: root / "assets" / "new",
    "a storage": lambda root: root / "private" / "new",
    "through a link": lambda root: root / "link" / "new",
    "through dots": lambda root: root / "elsewhere" / ".." / "backups" / "new",
    "a link to nowhere": lambda root: root / "dangling",
}


@pytest.fixture
def root(backups: Path, settings: Any) -> Path:
    root = backups.parent
    local = "mipyme_backup.destinations.LocalDestination"
    settings.STATIC_ROOT = str(root / "static")
    settings.STATICFILES_DIRS = [("prefix", str(root / "assets"))]
    settings.STORAGES = {
        **settings.STORAGES,
        "private": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(root / "private")},
        },
    }
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "STATE_DIR": root / "state"}
    api.backup()
    places = {"other": root / "Other", "inner": root / "around" / "backups"}
    settings.MIPYME_BACKUP["DESTINATIONS"] |= {
        name: {"BACKEND": local, "OPTIONS": {"location": place}} for name, place in places.items()
    }
    (root / "link").symlink_to("backups")
    (root / "dangling").symlink_to("backups/not there")
    (root / "elsewhere").mkdir()
    return root


def listed(root: Path) -> list[str]:
    """Return all names but those that a listing itself may make or take away."""
    state = root / "state"
    return sorted(str(path) for path in root.rglob("*") if state not in path.parents)


@pytest.mark.parametrize("place", FORBIDDEN.values(), ids=FORBIDDEN)
@pytest.mark.parametrize("plan", [True, False], ids=["plan", "restore"])
def test_media_is_not_restored_there(root: Path, place: Place, plan: bool) -> None:
    before = listed(root)
    with pytest.raises(RestoreError, match="--to-media") as caught:
        api.restore(latest=True, to_media=place(root), only=["media"], plan=plan)
    assert str(caught.value.hint)
    assert listed(root) == before


@pytest.mark.parametrize(
    "place",
    [place for name, place in FORBIDDEN.items() if name != "around a destination"],
    ids=[name for name in FORBIDDEN if name != "around a destination"],
)
def test_a_database_file_is_not_restored_there(root: Path, place: Place) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only an SQLite database is a file")
    before = listed(root)
    with pytest.raises(RestoreError, match="--to-database"):
        api.restore(latest=True, to_database=str(place(root)))
    assert listed(root) == before


@pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
def test_a_file_that_sqlite_would_take_for_its_own_is_refused(root: Path, suffix: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only an SQLite database is a file")
    live = connection.settings_dict["NAME"]
    with pytest.raises(RestoreError, match="a part of the database default"):
        api.restore(latest=True, to_database=f"{live}{suffix}")
    assert not os.path.lexists(f"{live}{suffix}")


def test_a_destination_is_recognised_by_a_bind_mount(root: Path) -> None:
    alias = root / "alias"
    alias.mkdir()
    mounted = subprocess.run(["mount", "--bind", root / "backups", alias], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount")
    try:
        with pytest.raises(RestoreError, match="destination local"):
            api.restore(latest=True, to_media=alias / "new", only=["media"])
    finally:
        subprocess.run(["umount", alias], check=True)


@pytest.mark.parametrize("name", ["elsewhere", "new", "backups beside", "backups2/below"])
def test_another_folder_is_taken(root: Path, name: str) -> None:
    api.restore(latest=True, to_media=root / name, only=["media"])
    assert (root / name / "picture").read_text() == "before"
