"""Each run ends with a check: what the pages show is never behind what was done."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.db import connection

from mipyme_backup import api
from mipyme_backup.destinations import LocalDestination
from mipyme_backup.destinations.listing import Layout, Listing
from mipyme_backup.errors import LockedError
from mipyme_backup.models import Look
from mipyme_backup.operations.project import Project
from mipyme_backup.parts import build_project

MADRID = ZoneInfo("Europe/Madrid")
MORNING = datetime(2026, 7, 15, 9, 7, tzinfo=MADRID)


def shown() -> dict[str, str]:
    """Return what the pages show: the findings of the kept look."""
    return {finding.id: finding.level for finding in api.last_look().findings}


class Elsewhere(LocalDestination):
    """A folder that counts as remote, and knows how often it was listed."""

    remote = True
    listed = 0

    def listing(self, layout: Layout) -> Listing:
        type(self).listed += 1
        return super().listing(layout)


@pytest.fixture
def offsite(backups: Path, settings: Any, workdir: Path) -> Path:
    folder = workdir / "elsewhere"
    given = settings.MIPYME_BACKUP
    remote = {"BACKEND": f"{__name__}.Elsewhere", "OPTIONS": {"location": folder}}
    settings.MIPYME_BACKUP = {
        **given,
        "DESTINATIONS": {**given["DESTINATIONS"], "offsite": remote},
    }
    return folder


def test_first_backup_of_a_project_is_seen(backups: Path) -> None:
    assert shown() == {"never_looked": "critical"}

    made = api.backup()

    assert shown() == {}
    assert api.last_look().facts["newest_good"]["id"] == made.manifest.id
    assert api.last_look().facts["destinations"]["local"]["backups"] == 1


def test_old_verdict_ends_with_a_fresh_backup(backups: Path) -> None:
    with time_machine.travel(MORNING):
        api.backup()
        api.status()
    with time_machine.travel(MORNING + timedelta(days=3)):
        before = shown()
        api.backup()
        after = shown()

    assert before["not_looked"] == "critical"
    assert after == {}


def test_failed_run_is_seen(backups: Path, settings: Any) -> None:
    api.backup()
    shutil.rmtree(settings.MEDIA_ROOT)
    Path(settings.MEDIA_ROOT).write_text("no folder")

    with pytest.raises(Exception, match="no folder"):
        api.backup()

    assert shown() == {"last_run_failed": "warning"}


def test_verification_restore_drill_and_prune_are_seen(backups: Path) -> None:
    made = api.backup()
    volume = min((backups / made.manifest.name).glob("database.*"))
    whole = volume.read_bytes()
    volume.write_bytes(whole[:-1] + b"!")
    api.verify()
    damaged = shown()
    volume.write_bytes(whole)
    api.verify()
    sound = shown()
    api.restore(latest=True, safety_backup=False)
    restored = api.last_look().facts["last_restore"]
    api.drill()

    assert damaged["newest_damaged"] == "critical"
    assert sound == {}
    assert restored["backup"] == made.manifest.name
    assert api.last_look().facts["last_drill"]["backup"] == made.manifest.name
    at = api.last_look().at
    api.prune()
    assert at is not None and (api.last_look().at or at) > at


def test_scheduled_runs_are_seen(backups: Path) -> None:
    with time_machine.travel(MORNING):
        assert [outcome.ending for outcome in api.run_due()] == ["done", "done"]

        assert shown() == {}


def test_what_did_nothing_ends_without_one(backups: Path) -> None:
    project: Project = build_project()
    with project.lock("prune"), pytest.raises(LockedError):
        api.backup()

    assert Look.objects.count() == 0


def test_another_machine_is_not_listed_again(offsite: Path) -> None:
    Elsewhere.listed = 0
    api.backup()
    by_the_run = Elsewhere.listed
    first = api.last_look().facts["destinations"]["offsite"]
    api.verify(destination="local")
    api.status()

    assert by_the_run == 1
    assert Elsewhere.listed == 2, "the status alone asks again"
    assert first["reachable"] and first["backups"] == 1
    assert first["newest_good"] is not None
    assert shown() == {}


def test_what_only_a_listing_shows_is_kept_of_the_last_look(offsite: Path) -> None:
    api.backup()
    damaged = api.backup(kind="pre_deploy").manifest.name
    (offsite / damaged / "manifest.json").write_bytes(b"{")
    api.status()

    api.backup()

    assert shown()["unreadable:offsite"] == "warning"


def test_destination_that_came_back_is_seen(offsite: Path) -> None:
    away = offsite.with_name("away")
    api.backup()
    offsite.rename(away)
    offsite.write_text("not a folder")
    api.status()
    before = shown()
    offsite.unlink()
    away.rename(offsite)

    api.backup()

    assert "destination_unreachable:offsite" in before or "destination_unwritable:offsite" in before
    assert shown() == {}


def test_catalog_that_is_away_makes_no_good_run_fail(backups: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE mipyme_backup_look RENAME TO away")
    try:
        assert api.backup().status == "complete"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO mipyme_backup_look")


def test_look_of_another_version_is_no_obstacle(offsite: Path) -> None:
    api.backup()
    kept = Look.objects.get()
    place = kept.document["facts"]["destinations"]["offsite"]
    for name in ("may_delete", "foreign", "highest_sequence", "need_key"):
        del place[name]
    place["unreadable"] = 7
    kept.save()
    before = api.last_look().at

    api.backup()

    after = api.last_look().at
    assert before is not None and after is not None and after > before
