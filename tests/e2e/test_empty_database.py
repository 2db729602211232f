"""A database that was lost, or was never filled: no backup of it may pass for the project's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.rare)])
def shop(request: pytest.FixtureRequest, workdir: Path) -> Iterator[Project]:
    """A project of which nothing was made yet, but its database where there is a server."""
    if request.param == "sqlite":
        with sqlite_project(workdir) as project:
            yield project
        return
    with services.postgresql() as server, postgresql_project(workdir, server) as project:
        yield project


def found(host: Project) -> dict[str, str]:
    document = host.manage("backup_status", "--json", check=False).stdout
    return {one["id"]: one["level"] for one in json.loads(document)["findings"]}


def deploy(host: Project, *args: str) -> subprocess.CompletedProcess[str]:
    return host.manage("backup", "--kind=pre_deploy", "--json", *args, check=False)


def test_deploy_on_a_new_server_beside_the_old_backups(shop: Project, workdir: Path) -> None:
    shop.populate()
    old = shop.backup()
    before = shop.fingerprint()
    host = shop.bare_host(workdir / "host")
    host.create_database()
    if host.server is None:
        Path(host.database["NAME"]).touch()  # as any command that connects leaves it

    refused = deploy(host)
    status = found(host)
    said = host.manage("backup_status", check=False)
    listed = [path.name for path in host.backups.glob("pre_deploy_*")]
    host.restore("--latest")

    error = json.loads(refused.stdout)["error"]
    assert (refused.returncode, error["code"]) == (1, "restore_first")
    assert old["name"] in error["message"] and "restore --latest" in error["hint"]
    assert status["database_lost:default"] == "critical" and "no_catalog" not in status
    assert said.returncode == 2
    assert (
        "manage.py restore --latest" in said.stdout
        and "manage.py migrate" not in said.stdout + said.stderr
    )
    assert listed == []
    assert host.fingerprint() == before
    assert "database_lost:default" not in found(host)


@pytest.mark.rare
def test_going_on_all_the_same_leaves_the_old_backup_the_latest(
    shop: Project, workdir: Path
) -> None:
    shop.populate()
    old = shop.backup()
    host = shop.bare_host(workdir / "host")
    host.create_database()
    if host.server is None:
        Path(host.database["NAME"]).touch()

    made = deploy(host, "--allow-empty")
    report = json.loads(made.stdout)
    plans = [
        host.json("restore", "--plan", "--no-input", *selector)["backup"]["id"]
        for selector in (
            ["--latest"],
            ["--latest", "--only=database"],
            ["--latest", "--only=fixtures"],
            ["--at", "2999-01-01"],
        )
    ]

    assert made.returncode == 0
    assert any("has no table of the project" in warning for warning in report["warnings"])
    assert plans == [old["id"]] * 4
    assert found(host)["database_lost:default"] == "critical"


@pytest.mark.rare
def test_pages_say_so_without_the_catalog(shop: Project) -> None:
    """The last look is gone with its database; this host remembers that it made backups."""
    shop.populate()
    shop.backup()
    shop.destroy()

    asked = "from mipyme_backup import api; print([f.id for f in api.last_look().findings])"
    printed = shop.manage("shell", "-c", asked).stdout

    assert "['database_lost:default', 'cannot_tell']" in printed


def test_first_deploy_of_a_new_project(shop: Project) -> None:
    """Nothing was lost: it goes on, and what it saved is no backup of the project."""
    if shop.server is None:
        Path(shop.database["NAME"]).touch()

    first = deploy(shop)
    report = json.loads(first.stdout)
    latest = shop.manage("restore", "--latest", "--plan", check=False)
    status = found(shop)
    shop.manage("migrate", "--verbosity=0")
    again = shop.backup("--kind=pre_deploy")

    assert first.returncode == 0
    about_tables = [text for text in report["warnings"] if " table" in text]
    assert len(about_tables) == 2, report["warnings"]
    assert not any("could not be read" in text for text in report["warnings"])
    assert latest.returncode == 4
    assert status["no_backup"] == "critical" and "database_lost:default" not in status
    assert not any(" table" in text for text in again["warnings"])
    assert shop.json("restore", "--latest", "--plan", "--no-input")["backup"]["id"] == again["id"]


@pytest.mark.rare
def test_database_that_does_not_exist(shop: Project, workdir: Path) -> None:
    shop.populate()
    shop.backup()
    host = shop.bare_host(workdir / "host")

    refused = deploy(host)
    status = found(host)

    error = json.loads(refused.stdout)["error"]
    assert refused.returncode == 1
    assert "does not exist" in error["message"] and "restore --latest" in error["hint"]
    assert status["database_lost:default"] == "critical" and "no_catalog" not in status


@pytest.mark.rare
def test_every_row_is_gone(shop: Project, workdir: Path) -> None:
    """The tables are there: somebody ran migrate on the new server, or flushed the live one."""
    shop.populate()
    old = shop.backup()
    host = shop.bare_host(workdir / "host")
    host.create_database()
    host.manage("migrate", "--verbosity=0")

    before = found(host)
    made = host.backup()
    after = found(host)
    host.manage("list_backups", "--sync")
    refused = host.manage("prune_backups", "--dry-run", "--json", check=False)
    pruned = json.loads(refused.stdout)

    assert before["rows_gone"] == "critical"
    assert made["status"] == "complete"
    assert after["rows_gone"] == "critical"
    assert old["name"] in host.manage("backup_status", check=False).stdout
    assert refused.returncode == 3
    assert "Nothing is pruned" in pruned["destinations"][0]["error"]
