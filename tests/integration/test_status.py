"""The status: what is seen, what is said of it, and how the command ends."""

from __future__ import annotations

import errno
import io
import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command, load_command_class
from django.db import connection

from mipyme_backup import api
from mipyme_backup.catalog import Catalog
from mipyme_backup.errors import BackupError
from mipyme_backup.operations import drill_report
from tests.faulty import FailingOnce
from tests.integration.conftest import LOCAL
from tests.keyrings import keyring, public_half

OFFSITE = "mipyme_backup.destinations.StorageDestination"
S3 = "storages.backends.s3.S3Storage"
GENEROUS = 60.0


def place(settings: Any, **destinations: dict[str, Any]) -> None:
    """Add destinations to the local one."""
    given = settings.MIPYME_BACKUP
    local = given["DESTINATIONS"]["local"]
    settings.MIPYME_BACKUP = {
        **given,
        "STATE_DIR": local["OPTIONS"]["location"].with_name("state"),
        "DESTINATIONS": {"local": local, **destinations},
    }


def folder(path: Path) -> dict[str, Any]:
    return {"BACKEND": LOCAL, "OPTIONS": {"location": path}}


def s3_at(settings: Any, port: int, **options: Any) -> dict[str, Any]:
    """An S3 destination whose endpoint is `port` of this machine."""
    given = {
        "bucket_name": "backups",
        "endpoint_url": f"http://127.0.0.1:{port}",
        "region_name": "us-east-1",
        "access_key": "who",
        "secret_key": "what",
        **options,
    }
    settings.STORAGES = {**settings.STORAGES, "offsite": {"BACKEND": S3, "OPTIONS": given}}
    return {"BACKEND": OFFSITE, "OPTIONS": {"storage": "offsite"}}


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def found(status: api.Status) -> dict[str, str]:
    return {finding.id: finding.level for finding in status.findings}


def look() -> dict[str, str]:
    return found(api.status(timeout=GENEROUS))


def run(*args: str, **options: Any) -> tuple[int, str]:
    """Run the command; return its exit status and what it printed."""
    out = io.StringIO()
    try:
        call_command("backup_status", *args, stdout=out, stderr=io.StringIO(), **options)
    except CommandError as error:
        return error.returncode, out.getvalue()
    return 0, out.getvalue()


def volume(backups: Path, made: api.BackupResult) -> Path:
    """A stored file of the backup's own."""
    return min((backups / made.manifest.name).glob("database.*"))


class TestFacts:
    def test_good_backup_is_all_that_is_needed(self, backups: Path) -> None:
        made = api.backup()

        status = api.status()

        assert status.level == "ok"
        told = status.to_dict()["facts"]
        assert told["newest_good"]["id"] == made.manifest.id
        assert told["newest_good"]["copies"] == {"local": "complete"}
        assert told["newest_good"]["age_seconds"] < 3600
        assert told["last_run"]["status"] == "complete"
        assert told["key_fingerprint"] == made.manifest.key_fingerprint
        local = told["destinations"]["local"]
        assert (local["reachable"], local["writable"], local["may_delete"]) == (True, True, True)
        assert (local["backups"], local["highest_sequence"]) == (1, made.manifest.sequence)
        assert local["newest_good"]["name"] == made.manifest.name
        assert 0 < local["free_bytes"] < local["total_bytes"]
        assert local["place"] == str(backups)

    def test_backups_of_another_project_in_the_same_place_are_not_ours(
        self, backups: Path, settings: Any
    ) -> None:
        whole = settings.MIPYME_BACKUP
        settings.MIPYME_BACKUP = {**whole, "PROJECT": "other"}
        api.backup()
        settings.MIPYME_BACKUP = whole
        made = api.backup()

        assert [backup.id for backup in api.status().facts.backups] == [made.manifest.id]

    def test_looking_changes_nothing(self, backups: Path) -> None:
        api.status(timeout=GENEROUS)
        assert not backups.exists()

        api.backup()
        before = {path: path.stat().st_mtime_ns for path in backups.rglob("*") if path.is_file()}
        api.status(timeout=GENEROUS)

        after = {path: path.stat().st_mtime_ns for path in backups.rglob("*") if path.is_file()}
        assert after == before

    def test_credentials_that_may_not_delete_are_told(self, backups: Path, settings: Any) -> None:
        settings.STORAGES = {
            **settings.STORAGES,
            "offsite": {"BACKEND": "tests.faulty.Keeping"},
        }
        place(settings, offsite={"BACKEND": OFFSITE, "OPTIONS": {"storage": "offsite"}})
        api.backup()

        status = api.status(timeout=GENEROUS)

        assert status.to_dict()["facts"]["destinations"]["offsite"]["may_delete"] is False
        assert status.level == "ok"

    def test_destinations_tell_what_a_lost_catalog_does_not(self, backups: Path) -> None:
        made = api.backup()
        with connection.schema_editor() as editor:
            for table in sorted(Catalog().tables, reverse=True):
                editor.execute(f"ALTER TABLE {table} RENAME TO away_{table}")
        try:
            status = api.status(timeout=GENEROUS)
        finally:
            with connection.schema_editor() as editor:
                for table in Catalog().tables:
                    editor.execute(f"ALTER TABLE away_{table} RENAME TO {table}")

        assert found(status) == {"no_catalog": "warning"}
        newest = status.facts.newest_good()
        assert newest is not None and newest.id == made.manifest.id

    def test_host_remembers_a_backup_that_nobody_shows(self, backups: Path) -> None:
        api.backup()
        hidden = api.backup()
        shutil.rmtree(backups / hidden.manifest.name)
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM mipyme_backup_copy")
            cursor.execute("DELETE FROM mipyme_backup_backup")

        assert look() == {"newest_hidden": "warning"}


