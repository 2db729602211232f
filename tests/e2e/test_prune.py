"""Prune and pins through ``manage.py``, with the catalog on PostgreSQL."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests import services
from tests.e2e.project import postgresql_project


def test_prune_goes_by_the_catalog_on_postgresql(tmp_path: Path) -> None:
    with (
        services.postgresql() as server,
        postgresql_project(tmp_path / "project", server) as project,
    ):
        project.manage("migrate", "--verbosity=0")
        project.media.mkdir()
        names = [project.backup("--kind=daily")["name"] for _turn in range(3)]

        pinned = project.json("pin_backup", names[0])
        planned = project.json("prune_backups", "--dry-run")
        done = project.json("prune_backups")
        shutil.rmtree(project.backups / names[1])
        lacking = project.manage("prune_backups", "--json", check=False)
        project.manage("list_backups", "--sync")
        synced = project.json("prune_backups")
        project.execute(f"UPDATE mipyme_backup_backup SET status='failed' WHERE name='{names[2]}'")
        failed = project.manage("prune_backups", check=False)

    assert pinned["pinned"] is True
    assert {**planned, "dry_run": False} == {
        **done,
        "destinations": planned["destinations"],
    }
    reasons = {row["name"]: row["reason"] for row in done["destinations"][0]["backups"]}
    assert reasons == {
        names[0]: "It is pinned.",
        names[1]: "Not older than 30 days.",
        names[2]: "Not older than 30 days.",
    }
    assert lacking.returncode == 3
    assert names[1] in json.loads(lacking.stdout)["destinations"][0]["error"]
    assert [row["name"] for row in synced["destinations"][0]["backups"]] == [names[0], names[2]]
    assert failed.returncode == 3
    assert "failed" in failed.stdout and "Take a backup" in failed.stdout
