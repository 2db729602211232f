"""The local copy is whole before a far destination has said a word, whatever went before."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup import api
from mipyme_backup.catalog import Catalog
from mipyme_backup.models import Backup, Copy
from mipyme_backup.operations import looking
from tests.faulty import Unanswering
from tests.integration.conftest import LOCAL

SECONDS = 15
"""Less than the patience of a run here, so who waits is found out."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "PATIENCE_SECONDS", 4 * SECONDS)
    Unanswering.in_the_way.clear()


def place(settings: Any, backups: Path, **options: Any) -> None:
    """Have a far destination, named before the local one, with these options of `Unanswering`.

    Without any it answers at once.
    """
    far = {"location": backups.with_name("far"), "watched": backups, "manifests": 0, "seconds": 0}
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "STATE_DIR": backups.with_name("state"),
        "DESTINATIONS": {
            "far": {
                "BACKEND": "tests.faulty.Unanswering",
                "OPTIONS": {**far, **options},
                "RETRY_FOR": 0,
            },
            "local": {"BACKEND": LOCAL, "OPTIONS": {"location": backups}},
        },
    }


def until(backups: int, **more: Any) -> dict[str, Any]:
    """Return the options of one that waits until there are so many local backups."""
    return {"manifests": backups, "seconds": SECONDS, **more}


def test_in_every_run_of_a_series_that_owes_it_ever_more(settings: Any, backups: Path) -> None:
    place(settings, backups)
    api.backup()

    for number in (2, 3, 4):
        place(settings, backups, **until(number))
        assert api.backup().copies["local"] is None

    assert Unanswering.in_the_way == []


def test_after_a_run_that_was_killed(settings: Any, backups: Path) -> None:
    place(settings, backups)
    before = api.backup()
    Backup.objects.update(status="running")  # as if killed just before the catalog was told
    Copy.objects.all().delete()
    Catalog().start("tests", "d" * 16, "killed", "manual", "", None, datetime.now(UTC))

    place(settings, backups, **until(2))
    made = api.backup()

    assert Unanswering.in_the_way == []
    assert made.status == "complete"
    assert Backup.objects.get(backup_id="d" * 16).status == "abandoned"
    assert Backup.objects.get(backup_id=before.manifest.id).status == "complete"
    copies = Copy.objects.filter(backup__backup_id=before.manifest.id)
    assert {copy.destination for copy in copies} == {"far", "local"}


def test_index_of_the_media_before_is_read_here(settings: Any, backups: Path) -> None:
    place(settings, backups)
    api.backup()

    place(settings, backups, **until(2, names="*/media.index*"))
    made = api.backup()

    assert Unanswering.in_the_way == []
    assert made.status == "complete"