class TestFindings:
    def test_nothing_yet(self, backups: Path) -> None:
        assert look() == {"no_backup": "critical", "destination_unreachable:local": "critical"}

    def test_part_of_a_backup_is_none(self, backups: Path) -> None:
        api.backup(only=["media"])

        assert look() == {"no_backup": "critical"}

    def test_safety_backup_is_none(self, backups: Path) -> None:
        made = api.backup()
        api.restore(latest=True)
        shutil.rmtree(backups / made.manifest.name)

        assert look()["no_backup"] == "critical"

    def test_backup_of_another_project_is_none(self, backups: Path, settings: Any) -> None:
        api.backup()
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM mipyme_backup_copy")
            cursor.execute("DELETE FROM mipyme_backup_backup")
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "PROJECT": "other",
            "STATE_DIR": backups.with_name("another state"),
        }

        assert look() == {"no_backup": "critical"}

    def test_old_one(self, backups: Path, settings: Any) -> None:
        api.backup()
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "ALERTS": {"max_age": timedelta(microseconds=1)},
        }

        assert look() == {"backup_old": "critical"}

    def test_without_encryption(self, backups: Path, settings: Any) -> None:
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ENCRYPTION": None}
        api.backup()

        assert look() == {"not_encrypted": "warning"}

    def test_host_that_cannot_open_its_backups(
        self, backups: Path, settings: Any, workdir: Path, gpg: Path
    ) -> None:
        with keyring("backup") as ring, public_half(ring) as half:
            for keys, expected in ((half, {"cannot_open": "ok"}), (ring, {})):
                settings.MIPYME_BACKUP = {
                    **settings.MIPYME_BACKUP,
                    "SIGNING_KEY_FILE": workdir / "passphrase",
                    "ENCRYPTION": {
                        "BACKEND": "mipyme_backup.encryption.GPG",
                        "OPTIONS": {"recipients": [keys.fingerprint], "home": keys.home},
                    },
                }
                api.backup()

                assert look() == expected

    @pytest.mark.parametrize("spoil", ["cut", "gone", "manifest"])
    def test_damage_that_a_look_can_see(self, backups: Path, spoil: str) -> None:
        made = api.backup()
        file = volume(backups, made)
        if spoil == "cut":
            file.write_bytes(file.read_bytes()[:-1])
        elif spoil == "gone":
            file.unlink()
        else:
            manifest = backups / made.manifest.name / "manifest.json"
            manifest.write_bytes(manifest.read_bytes().replace(b'"kind"', b'"Kind"'))

        told = look()

        assert (told["newest_damaged"], told["no_backup"]) == ("critical", "critical")

    def test_damage_that_a_verification_saw(self, backups: Path, settings: Any) -> None:
        place(settings, other=folder(backups.with_name("other")))
        made = api.backup()
        file = volume(backups, made)
        file.write_bytes(b"X" + file.read_bytes()[1:])
        assert look() == {}

        api.verify(latest=True)
        assert look() == {"copy_damaged:local": "warning"}

        api.complete(identifier=made.manifest.id, destinations=["local"])
        api.verify(identifiers=[made.manifest.id])
        assert look() == {}

    def test_copy_that_was_deleted(self, backups: Path, settings: Any) -> None:
        place(settings, other=folder(backups.with_name("other")))
        made = api.backup()
        shutil.rmtree(backups.with_name("other") / made.manifest.name)
        assert look() == {"copy_missing:other": "warning"}

        api.complete(identifier=made.manifest.id, destinations=["other"])

        assert look() == {}

    def test_destination_that_was_added_later(self, backups: Path, settings: Any) -> None:
        made = api.backup()
        place(settings, other=folder(backups.with_name("other")))
        backups.with_name("other").mkdir()
        assert look() == {"destination_empty:other": "warning"}

        api.complete(identifier=made.manifest.id)

        assert look() == {}

    def test_last_run_failed(self, backups: Path, settings: Any) -> None:
        api.backup()
        whole = settings.MIPYME_BACKUP
        settings.MIPYME_BACKUP = {
            **whole,
            "DESTINATIONS": {
                "local": {
                    "BACKEND": "tests.faulty.FailingOnce",
                    "OPTIONS": {"location": backups, "verb": "put", "call": 1},
                    "RETRY_FOR": 0,
                }
            },
            "STATE_DIR": backups.with_name("state"),
        }
        with pytest.raises(BackupError):
            api.backup()
        assert FailingOnce.made.calls["put"]
        settings.MIPYME_BACKUP = whole

        assert look() == {"last_run_failed": "warning"}

        api.backup()
        assert look() == {}

    def test_last_run_was_killed(self, backups: Path) -> None:
        api.backup()
        Catalog().start("tests", "f" * 16, "manual_f", "manual", "", None, datetime.now(UTC))
        assert look() == {}  # it may be at work

        Catalog().abandon_running({})

        assert look() == {"last_run_abandoned": "warning"}

    def test_destination_that_takes_nothing(self, backups: Path, settings: Any) -> None:
        full = backups.with_name("full")
        full.mkdir()
        api.backup()
        place(
            settings,
            full={
                "BACKEND": "tests.faulty.FailingOnce",
                "OPTIONS": {"location": full, "verb": "check", "call": 1},
            },
        )
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ALERTS": {"min_free_disk": 1}}

        seen = look()

        assert seen["destination_unwritable:full"] == seen["disk_low:full"] == "warning"

    def test_key_that_is_not_at_hand(self, backups: Path, settings: Any, workdir: Path) -> None:
        api.backup()
        other = workdir / "other"
        other.touch(mode=0o600)
        other.write_text("another passphrase\n")
        options = settings.MIPYME_BACKUP["ENCRYPTION"]["OPTIONS"]
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "ENCRYPTION": {
                **settings.MIPYME_BACKUP["ENCRYPTION"],
                "OPTIONS": {**options, "passphrase_file": other},
            },
        }

        seen = api.status(timeout=GENEROUS)
        told = {one.id: f"{one.message} {one.hint}" for one in seen.findings}
        assert look() == {
            "no_backup": "critical",
            "old_key_needed:local": "warning",
        }
        assert "1 backups on local were made with another key" in told["old_key_needed:local"]
        assert "old_passphrase_files" in told["old_key_needed:local"]
        assert not any("removed" in text for text in told.values())


