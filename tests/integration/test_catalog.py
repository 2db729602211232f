"""The catalog: a history that nothing depends on, and that the destinations can rebuild."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection

from mipyme_backup.catalog import Catalog
from mipyme_backup.errors import DestinationError, KeyMissingError
from mipyme_backup.manifest import Manifest, SavedSource
from mipyme_backup.messages import Message
from mipyme_backup.models import Backup
from mipyme_backup.results import Found, Level, Verified

pytestmark = pytest.mark.django_db

START = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE_PROJECTS = """
INSERT INTO mipyme_backup_backup (backup_id, name, manifest, started_at, kind, label, status,
    pinned, sequence, whole, raw_size, stored_size, sha256, sources, warnings, error)
VALUES (%s, %s, %s, %s, 'daily', '', 'complete', false, 1, true, 0, 0, '', '[]', '[]', '')
"""


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


def test_run_is_noted_from_its_start_to_its_end(catalog: Catalog) -> None:
    manifest = _manifest("a" * 16)

    catalog.start(manifest.project, manifest.id, manifest.name, "daily", "a note", START, START)
    running = _only_row(catalog)
    catalog.finish(manifest, "f" * 64, {"local": None})
    finished = _only_row(catalog)

    assert (running["status"], running["finished_at"], running["copies"]) == ("running", None, [])
    assert finished["status"] == "complete"
    assert finished["finished_at"] == manifest.finished_at.isoformat()
    assert finished["sources"] == ["database:default"]
    assert finished["sha256"] == "f" * 64
    assert finished["copies"] == [{"destination": "local", "status": "complete", "error": None}]


def test_copy_that_failed_makes_it_partial_and_keeps_the_reason(catalog: Catalog) -> None:
    error = DestinationError("%(place)s is 100%% full", place="/mnt")

    catalog.finish(_manifest("a" * 16), "", {"local": None, "remote": error})

    row = _only_row(catalog)
    assert row["status"] == "partial"
    assert row["copies"][1] == {
        "destination": "remote",
        "status": "failed",
        "error": "/mnt is 100% full",
    }


def test_failed_run_tells_its_reason(catalog: Catalog) -> None:
    catalog.start("tests", "a" * 16, "manual_1", "manual", "", None, START)

    catalog.fail("a" * 16, "the disk is full")

    row = _only_row(catalog)
    assert (row["status"], row["warnings"]) == ("failed", ["the disk is full"])
    assert row["finished_at"]


def test_only_a_running_one_can_fail(catalog: Catalog) -> None:
    catalog.finish(_manifest("a" * 16), "", {"local": None})

    catalog.fail("a" * 16, "too late")

    assert _only_row(catalog)["status"] == "complete"


def test_run_whose_process_died_is_abandoned(catalog: Catalog) -> None:
    catalog.start("tests", "a" * 16, "manual_1", "manual", "", None, START)
    catalog.finish(_manifest("b" * 16), "", {"local": None})

    catalog.abandon_running({})

    assert {row["id"][0]: row["status"] for row in catalog.rows() or []} == {
        "a": "abandoned",
        "b": "complete",
    }
    assert not catalog.has_running()


def test_verification_marks_the_copy_and_a_good_one_clears_it(catalog: Catalog) -> None:
    catalog.finish(_manifest("a" * 16), "", {"local": None, "other": None})

    def copies_after(*problems: str) -> list[tuple[str, str | None]]:
        verified = Verified(
            id="a" * 16, name="manual_a", destination="local", problems=tuple(problems)
        )
        catalog.verified([verified], "stored")
        return [(copy["status"], copy["error"]) for copy in _only_row(catalog)["copies"]]

    assert copies_after("a hole", "a flip") == [("damaged", "a hole\na flip"), ("complete", None)]
    assert copies_after() == [("complete", None), ("complete", None)]


def test_stored_bytes_that_are_right_do_not_lift_damage_of_the_content(catalog: Catalog) -> None:
    catalog.finish(_manifest("a" * 16), "", {"local": None})

    def status_after(level: Level, *problems: str, **more: Any) -> str:
        verified = Verified(
            id="a" * 16, name="manual_a", destination="local", problems=tuple(problems), **more
        )
        catalog.verified([verified], level)
        return str(_only_row(catalog)["copies"][0]["status"])

    assert status_after("content", "no dump") == "damaged"
    assert status_after("stored") == "damaged"
    assert status_after("content", "no key", unreadable=KeyMissingError("no key")) == "damaged"
    assert status_after("content") == "complete"
    assert status_after("stored", "a flip") == "damaged"
    assert status_after("stored") == "complete"
    catalog.pruned("a" * 16, "local", Message("old"))
    catalog.finish(_manifest("b" * 16), "", {"local": None})
    catalog.verified(
        [Verified(id="a" * 16, name="manual_a", destination="local", problems=("gone",))], "stored"
    )
    assert [row["name"] for row in catalog.rows() or []] == ["manual_b"]


class TestWhatAPruneGoesBy:
    def test_newest_run_is_ours_and_no_future_one(self, catalog: Catalog) -> None:
        now = START + timedelta(hours=1)
        catalog.start("tests", "a" * 16, "manual_a", "manual", "", None, START)
        catalog.finish(_manifest("b" * 16, started_at=START - timedelta(days=1)), "", {})
        catalog.finish(_manifest("c" * 16, started_at=START + timedelta(days=1)), "", {})
        theirs = replace(_manifest("d" * 16, started_at=now), project="neighbour")
        catalog.finish(theirs, "", {"local": None})

        known = catalog.known("tests", now)

        assert known is not None and known.newest is not None
        assert (known.newest.name, known.newest.status) == ("manual_a", "running")
        assert known.copies == {}

    def test_copies_that_should_be_there_and_pins(self, catalog: Catalog) -> None:
        error = DestinationError("full")
        catalog.finish(_manifest("a" * 16), "", {"local": None, "other": error})
        catalog.finish(_manifest("b" * 16), "", {"local": None, "far": None})
        catalog.pin("a" * 16, True)
        catalog.pruned("b" * 16, "local", Message("old"))

        known = catalog.known("tests", START + timedelta(days=1))

        assert known is not None
        assert known.copies == {"local": {"a" * 16: "manual_a"}, "far": {"b" * 16: "manual_b"}}
        assert known.pinned == {"a" * 16}
        rows = {row["name"]: row for row in catalog.rows() or []}
        assert [copy["status"] for copy in rows["manual_b"]["copies"]] == ["complete", "pruned"]
        assert rows["manual_b"]["copies"][1]["error"] == "old"
        assert rows["manual_b"]["status"] == "complete"
        catalog.pruned("b" * 16, "far", Message("old"))
        assert [row["name"] for row in catalog.rows() or []] == ["manual_a"]

    def test_nothing_is_known_without_tables(self, catalog: Catalog) -> None:
        _drop_tables(catalog)

        assert catalog.known("tests", START) is None


class TestSync:
    def test_lost_catalog_comes_back(self, catalog: Catalog) -> None:
        held = [_found(letter, "local") for letter in "ab"]

        catalog.sync({"local": held, "other": [_found("b", "other")]})

        rows = {row["name"]: row for row in catalog.rows() or []}
        assert {name: len(row["copies"]) for name, row in rows.items()} == {
            "manual_a": 1,
            "manual_b": 2,
        }
        assert {row["status"] for row in rows.values()} == {"complete"}

    def test_copy_that_is_gone_is_missing(self, catalog: Catalog) -> None:
        catalog.sync({"local": [_found("a", "local")]})

        catalog.sync({"local": []})

        assert _only_row(catalog)["copies"][0]["status"] == "missing"

    def test_destination_that_was_not_listed_is_left_as_it_was(self, catalog: Catalog) -> None:
        catalog.sync({name: [_found("a", name)] for name in ("local", "other")})

        catalog.sync({"local": []})

        statuses = {c["destination"]: c["status"] for c in _only_row(catalog)["copies"]}
        assert statuses == {"local": "missing", "other": "complete"}

    def test_unreadable_manifest_and_failed_runs_stay_out_of_it(self, catalog: Catalog) -> None:
        catalog.start("tests", "f" * 16, "manual_f", "manual", "", None, START)
        catalog.fail("f" * 16, "no disk")
        error = DestinationError("unreadable")

        catalog.sync({"local": [Found(destination="local", name="manual_x", error=error)]})

        assert [row["name"] for row in catalog.rows() or []] == ["manual_f"]


class TestAbsence:
    @pytest.mark.parametrize(
        "write",
        [
            lambda catalog: catalog.start("tests", "a" * 16, "manual_1", "manual", "", None, START),
            lambda catalog: catalog.finish(_manifest("a" * 16), "", {"local": None}),
            lambda catalog: catalog.sync({"local": [_found("a", "local")]}),
            lambda catalog: catalog.start_restore("a" * 16, _manifest("a" * 16), ["media"]),
            lambda catalog: catalog.abandon_running({}),
        ],
        ids=["start", "finish", "sync", "restore", "abandon"],
    )
    def test_tables_that_are_not_there_are_a_warning(
        self, catalog: Catalog, caplog: pytest.LogCaptureFixture, write: Callable[[Catalog], None]
    ) -> None:
        _drop_tables(catalog)

        with caplog.at_level(logging.WARNING, "mipyme_backup"):
            write(catalog)
            write(catalog)

        assert len(caplog.records) == 1
        assert "without the catalog" in caplog.text and "list_backups --sync" in caplog.text

    def test_reading_says_that_nothing_is_known(self, catalog: Catalog) -> None:
        _drop_tables(catalog)

        assert catalog.rows() is None
        assert catalog.has_running() is False

    def test_older_tables_are_a_warning_too(
        self, catalog: Catalog, caplog: pytest.LogCaptureFixture
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE mipyme_backup_backup RENAME COLUMN label TO was_label")

        catalog.start("tests", "a" * 16, "manual_1", "manual", "", None, START)

        assert "label" in caplog.text

    def test_missing_file_is_not_made(
        self,
        catalog: Catalog,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        file = tmp_path / "none.sqlite3"
        monkeypatch.setitem(connection.settings_dict, "NAME", str(file))

        catalog.abandon_running({})

        assert catalog.rows() is None
        assert str(file) in caplog.text
        assert not file.exists()


def test_newest_comes_first(catalog: Catalog) -> None:
    for letter, days in (("a", 2), ("b", 0), ("c", 1)):
        catalog.finish(_manifest(letter * 16, started_at=START - timedelta(days=days)), "", {})

    assert [row["id"][0] for row in catalog.rows() or []] == ["b", "c", "a"]


def test_permissions_are_there_from_the_first_migration() -> None:
    wanted = {"run_backup", "verify_backup", "run_drill", "pin_backup", "restore_backup"}

    found = Permission.objects.filter(
        content_type__app_label="mipyme_backup", codename__in=wanted
    ).values_list("codename", flat=True)

    assert set(found) == wanted


def test_every_table_of_the_app_is_left_out_of_dumps(catalog: Catalog) -> None:
    tables = {
        name for name in connection.introspection.table_names() if name.startswith("mipyme_backup_")
    }

    assert catalog.tables == tables and len(tables) >= 3


def _only_row(catalog: Catalog) -> dict[str, Any]:
    (row,) = catalog.rows() or []
    return row


def _manifest(backup_id: str, *, started_at: datetime = START) -> Manifest:
    return Manifest(
        id=backup_id,
        name=f"manual_{backup_id[0]}",
        kind="manual",
        project="tests",
        started_at=started_at,
        snapshot_at=started_at + timedelta(seconds=1),
        finished_at=started_at + timedelta(seconds=2),
        sequence=1,
        sources=(SavedSource(name="database:default", artifacts=()),),
    )


def _found(letter: str, destination: str) -> Found:
    manifest = _manifest(letter * 16)
    return Found(destination=destination, name=manifest.name, manifest=manifest, sha256="e" * 64)


def _drop_tables(catalog: Catalog) -> None:
    """Drop the catalog's tables until the test is over and its transaction rolled back."""
    with connection.cursor() as cursor:
        for table in ("mipyme_backup_copy", *sorted(catalog.tables - {"mipyme_backup_copy"})):
            cursor.execute(f"DROP TABLE {table}")


@pytest.mark.django_db(transaction=True)
def test_backups_from_before_the_catalog_told_projects_apart() -> None:
    call_command("migrate", "mipyme_backup", "0005", verbosity=0)
    try:
        with connection.cursor() as cursor:
            for number, document in enumerate(('{"project": "shop"}', "{}")):
                values: list[Any] = [f"{number:016x}", f"daily_{number}", document, START]
                cursor.execute(BEFORE_PROJECTS, values)
    finally:
        call_command("migrate", verbosity=0)

    found = Backup.objects.order_by("backup_id").values_list("project", flat=True)

    assert [*found] == ["shop", ""]  # nobody knows whose a run was that failed


def test_failed_run_of_another_project_is_not_ours(catalog: Catalog) -> None:
    catalog.start("shop", "a" * 16, "daily_1", "daily", "", None, START)
    catalog.fail("a" * 16, "It did not work.")

    assert catalog.last_run("shop", running=False) is not None
    assert catalog.last_run("bakery", running=False) is None
