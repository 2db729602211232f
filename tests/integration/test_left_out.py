"""What could not be read of a source: the backup is partial, and everybody who asks is told."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.contrib.auth.models import Group
from django.core import mail
from django.core.management import CommandError, call_command

from mipyme_backup import api
from mipyme_backup.messages import Message
from mipyme_backup.models import Backup
from mipyme_backup.sources.base import Artifact, Source, View
from mipyme_backup.sources.content import check_lines

MADRID = ZoneInfo("Europe/Madrid")
MORNING = datetime(2026, 7, 15, 9, 7, tzinfo=MADRID)


class Letters(Source):
    """A source of a project's own, three letters of which nobody may read."""

    name = "letters"

    def artifacts(self, view: View) -> Iterator[Artifact]:
        yield Artifact(
            name="letters.jsonl",
            open=lambda: io.BytesIO(b'"dear"\n'),
            check=check_lines,
            facts=lambda: {"letters": 1, "unreadable": 3},
            warnings=lambda: [Message("3 letters could not be read.")],
        )


@pytest.fixture
def letters(backups: Path, settings: Any) -> Path:
    database = "mipyme_backup.sources.DatabaseSource"
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "SOURCES": {
            "database": {"BACKEND": database},
            "letters": {"BACKEND": f"{__name__}.Letters"},
        },
        "ALERTS": {"recipients": ["owner@example.com"]},
    }
    return backups


def test_backup_is_partial_and_ends_with_3(letters: Path) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("backup", "--json", stdout=out, stderr=io.StringIO())

    report = json.loads(out.getvalue())
    assert caught.value.returncode == 3
    assert report["status"] == "partial"
    assert [copy["status"] for copy in report["copies"]] == ["complete"]
    assert Backup.objects.get().status == "partial"
    assert [row.to_dict()["status"] for row in api.backups()] == ["partial"]
    assert [row.to_dict()["status"] for row in api.backups(destination="local")] == ["partial"]
    api.backups(sync=True)
    assert Backup.objects.get().status == "partial"


def test_status_finds_it_and_an_alert_tells_it(letters: Path) -> None:
    api.backup()

    api.watch()

    found = {one.id: one for one in api.status().findings}
    assert found["left_out:letters"].level == "warning"
    assert "could not be read (3)" in str(found["left_out:letters"].message)
    assert any("could not be read (3)" in str(message.body) for message in mail.outbox)


def test_plan_of_a_restore_says_what_its_backup_lacks(backups: Path, workdir: Path) -> None:
    Group.objects.create(name="with a link")
    (workdir / "media" / "outside").symlink_to(workdir / "passphrase")
    made = api.backup()

    planned = [str(line) for line in api.restore(latest=True, plan=True).plan]

    assert made.status == "complete"
    assert [line for line in planned if "missing parts of media" in line and "(1)" in line]
    assert not [line for line in planned if "missing parts of database" in line]


def test_run_due_prints_a_line_for_each_job_with_its_warnings(letters: Path) -> None:
    out = io.StringIO()
    with time_machine.travel(MORNING):
        call_command("schedule_backups", "run-due", stdout=out, stderr=io.StringIO())

    printed = " ".join(out.getvalue().split())
    assert printed.count("done in part ! 3 letters could not be read.") == 2


def test_run_due_tells_the_warnings_as_json(letters: Path) -> None:
    out = io.StringIO()
    with time_machine.travel(MORNING):
        call_command("schedule_backups", "run-due", "--json", stdout=out, stderr=io.StringIO())

    daily = next(one for one in json.loads(out.getvalue()) if one["job"] == "daily")
    assert (daily["outcome"], daily["partial"]) == ("done", True)
    assert daily["warnings"] == ["3 letters could not be read."]


def test_what_is_left_out_is_known_from_the_catalog_too(backups: Path, workdir: Path) -> None:
    """While its destination is away, or is not asked at the end of a run."""
    (workdir / "media" / "outside").symlink_to(workdir / "passphrase")
    api.backup()
    backups.rename(backups.with_name("away"))
    backups.write_text("not a folder")

    found = {one.id for one in api.status().findings}

    assert {"left_out:media", "destination_unreachable:local"} <= found