def ago(**length: float) -> time_machine.travel:
    return time_machine.travel(datetime.now(UTC) - timedelta(**length), tick=True)


class TestProof:
    def test_copy_that_nobody_verified_for_a_week(self, backups: Path) -> None:
        with ago(days=9):
            api.backup()
        api.backup()
        assert look() == {"verify_overdue:local": "warning"}

        api.verify()

        assert look() == {}

    def test_restore_that_nobody_rehearsed_for_long(self, backups: Path, settings: Any) -> None:
        with ago(days=37):
            api.backup()
        api.backup()
        api.verify()
        asked = settings.MIPYME_BACKUP
        assert look() == {"drill_overdue": "warning"}

        settings.MIPYME_BACKUP = {**asked, "SCHEDULE": {"drill": None}}
        assert look() == {}

        settings.MIPYME_BACKUP = asked
        assert api.drill().passed
        assert look() == {}

    def test_restore_is_measured_and_held_against_the_rto(
        self, backups: Path, settings: Any
    ) -> None:
        made = api.backup()
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "RTO": timedelta(microseconds=1)}
        _status, out = run("--json")
        before = json.loads(out)

        api.restore(latest=True)
        _status, out = run("--json")
        after = json.loads(out)

        assert [finding["id"] for finding in before["findings"]] == ["rto_at_risk"]
        assert before["facts"]["last_restore"] is None
        assert before["facts"]["predicted_restore_seconds"] < 1
        measured = after["facts"]["last_restore"]
        assert measured["backup"] == made.manifest.name
        assert after["facts"]["predicted_restore_seconds"] == pytest.approx(
            measured["seconds"], abs=0.2, rel=0.2
        )

    def test_restore_of_a_part_measures_nothing(self, backups: Path) -> None:
        api.backup()
        api.restore(latest=True, only=["media"])

        assert api.status().facts.last_restore is None

    def test_key_that_has_expired(
        self, backups: Path, settings: Any, workdir: Path, gpg: Path
    ) -> None:
        with keyring("backup") as ring:
            settings.MIPYME_BACKUP = {
                **settings.MIPYME_BACKUP,
                "SIGNING_KEY_FILE": workdir / "passphrase",
                "ENCRYPTION": {
                    "BACKEND": "mipyme_backup.encryption.GPG",
                    "OPTIONS": {"recipients": [ring.fingerprint], "home": ring.home},
                },
            }
            api.backup()
            ring.run("--quick-set-expire", ring.fingerprint, "10d")
            assert look() == {"key_expiring": "warning"}

            ring.run("--quick-set-expire", ring.fingerprint, "seconds=1")
            time.sleep(2)
            status, out = run("--json")

            assert status == 2
            assert [finding["id"] for finding in json.loads(out)["findings"]] == ["key_expired"]

    def test_review_of_the_policy(self, backups: Path, settings: Any) -> None:
        api.backup()
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "POLICY_REVIEW": date(2025, 1, 1)}
        assert look() == {"policy_review_overdue": "warning"}

        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "POLICY_REVIEW": None}
        assert look() == {}


