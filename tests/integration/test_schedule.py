"""What is due is done once: whoever asks, however often, and whatever failed before."""

from __future__ import annotations

import io
import json
import shutil
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.core import mail
from django.core.management import CommandError, call_command

from mipyme_backup import api, schedule
from mipyme_backup.catalog import Catalog
from mipyme_backup.errors import SlotDoneError, UsageError
from mipyme_backup.models import Backup, Drill, Look
from mipyme_backup.operations import scheduled

MADRID = ZoneInfo("Europe/Madrid")
MORNING = datetime(2026, 7, 15, 9, 7, tzinfo=MADRID)
QUARTER = timedelta(minutes=15)
CRONTAB = """#!/bin/sh
# A crontab that is a file, so that the one of whoever runs the tests stays as it is.
table="$(dirname "$0")/table"
case "$1" in
-l) [ -e "$table" ] || { echo "no crontab for root" >&2; exit 1; }; cat "$table" ;;
-) cat > "$table" ;;
esac
"""


def run_due(at: datetime) -> dict[str, str]:
    """Return how each job that was due at the moment ended."""
    with time_machine.travel(at):
        return {outcome.job: outcome.ending for outcome in api.run_due()}


def findings_at(moment: datetime) -> dict[str, str]:
    """Return what a look at the moment finds, by id."""
    with time_machine.travel(moment):
        return {finding.id: str(finding.message) for finding in api.status().findings}


