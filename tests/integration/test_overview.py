"""What the page of the admin shows, put together from the last look, the catalog, the settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.db import connection

from mipyme_backup import api
from mipyme_backup.errors import UsageError
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill
from mipyme_backup.operations.drill_report import DISASTER
from tests import past
from tests.integration.conftest import LOCAL

NOW = datetime(2026, 7, 15, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _at_noon(backups: Path) -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


class TestAge:
    def test_nothing_is_known_of_an_empty_catalog(self) -> None:
        found = api.overview()

        assert (found.level, found.age, found.unreadable) == ("critical", None, None)
        assert [finding.id for finding in found.look.findings] == ["never_looked"]
        assert not found.calendars[0].counts.keys() - {"none"}

    def test_real_backup_and_real_look(self) -> None:
        api.backup()
        api.status()

        found = api.overview()

        assert found.level == "ok"
        assert found.age is not None and found.age.level == "ok"
        assert [row.run.name for row in found.copies] == [found.age.name]
        assert [content.source for content in found.saved] == [
            "database:default",
            "fixtures",
            "media",
        ]
        assert found.saved[2].files == 1
        assert [(place.name, place.reachable) for place in found.places] == [("local", True)]

    @pytest.mark.parametrize(
        ("hours", "level"), [(0, "ok"), (24.01, "ok"), (24.1, "warning"), (25.1, "critical")]
    )
    def test_grows_since_the_look(self, hours: float, level: str) -> None:
        """The run took 100 seconds, which is the grace that the RPO has; 25 hours alert."""
        _backup(ended=NOW)
        past.looked(NOW, newest=Backup.objects.get(), local={})

        with time_machine.travel(NOW + timedelta(hours=hours), tick=False):
            found = api.overview()

        assert found.age is not None and found.age.level == level

    @pytest.mark.parametrize(
        ("hours", "level"), [(25.01, "ok"), (25.1, "warning"), (26.1, "critical")]
    )
    def test_hour_that_the_clocks_were_set_back_does_not_count(
        self, hours: float, level: str
    ) -> None:
        """In Madrid, three o'clock summer time became two o'clock on 25 October 2026."""
        ended = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
        _backup(ended=ended)
        past.looked(ended, newest=Backup.objects.get(), local={})

        with time_machine.travel(ended + timedelta(hours=hours), tick=False):
            found = api.overview()

        assert found.age is not None and found.age.level == level

    def test_good_look_of_an_hour_ago_does_not_hide_that_it_is_too_old_now(self) -> None:
        _backup(ended=NOW - timedelta(hours=25, minutes=1))
        past.looked(NOW - timedelta(minutes=30), newest=Backup.objects.get(), local={})

        found = api.overview()

        assert (found.look.level, found.level) == ("ok", "critical")

    def test_backup_that_ended_since_the_look_counts(self) -> None:
        past.looked(NOW - timedelta(minutes=30), local={})
        _backup(ended=NOW - timedelta(minutes=5))

        found = api.overview()

        assert found.age is not None and found.age.age == timedelta(minutes=5)
        assert found.newer_than_look

    def test_look_knows_better_what_had_ended_by_then(self) -> None:
        """The catalog still believes in a copy of which the look saw nothing."""
        _backup(ended=NOW - timedelta(hours=1))
        past.looked(NOW, local={})

        assert api.overview().age is None

    def test_look_that_failed_says_nothing_of_the_backups(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _backup(ended=NOW - timedelta(hours=1))
        with monkeypatch.context() as patched:
            patched.setattr("mipyme_backup.monitoring.status.gather", _forbidden)
            with pytest.raises(AssertionError):
                api.watch()

        found = api.overview()

        assert found.age is not None and found.age.age == timedelta(hours=1)
        assert [finding.id for finding in found.look.findings] == ["cannot_tell"]

    @pytest.mark.parametrize(
        "other",
        [{"whole": False}, {"kind": "safety"}, {"status": "failed"}, {"copy": "damaged"}],
    )
    def test_only_what_would_bring_everything_back_counts(self, other: dict[str, Any]) -> None:
        _backup(ended=NOW - timedelta(hours=2), name="older")
        _backup(ended=NOW - timedelta(hours=1), name="newer", **other)

        found = api.overview()

        assert found.age is not None and found.age.name == "older"

    def test_good_one_of_long_ago_is_found(self) -> None:
        _backup(ended=NOW - timedelta(days=400))

        found = api.overview()

        assert found.age is not None and found.age.age == timedelta(days=400)

    def test_backup_of_another_project_in_the_same_place_does_not_count(self) -> None:
        _backup(ended=NOW, project="another")

        found = api.overview()

        assert (found.age, found.copies) == (None, [])


class TestRecovery:
    @pytest.mark.parametrize(
        ("seconds", "passed", "level"),
        [(3600, True, "ok"), (3601, True, "warning"), (5, False, "warning")],
    )
    def test_drill_against_the_rto(self, seconds: float, passed: bool, level: str) -> None:
        Drill.objects.create(
            drill_id="d",
            backup_id="b",
            backup_name="b",
            destination="local",
            passed=passed,
            started_at=NOW,
            finished_at=NOW,
            seconds=seconds,
        )

        assert api.overview().recovery.level == level

    def test_prediction_beyond_the_rto(self, settings: Any) -> None:
        """The look of this catalog foretold 21 minutes."""
        _backup(ended=NOW)
        past.looked(NOW, newest=Backup.objects.get(), local={})
        assert api.overview().recovery.level == "ok"

        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "RTO": timedelta(minutes=20)}
        assert api.overview().recovery.level == "warning"


class TestSchedule:
    def test_soonest_comes_first_and_what_is_turned_off_last(self, settings: Any) -> None:
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "SCHEDULE": {"daily": None}}

        jobs = api.overview().coming

        assert jobs[0].job == "status"
        assert jobs[-1].job == "daily" and jobs[-1].next_slot is None
        moments = [job.next_slot for job in jobs if job.next_slot]
        assert moments == sorted(moments)

    def test_state_that_the_web_server_may_not_read(self, settings: Any) -> None:
        assert api.overview().coming_known

        # Root reads whatever it likes; a file in the place of the folder keeps it out as well.
        place = Path(settings.MEDIA_ROOT) / "picture"
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "STATE_DIR": place}
        found = api.overview()

        assert not found.coming_known
        assert all(job.next_slot for job in found.coming)


class TestCopies:
    def test_each_place_has_its_cell_with_those_of_the_settings_first(self, settings: Any) -> None:
        away = {"BACKEND": LOCAL, "OPTIONS": {"location": "/dev/null/away"}}
        places = {"away": away, **settings.MIPYME_BACKUP["DESTINATIONS"]}
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "DESTINATIONS": places}
        _backup(ended=NOW, name="one")
        Copy.objects.create(
            backup=Backup.objects.get(), destination="gone", status="failed", error="cut"
        )

        found = api.overview()

        (row,) = found.copies
        assert [(cell.destination, cell.status, cell.error) for cell in row.cells] == [
            ("away", "", ""),
            ("local", "complete", ""),
            ("gone", "failed", "cut"),
        ]
        assert [place.configured for place in found.places] == [True, True, False]


def test_no_destination_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    api.backup()
    api.status()

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", _forbidden)
        for module in ("showing", "watching"):
            patched.setattr(f"mipyme_backup.api.{module}.build_project", _forbidden)
        assert api.overview().level == "ok"


def test_catalog_that_cannot_be_read_is_told() -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(Copy)
    try:
        _row(NOW)
        found = api.overview()
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(Copy)

    assert found.unreadable is not None and "cannot be read" in str(found.unreadable)
    assert found.level == "critical"


class TestChecklist:
    def test_policys_own_lines(self) -> None:
        assert [line.text for line in api.overview().checklist.lines] == [*DISASTER]
        assert len(DISASTER) == 7

    def test_those_of_the_settings(self, settings: Any) -> None:
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "CHECKLIST": ["Call Ana"]}

        assert api.mark_checklist(action="ticked", line="Call Ana", by="bea")

        (line,) = api.overview().checklist.lines
        assert line.ticked is not None
        assert (line.ticked.by, line.ticked.at) == ("bea", NOW)

    def test_what_is_so_already_is_not_noted_again(self) -> None:
        assert api.mark_checklist(action="ticked", line=DISASTER[0], by="ana")
        assert not api.mark_checklist(action="ticked", line=DISASTER[0], by="bea")
        assert not api.mark_checklist(action="cleared", line=DISASTER[1], by="bea")

        assert ChecklistEntry.objects.count() == 1

    def test_line_that_is_none(self) -> None:
        with pytest.raises(UsageError, match="no line like this: <b>"):
            api.mark_checklist(action="ticked", line="<b>", by="ana")

        assert not ChecklistEntry.objects.exists()

    def test_fresh_one_keeps_the_old_as_evidence(self) -> None:
        api.mark_checklist(action="ticked", line=DISASTER[0], by="ana")
        assert api.mark_checklist(action="began", by="bea")
        assert not api.mark_checklist(action="began", by="bea")

        found = api.overview().checklist
        assert (found.done, found.began and found.began.by) == (0, "bea")
        assert ChecklistEntry.objects.count() == 2

    def test_outlives_a_restore(self) -> None:
        """It is ticked off in a disaster, while what is live is about to be replaced."""
        api.backup()
        api.mark_checklist(action="ticked", line=DISASTER[0], by="ana")

        with time_machine.travel(NOW + timedelta(hours=1)):
            api.restore(latest=True)

        assert api.overview().checklist.lines[0].ticked is not None

    def test_stands_after_a_restore_as_it_did(self) -> None:
        """One that was begun afresh before, and taken back in part."""
        api.backup()
        for action, line in (("ticked", 0), ("began", 0), ("ticked", 1), ("ticked", 2)):
            text = "" if action == "began" else DISASTER[line]
            api.mark_checklist(action=action, line=text, by="ana")  # type: ignore[arg-type]
        api.mark_checklist(action="cleared", line=DISASTER[2], by="ana")
        before = api.overview().checklist

        with time_machine.travel(NOW + timedelta(hours=1)):
            api.restore(latest=True)

        assert api.overview().checklist == before
        assert before.done == 1 and before.began is not None


def _row(ended: datetime, **values: Any) -> Backup:
    number = Backup.objects.count() + 1
    return Backup.objects.create(
        **{
            "backup_id": f"{number:016x}",
            "name": f"backup_{number}",
            "kind": "daily",
            "status": "complete",
            "sequence": number,
            "started_at": ended - timedelta(seconds=100),
            "finished_at": ended,
            "project": "tests",
            "manifest": {"project": "tests"},
            **values,
        }
    )


def _backup(
    *, ended: datetime, copy: str = "complete", project: str = "tests", **values: Any
) -> None:
    if project != "tests":
        values |= {"project": project, "manifest": {"project": project}}
    Copy.objects.create(backup=_row(ended, **values), destination="local", status=copy)


def _forbidden(*_arguments: Any, **_options: Any) -> Any:
    raise AssertionError("nobody asked for a look")