class TestMissedSlots:
    DAILY = {"daily": "0 2 * * *", "monthly": None, "verify": None}

    def slot(self, days: int) -> datetime:
        """Two o'clock of the day that is so many days before NOON."""
        return self.NOON.replace(hour=2) - timedelta(days=days)

    NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)

    @pytest.fixture(autouse=True)
    def schedule(self, backups: Path, settings: Any) -> None:
        settings.TIME_ZONE = "UTC"
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "SCHEDULE": self.DAILY}

    def serve(self, days: int, **options: Any) -> None:
        with time_machine.travel(self.slot(days), tick=True):
            api.backup(kind="daily", slot=self.slot(days), **options)

    def look_at_noon(self) -> dict[str, str]:
        with time_machine.travel(self.NOON, tick=True):
            return look()

    def test_slot_without_a_backup(self) -> None:
        self.serve(2)
        with time_machine.travel(self.NOON - timedelta(hours=9), tick=True):
            api.backup()  # somebody's own is young, and stands for no slot

        with time_machine.travel(self.NOON, tick=True):
            document = json.loads(run("--json")[1])
        told = {finding["id"]: finding["message"] for finding in document["findings"]}
        assert told.keys() == {"slot_missed:daily"}
        assert "2 times" in told["slot_missed:daily"]
        assert [missed["slot"] for missed in document["facts"]["missed_slots"]] == [
            self.slot(1).isoformat(),
            self.slot(0).isoformat(),
        ]

        self.serve(0)
        assert self.look_at_noon() == {}

    def test_part_of_a_backup_stands_for_no_slot(self) -> None:
        self.serve(1)
        self.serve(0, only=["media"])

        assert self.look_at_noon() == {
            "slot_missed:daily": "warning",
            "backup_old": "critical",
        }

    def test_an_hour_is_given(self) -> None:
        self.serve(1)

        with time_machine.travel(self.slot(0) + timedelta(minutes=55), tick=True):
            assert look() == {}

    def test_backup_that_is_being_made_is_not_missed(self) -> None:
        self.serve(1)
        with time_machine.travel(self.slot(0), tick=True):
            api.backup()
            now = datetime.now(UTC)
            Catalog().start("tests", "f" * 16, "daily_f", "daily", "", self.slot(0), now)

        assert self.look_at_noon() == {}

    def test_kind_that_never_came_is_missed_since_the_schedule_began(self, settings: Any) -> None:
        self.serve(8)
        self.serve(0)
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "SCHEDULE": {**self.DAILY, "monthly": "0 3 1 * *"},
        }
        assert "slot_missed:monthly" not in self.look_at_noon()
        with time_machine.travel(datetime(2025, 4, 1, 3, 59, tzinfo=UTC), tick=True):
            assert "slot_missed:monthly" not in look()
        with time_machine.travel(datetime(2025, 4, 1, 4, 1, tzinfo=UTC), tick=True):
            assert look()["slot_missed:monthly"] == "warning"

    def test_who_does_not_use_the_schedule_misses_nothing(self) -> None:
        with time_machine.travel(self.NOON, tick=True):
            api.backup()
            assert look() == {}