def _of_project(given: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a project with a destination and a state of its own."""
    local = given["DESTINATIONS"]["local"]
    return {
        **given,
        "PROJECT": name,
        "STATE_DIR": folder / name / "state",
        "DESTINATIONS": {"local": {**local, "OPTIONS": {"location": folder / name / "backups"}}},
    }


def kinds() -> Counter[str]:
    made = Backup.objects.filter(status__in=["complete", "partial"])
    return Counter(made.values_list("kind", flat=True))


class TestRunDue:
    def test_a_day(self, backups: Path) -> None:
        first = run_due(MORNING)
        again = run_due(MORNING + QUARTER)
        in_the_evening = run_due(MORNING + timedelta(hours=12))
        at_night = run_due(datetime(2026, 7, 16, 2, 0, tzinfo=MADRID))
        at_half_past_four = run_due(datetime(2026, 7, 16, 4, 30, tzinfo=MADRID))
        at_five = run_due(datetime(2026, 7, 16, 5, 0, tzinfo=MADRID))

        assert first == {"daily": "done", "monthly": "done"}
        assert again == {}
        assert in_the_evening == {"status": "done"}
        assert at_night == {"status": "done", "daily": "done"}
        assert at_half_past_four == {"status": "done", "verify": "done"}
        assert at_five == {"status": "done", "prune": "done"}
        assert kinds() == {"daily": 2, "monthly": 1}
        assert set(Backup.objects.values_list("slot", flat=True)) == {
            datetime(2026, 7, 1, 3, tzinfo=MADRID),
            datetime(2026, 7, 15, 2, tzinfo=MADRID),
            datetime(2026, 7, 16, 2, tzinfo=MADRID),
        }
        assert (backups / "monthly" / "mipyme_backup_202607").is_dir()

    def test_first_sunday(self, backups: Path) -> None:
        run_due(MORNING)
        sunday = run_due(datetime(2026, 8, 2, 4, 1, tzinfo=MADRID))
        week_after = run_due(datetime(2026, 8, 9, 4, 1, tzinfo=MADRID))

        assert sunday["drill"] == "done" and "drill" not in week_after
        assert Drill.objects.count() == 1
        assert [*(backups.with_name("state") / "drills").glob("*.html")]

    def test_many_at_once_take_one(self, backups: Path) -> None:
        slot = datetime(2026, 7, 15, 2, tzinfo=MADRID)
        endings: list[str] = []

        def slow(_slot: datetime) -> None:
            others = [
                scheduled.run_once(
                    backups.with_name("state"), due, lambda _slot: pytest.fail("twice")
                )
                for _number in range(5)
            ]
            endings.extend(other.ending for other in others)

        due = schedule.Due(job="daily", slot=slot)
        first = scheduled.run_once(backups.with_name("state"), due, slow)
        after = scheduled.run_once(
            backups.with_name("state"), due, lambda _slot: pytest.fail("twice")
        )

        assert first.ending == "done"
        assert endings == ["busy"] * 5
        assert after.ending == "already_done"

    def test_slot_that_another_host_has_done(self, backups: Path) -> None:
        """Hosts share the catalog, not the records of `STATE_DIR`."""
        run_due(MORNING)
        shutil.rmtree(backups.with_name("state") / "schedule")

        assert run_due(MORNING + QUARTER) == {"daily": "already_done", "monthly": "already_done"}
        assert run_due(MORNING + 2 * QUARTER) == {}
        assert kinds() == {"daily": 1, "monthly": 1}

    def test_backup_for_a_slot_twice(self, backups: Path) -> None:
        slot = datetime(2026, 7, 15, 2, tzinfo=MADRID)
        api.backup(kind="daily", slot=slot)

        with pytest.raises(SlotDoneError, match="daily backup of 2026-07-15"):
            api.backup(kind="daily", slot=slot)
        assert Backup.objects.count() == 1

    def test_slot_that_another_project_has_done(self, backups: Path, settings: Any) -> None:
        """Projects may share a catalog: a slot that one has done is not done for the other."""
        slot = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        for name in ("one", "two"):
            settings.MIPYME_BACKUP = _of_project(settings.MIPYME_BACKUP, name, backups.parent)
            assert Catalog().of_slot(name, "daily", slot) is None
            assert Catalog().slots(name, datetime.now(UTC)) == ({}, None)

            made = api.backup(kind="daily", slot=slot)

            assert Catalog().of_slot(name, "daily", slot) == made.manifest.name
            with pytest.raises(SlotDoneError):
                api.backup(kind="daily", slot=slot)

        assert [*Backup.objects.order_by("pk").values_list("project", flat=True)] == ["one", "two"]

    def test_a_backup_of_some_sources_is_none_for_the_slot(self, backups: Path) -> None:
        slot = datetime(2026, 7, 15, 2, tzinfo=MADRID)
        api.backup(kind="daily", slot=slot, only=["media"])

        assert api.backup(kind="daily", slot=slot).manifest.whole

    def test_failure_is_tried_again_after_a_pause(self, backups: Path) -> None:
        backups.parent.joinpath("passphrase").rename(backups.parent / "away")

        first = run_due(MORNING)
        soon = run_due(MORNING + timedelta(minutes=13))
        second = run_due(MORNING + QUARTER)
        backups.parent.joinpath("away").rename(backups.parent / "passphrase")
        too_soon = run_due(MORNING + 2 * QUARTER)
        third = run_due(MORNING + 3 * QUARTER)

        assert first == second == {"daily": "failed", "monthly": "failed"}
        assert soon == {}
        assert too_soon == {}
        assert third["daily"] == third["monthly"] == "done"
        assert kinds() == {"daily": 1, "monthly": 1}

    def test_run_that_was_killed_is_made_up_for(self, backups: Path) -> None:
        slot = datetime(2026, 7, 15, 2, tzinfo=MADRID)
        due = schedule.Due(job="daily", slot=slot)

        def killed(_slot: datetime) -> None:
            raise KeyboardInterrupt

        with time_machine.travel(MORNING), pytest.raises(KeyboardInterrupt):
            scheduled.run_once(backups.with_name("state"), due, killed)

        assert "daily" not in run_due(MORNING + timedelta(minutes=5))
        assert run_due(MORNING + QUARTER)["daily"] == "done"

    def test_job_that_breaks_keeps_no_other_from_its_turn(
        self, backups: Path, monkeypatch: Any
    ) -> None:
        run_due(MORNING)
        monkeypatch.setattr("mipyme_backup.api.scheduling.watch", lambda: 1 / 0)

        at_night = run_due(datetime(2026, 7, 16, 2, 0, tzinfo=MADRID))

        assert at_night == {"status": "failed", "daily": "done"}

    def test_prune_that_goes_on_failing_is_told(self, backups: Path) -> None:
        run_due(MORNING)
        shutil.rmtree(backups / "monthly")
        five = datetime(2026, 7, 16, 5, 0, tzinfo=MADRID)
        run_due(five - timedelta(hours=3))

        first, told_of_one = run_due(five)["prune"], findings_at(five)
        second, told_of_two = run_due(five + QUARTER)["prune"], findings_at(five + QUARTER)
        api.backups(sync=True)
        third = run_due(five + 3 * QUARTER)["prune"]
        told_in_the_end = findings_at(five + 3 * QUARTER)

        assert (first, second, third) == ("failed", "failed", "done")
        assert "job_failing:prune" not in {**told_of_one, **told_in_the_end}
        text = "prune failed 2 times in a row: Nothing is pruned there"
        assert text in told_of_two["job_failing:prune"]

    def test_prune_that_has_nothing_to_go_by_is_no_failure_of_its_own(self, backups: Path) -> None:
        run_due(MORNING)
        backups.parent.joinpath("passphrase").rename(backups.parent / "away")
        run_due(datetime(2026, 7, 16, 2, 0, tzinfo=MADRID))
        backups.parent.joinpath("away").rename(backups.parent / "passphrase")

        assert run_due(datetime(2026, 7, 16, 5, 0, tzinfo=MADRID))["prune"] == "done"

    def test_next_slot_ends_no_failure(self, backups: Path) -> None:
        for days in range(3):
            with time_machine.travel(MORNING + timedelta(days=days)):
                due = schedule.Due(job="drill", slot=MORNING + timedelta(days=days))
                scheduled.run_once(backups.with_name("state"), due, lambda _slot: 1 / 0)

        told = findings_at(MORNING + timedelta(days=2))

        assert "drill failed 3 times in a row" in told["job_failing:drill"]

    def test_job_that_was_turned_off_fails_no_more(self, backups: Path, settings: Any) -> None:
        run_due(MORNING)
        for number in range(3):
            with time_machine.travel(MORNING + number * timedelta(hours=5)):
                due = schedule.Due(job="prune", slot=MORNING)
                scheduled.run_once(backups.with_name("state"), due, lambda _slot: 1 / 0)
        failing = findings_at(MORNING + timedelta(hours=12))
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "SCHEDULE": {"prune": None}}

        assert "3 times in a row: ZeroDivisionError" in failing["job_failing:prune"]
        assert "job_failing:prune" not in findings_at(MORNING + timedelta(hours=12))

    def test_clock_that_was_set_back(self, backups: Path) -> None:
        run_due(MORNING + timedelta(days=400))

        assert run_due(MORNING) == {"daily": "done", "monthly": "done"}
        assert run_due(MORNING + timedelta(days=1))["daily"] == "done"

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"slot": "now"}', b"\xff"])
    def test_record_that_is_nonsense(self, content: bytes, backups: Path) -> None:
        run_due(MORNING)
        (backups.with_name("state") / "schedule" / "daily.json").write_bytes(content)

        assert run_due(MORNING + QUARTER) == {"daily": "already_done"}

    def test_who_tells_looks_once_a_slot_where_nothing_can_be_noted(self, backups: Path) -> None:
        run_due(MORNING)
        Look.objects.all().delete()
        records = backups.with_name("state") / "schedule"
        shutil.rmtree(records)
        for job in schedule.JOBS:
            (records / f"{job}.lock").mkdir(parents=True)
        noon = datetime(2026, 7, 15, 12, 0, tzinfo=MADRID)

        at_noon = run_due(noon)
        seen = Look.objects.get().at
        later = run_due(noon + QUARTER)
        seen_later = Look.objects.get().at
        at_one = run_due(noon + timedelta(hours=1))

        assert at_noon.pop("status") == at_one["status"] == "done"
        assert set(at_noon.values()) == set(later.values()) == {"failed"}
        assert seen == seen_later < Look.objects.get().at

    @pytest.mark.parametrize("refused", ["open to all", "no folder"])
    def test_state_that_is_refused_keeps_nobody_from_being_told(
        self, refused: str, backups: Path, settings: Any
    ) -> None:
        settings.MIPYME_BACKUP["ALERTS"] = {"recipients": ["ops@example.org"]}
        state = backups.with_name("state")
        if refused == "no folder":
            state.touch(mode=0o600)
        else:
            state.mkdir()
            state.chmod(0o777)

        with time_machine.travel(datetime(2026, 7, 15, 12, 0, tzinfo=MADRID)):
            outcomes = {outcome.job: outcome for outcome in api.run_due()}

        assert {job: o.ending for job, o in outcomes.items()} == {
            job: "done" if job == "status" else "failed" for job in schedule.JOBS
        }
        error = outcomes["daily"].error
        assert str(state) in str(error) and "cannot be used" in str(error)
        assert "name a new folder inside it as STATE_DIR" in str(error and error.hint)
        assert "critical" in {f["level"] for f in Look.objects.get().document["findings"]}
        assert str(state) in mail.outbox[0].body

    def test_what_keeps_a_job_from_its_turn_is_said(self, backups: Path) -> None:
        (backups.with_name("state") / "schedule" / "daily.lock" / "in the way").mkdir(parents=True)

        with time_machine.travel(MORNING):
            outcomes = {outcome.job: outcome for outcome in api.run_due()}

        assert outcomes["monthly"].ending == "done"
        assert outcomes["daily"].ending == "failed"
        assert "schedule cannot be kept: Is a directory" in str(outcomes["daily"].error)
        assert kinds() == {"monthly": 1}

    def test_end_that_cannot_be_noted_is_an_end_all_the_same(self, backups: Path) -> None:
        due = schedule.Due(job="daily", slot=datetime(2026, 7, 15, 2, tzinfo=MADRID))

        def in_the_way(_slot: datetime) -> None:
            (backups.with_name("state") / "schedule" / "daily.new").mkdir()

        assert scheduled.run_once(backups.with_name("state"), due, in_the_way).ending == "done"

    def test_unknown_job(self, backups: Path) -> None:
        with pytest.raises(UsageError, match="no job hourly"):
            api.run_job(job="hourly", slot=MORNING)
        with pytest.raises(UsageError, match="no job daily with the slot"):
            api.run_job(job="daily", slot=MORNING.replace(tzinfo=None))

    def test_nothing_turned_on(self, backups: Path, settings: Any) -> None:
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "SCHEDULE": dict.fromkeys(schedule.JOBS),
        }

        assert run_due(MORNING) == {}


class TestCommand:
    def test_show(self, backups: Path) -> None:
        run_due(MORNING)
        with time_machine.travel(MORNING + QUARTER):
            shown = _output("schedule_backups")
            rows = {row["job"]: row for row in json.loads(_output("schedule_backups", "--json"))}

        assert "Europe/Madrid" in shown and "0 3 1 * *" in shown and "2026-07-16 02:00" in shown
        assert rows["daily"]["next_slot"] == "2026-07-16T00:00:00+00:00"
        assert rows["daily"]["last_slot"] == "2026-07-15T00:00:00+00:00"
        assert rows["daily"]["last_done"] is True

    def test_run_due(self, backups: Path) -> None:
        with time_machine.travel(MORNING):
            text = _output("schedule_backups", "run-due")
            nothing = _output("schedule_backups", "run-due", "--json")

        assert text.splitlines() == [
            "a daily backup, 2026-07-15 02:00: done",
            "a monthly backup, 2026-07-01 03:00: done",
        ]
        assert json.loads(nothing) == []

    def test_run_due_that_fails(self, backups: Path) -> None:
        backups.parent.joinpath("passphrase").unlink()
        output = io.StringIO()

        with time_machine.travel(MORNING), pytest.raises(CommandError) as error:
            call_command("schedule_backups", "run-due", verbosity=0, stdout=output)

        assert error.value.returncode == 1
        assert "a daily backup, 2026-07-15 02:00: failed: " in output.getvalue()
        assert "passphrase" in output.getvalue()

    def test_crontab(self, backups: Path, monkeypatch: Any) -> None:
        table = _stand_in(backups.parent / "bin", monkeypatch)
        other = "0 1 * * * /bin/true # of somebody else"
        table.write_text(f"{other}\n")
        monkeypatch.chdir(backups.parent)

        printed = _output("schedule_backups", "install-cron", "--print")
        unchanged = table.read_text()
        _output("schedule_backups", "install-cron")
        _output("schedule_backups", "install-cron")
        twice = table.read_text().splitlines()
        shown = _output("schedule_backups")
        _output("schedule_backups", "remove-cron")
        again = _output("schedule_backups", "remove-cron")

        assert unchanged == f"{other}\n"
        assert len(twice) == 2 and twice[0] == other
        assert twice[1] in printed and twice[1].startswith("*/15 * * * * cd ")
        assert twice[1].endswith(f"# mipyme_backup {backups.parent}")
        assert "install-cron" not in shown
        assert table.read_text() == f"{other}\n"
        assert "no such line" in again

    @pytest.mark.parametrize("other", ["0 1 * * * /opt/año/x # a\u2028b", "# a\x0bb\x85c"])
    def test_lines_of_others_stay_byte_for_byte(
        self, other: str, backups: Path, monkeypatch: Any
    ) -> None:
        table = _stand_in(backups.parent / "bin", monkeypatch)
        before = other.encode() + b"\n# a\xf1o, in Latin-1\n"
        table.write_bytes(before)

        _output("schedule_backups", "install-cron")
        _output("schedule_backups", "remove-cron")

        assert table.read_bytes() == before

    def test_first_line_of_a_crontab(self, backups: Path, monkeypatch: Any) -> None:
        table = _stand_in(backups.parent / "bin", monkeypatch)

        _output("schedule_backups", "install-cron")

        assert len(table.read_text().splitlines()) == 1

    def test_user_who_may_have_no_crontab(self, backups: Path, monkeypatch: Any) -> None:
        table = _stand_in(backups.parent / "bin", monkeypatch)
        table.with_name("crontab").write_text("#!/bin/sh\necho not allowed >&2; exit 1\n")

        shown = _output("schedule_backups")

        assert "install-cron" in shown
        with pytest.raises(CommandError, match="not allowed"):
            call_command("schedule_backups", "install-cron")

    def test_no_cron(self, backups: Path, monkeypatch: Any) -> None:
        (backups.parent / "nothing").mkdir()
        monkeypatch.setenv("PATH", str(backups.parent / "nothing"))

        with pytest.raises(CommandError, match="crontab is missing"):
            call_command("schedule_backups", "install-cron")

    def test_beat_without_its_app(self, backups: Path) -> None:
        with pytest.raises(CommandError, match="not in INSTALLED_APPS"):
            call_command("schedule_backups", "install-beat")


def _output(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


def _stand_in(folder: Path, monkeypatch: Any) -> Path:
    """Put a crontab first on PATH; returns its table."""
    folder.mkdir()
    program = folder / "crontab"
    program.write_text(CRONTAB)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder / "table"