class TestDeadDestinations:
    def test_one_that_never_answers_costs_its_time_and_no_more(
        self, backups: Path, settings: Any
    ) -> None:
        api.backup()
        with silent_server() as port:
            place(settings, offsite=s3_at(settings, port))

            status = api.status(timeout=3)

        assert found(status) == {"destination_unreachable:offsite": "warning"}
        assert "within 3 seconds" in str(status.findings[0].message)

    def test_one_that_is_not_there_is_told_with_its_reason(
        self, backups: Path, settings: Any
    ) -> None:
        api.backup()
        with silent_server() as port:
            pass  # nobody listens there any more
        place(settings, offsite=s3_at(settings, port))

        status = api.status(timeout=GENEROUS)

        assert found(status) == {"destination_unreachable:offsite": "warning"}
        assert f"127.0.0.1:{port}" in str(status.findings[0].message)

    def test_settings_that_are_wrong_are_told_as_such(self, backups: Path, settings: Any) -> None:
        api.backup()
        place(settings, offsite={"BACKEND": OFFSITE, "OPTIONS": {"storage": "nowhere"}})

        status = api.status(timeout=GENEROUS)

        assert found(status) == {"destination_unreachable:offsite": "warning"}
        assert "nowhere" in str(status.findings[0].message)

    def test_catalog_tells_of_a_copy_that_is_away(self, backups: Path, settings: Any) -> None:
        place(settings, other=folder(backups.with_name("other")))
        made = api.backup(destinations=["other"])
        backups.mkdir(exist_ok=True)
        backups.with_name("other").rename(backups.with_name("unmounted"))

        status = api.status(timeout=GENEROUS)

        assert found(status)["destination_unreachable:other"] == "warning"
        newest = status.facts.newest_good("other")
        assert newest is not None and newest.id == made.manifest.id
        assert not backups.with_name("other").exists()


class TestCommand:
    def test_exit_status_follows_the_level(self, backups: Path, settings: Any) -> None:
        assert run()[0] == 2
        api.backup()
        assert run()[0] == 0
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ENCRYPTION": None}
        api.backup()
        assert run()[0] == 1

    def test_json_is_as_documented(self, backups: Path) -> None:
        status, out = run("--json")

        document = json.loads(out)
        assert status == 2
        assert document.keys() == {"level", "findings", "facts"}
        assert document["level"] == "critical"
        assert [finding["id"] for finding in document["findings"]] == [
            "no_backup",
            "destination_unreachable:local",
        ]
        for finding in document["findings"]:
            assert finding.keys() == {"id", "level", "message", "hint"}
            assert all(finding.values())

    def test_table_says_what_is_wrong_and_what_to_do(self, backups: Path, settings: Any) -> None:
        made = api.backup()
        place(settings, other=folder(backups.with_name("other")))

        _status, out = run("--no-color")

        assert out.startswith("WARNING")
        assert "other" in out and "the first backup makes the folder" in " ".join(out.split())
        assert made.manifest.key_fingerprint is not None and made.manifest.key_fingerprint in out

    def test_fine_is_said_in_one_word(self, backups: Path) -> None:
        api.backup()

        status, out = run("--no-color")

        assert (status, out.split()[0]) == (0, "FINE")

    def test_what_cannot_be_told_is_no_level(self, backups: Path, settings: Any) -> None:
        api.backup()
        settings.MIPYME_BACKUP["ENCRYPTION"]["OPTIONS"]["passphrase_file"].chmod(0o644)
        status, out = run("--json")
        assert status == 3
        assert json.loads(out)["error"]["code"] == "encryption"

        settings.MIPYME_BACKUP = {"TYPO": 1}
        assert run()[0] == 3

    @pytest.mark.parametrize(
        "flags",
        [["--bogus"], ["--timeout", "soon"], ["--timeout", "nan"], ["--json", "--bogus"]],
    )
    def test_mistake_in_a_crontab_is_not_taken_for_a_level(
        self, flags: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        argv = ["manage.py", "backup_status", *flags]
        monkeypatch.setattr("sys.argv", argv)

        with pytest.raises(SystemExit) as ended:
            load_command_class("mipyme_backup", "backup_status").run_from_argv(argv)

        assert ended.value.code == 3

    def test_fault_of_a_back_end_is_that_of_its_destination(
        self, backups: Path, settings: Any
    ) -> None:
        settings.MIPYME_BACKUP = {
            **settings.MIPYME_BACKUP,
            "DESTINATIONS": {"odd": {"BACKEND": "tests.faulty.Broken"}},
            "STATE_DIR": backups,
        }

        found = {finding.id: finding for finding in api.status().findings}

        assert found["destination_unreachable:odd"].level == "critical"
        assert "ZeroDivisionError" in str(found["destination_unreachable:odd"].message)


def test_drill_that_failed_is_told_and_one_that_passed_predicts(
    backups: Path, settings: Any
) -> None:
    api.backup()
    backups.with_name("media").joinpath("picture").unlink()
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "DRILL_ASSERTIONS": ["tests.integration.test_status.refuse"],
    }
    failed, told = api.drill(), {finding.id for finding in api.status().findings}
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "DRILL_ASSERTIONS": []}
    passed, after = api.drill(), api.status()

    assert not failed.passed and "drill_failed" in told
    assert passed.passed and "drill_failed" not in {finding.id for finding in after.findings}
    assert after.facts.last_drill is not None and after.facts.last_drill.passed
    assert after.to_dict()["facts"]["last_drill"]["passed"] is True


def test_reports_of_drills_do_not_grow_for_ever(backups: Path) -> None:
    api.backup()
    drills = backups.with_name("state") / "drills"
    drills.mkdir()
    for number in range(drill_report.KEPT + 5):
        for ending in ("json", "html"):
            (drills / f"drill_20{number:06d}T040000Z_{number:016x}.{ending}").touch()
    (drills / "drills_signed_in_2024.pdf").touch()

    made = api.drill()

    left = sorted(path.name for path in drills.glob("drill_*"))
    assert len(left) == 2 * drill_report.KEPT
    assert {path.name for path in made.reports} <= {*left}
    assert left[0].startswith("drill_20000006T")
    assert (drills / "drills_signed_in_2024.pdf").exists()


def test_drill_is_on_record_even_where_its_report_cannot_be_kept(
    backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.backup()

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drill_report, "replace_file", full)

    with pytest.raises(OSError):
        api.drill()

    last = api.status().facts.last_drill
    assert last is not None and last.passed


def refuse() -> bool:
    """An assertion of a drill that does not hold."""
    return False
