"""Prune as an operator would see it: what goes, what stays, and what stops it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import connection

from mipyme_backup import api
from mipyme_backup.catalog import Catalog
from mipyme_backup.errors import LockedError, PreflightError, UsageError
from mipyme_backup.journal import Journal
from mipyme_backup.models import Backup, Copy
from mipyme_backup.state import State
from tests.integration.conftest import LOCAL
from tests.integration.pruning import (
    History,
    actions,
    ago,
    assert_all_good,
    error_of,
    history,
    reasons,
)
from tests.integration.test_api import _held

__all__ = ["history"]
ADD_ONLY = "tests.faulty.AddOnly"
FAR = "tests.faulty.FarAway"
LONG = (90, 70, 50, 20, 10, 1)


def statuses(name: str) -> dict[str, str]:
    copies = Copy.objects.filter(backup__name=name)
    return dict(copies.values_list("destination", "status"))


class TestWhatGoes:
    def test_old_ones_go_and_their_packs_after_three_days(self, history: History) -> None:
        history.begin(*LONG)
        first = api.prune()
        after_first, packs_after_first = history.held(), history.packs()
        again = api.prune()
        history.wait(71)
        api.prune()
        after_71_hours = history.packs()
        history.wait(2)
        last = api.prune()

        assert after_first == {20, 10, 1}
        assert packs_after_first == history.needed_packs(*LONG)
        assert {n for n, a in actions(first).items() if a == "delete"} == {
            history.name(age) for age in (90, 70, 50)
        }
        assert first.destinations[0].waiting == again.destinations[0].waiting == 2
        assert after_71_hours == packs_after_first
        assert history.packs() == history.needed_packs(20, 10, 1)
        assert len(history.packs()) == 4  # the first one's is shared by all
        assert first.destinations[0].freed > 0 and last.destinations[0].freed > 0
        assert again.destinations[0].freed == 0
        assert not last.failed
        assert_all_good()

    def test_nothing_of_them_is_left_behind(self, history: History) -> None:
        history.begin(*LONG)
        before = history.tree()

        freed = api.prune().destinations[0].freed

        gone = before.keys() - history.tree().keys()
        assert {name.partition("/")[0] for name in gone} == {
            history.name(age) for age in (90, 70, 50)
        }
        assert freed == sum(len(before[name]) for name in gone)
        assert not [p for p in history.folder.iterdir() if p.is_dir() and not any(p.iterdir())]

    def test_pack_that_was_needed_again_waits_anew(self, history: History) -> None:
        history.begin(95, 90, 3, 2, 1)
        (own,) = history.needed_packs(90) - history.needed_packs(95)
        folder, kept = history.folder / history.name(90), history.folder.with_name("kept")
        shutil.copytree(folder, kept)
        api.prune()
        history.wait(80)

        shutil.copytree(kept, folder)
        api.prune()

        assert not folder.exists()
        assert own in history.packs()
        history.wait(73)
        api.prune()
        assert own not in history.packs()

    def test_history_stays_in_the_catalog_and_out_of_the_list(self, history: History) -> None:
        history.begin(90, 3, 2, 1)

        api.prune()

        copy = Copy.objects.get(backup__name=history.name(90))
        assert (copy.status, copy.error) == ("pruned", "Older than 30 days.")
        assert copy.backup.status == "complete"
        listed = [row.row["name"] for row in api.backups()]
        assert listed == [history.name(days) for days in (1, 2, 3)]

    @pytest.mark.parametrize("comes_back", [True, False])
    def test_packs_that_a_destination_still_lacked_when_their_backup_went(
        self, comes_back: bool, history: History
    ) -> None:
        """It was down for longer than backups are kept; then it is back, or in no setting more."""
        near, options = history.places, {"location": history.folder.with_name("far")}
        far = {"BACKEND": FAR, "OPTIONS": options, "RETRY_FOR": 0}
        down = {**far, "OPTIONS": {**options, "down": True}}
        history.configure(DESTINATIONS={**near, "far": down})
        history.take(90, 80, 3, 2, 1)
        api.prune()

        history.configure(DESTINATIONS={**near, "far": far} if comes_back else near)
        history.take(0)
        api.prune()
        history.wait(73)
        api.prune()

        assert history.held() == {3, 2, 1, 0}
        assert history.packs() == history.needed_packs(3, 2, 1, 0)
        assert not [*(history.state / "runs").iterdir()]

    def test_each_destination_has_its_own_retention(self, history: History) -> None:
        root = history.folder.parent
        history.configure(
            DESTINATIONS={
                **history.places,
                "far": {"BACKEND": FAR, "OPTIONS": {"location": root / "far"}},
                "short": {
                    "BACKEND": LOCAL,
                    "OPTIONS": {"location": root / "short"},
                    "RETENTION": {"daily": 5, "minimum_good": 1},
                },
            }
        )
        history.take(100, 80, 20, 10, 3, 2)

        api.prune()

        assert history.held() == {20, 10, 3, 2}
        assert history.held(root / "far") == {80, 20, 10, 3, 2}
        assert history.held(root / "short") == {3, 2}
        assert statuses(history.name(80)) == {
            "local": "pruned",
            "far": "complete",
            "short": "pruned",
        }
        assert_all_good()

    def test_one_destination_alone_is_pruned(self, history: History) -> None:
        other = history.folder.with_name("other")
        places = {"other": {"BACKEND": LOCAL, "OPTIONS": {"location": other}}}
        history.configure(DESTINATIONS={**history.places, **places})
        history.take(90, 3, 2, 1)

        result = api.prune(destinations=["other"])

        assert [pruned.destination for pruned in result.destinations] == ["other"]
        assert (history.held(), history.held(other)) == ({90, 3, 2, 1}, {3, 2, 1})
        with pytest.raises(UsageError):
            api.prune(destinations=["nowhere"])

    def test_replaced_data_goes_after_its_hours(self, history: History) -> None:
        history.begin(2, 1)
        api.restore(latest=True, only=["media"])
        replaced = [*history.media.parent.glob(".mipyme_backup_*")]
        history.configure(KEEP_REPLACED_HOURS=0)

        api.prune()

        assert replaced and not any(path.exists() for path in replaced)


class TestWhatStays:
    def test_pinned_one(self, history: History) -> None:
        history.begin(90, 80, 3, 2, 1)
        api.pin(identifier=history.name(90))
        with_catalog = api.prune(dry_run=True)
        Backup.objects.update(pinned=False)

        api.prune()

        assert actions(with_catalog)[history.name(90)] == "keep"
        assert history.held() == {90, 3, 2, 1}
        api.pin(identifier=history.name(90), pinned=False)
        api.prune()
        assert history.held() == {3, 2, 1}
        assert not (history.folder / history.name(90)).exists()

    def test_what_a_restore_came_from_and_what_it_saved(self, history: History) -> None:
        history.configure(KEEP_REPLACED_HOURS=24 * 100)
        history.begin(90)
        with ago(60):
            restored = api.restore(identifier=history.taken[90].id)
        history.take(3, 2, 1)

        result = api.prune()

        assert restored.safety_backup is not None
        assert actions(result)[restored.safety_backup] == "keep"
        assert actions(result)[history.name(90)] == "keep"
        (entry,) = Journal(State(history.state)).entries()
        Journal(State(history.state)).remove(entry)
        result = api.prune()
        assert actions(result)[restored.safety_backup] == "delete"
        assert history.held() == {3, 2, 1}

    def test_last_good_ones_where_the_later_ones_are_damaged(self, history: History) -> None:
        history.begin(90, 80, 70, 60, 2, 1)
        for age in (2, 1):
            (volume,) = (history.folder / history.name(age)).glob("fixtures*")
            volume.write_bytes(b"damaged")
        api.verify()

        api.prune()

        assert history.held() == {80, 70, 60, 2, 1}

    def test_one_without_all_its_volumes_is_not_good(self, history: History) -> None:
        history.begin(90, 80, 70, 60, 1)
        (volume,) = (history.folder / history.name(1)).glob("fixtures*")
        volume.unlink()

        api.prune()

        assert history.held() == {80, 70, 60, 1}

    def test_unreadable_one_and_every_pack(self, history: History) -> None:
        history.begin(90, 80, 3, 2, 1)
        manifest = history.folder / history.name(90) / "manifest.json"
        manifest.write_bytes(manifest.read_bytes()[:-9])
        api.prune()
        history.wait(100)

        result = api.prune()

        assert actions(result)[history.name(90)] == "keep"
        assert "cannot be read" in reasons(result)[history.name(90)]
        assert history.held() == {90, 3, 2, 1}
        assert history.packs() == history.needed_packs(90, 80, 3, 2, 1)

    def test_another_project_in_the_same_place(self, history: History) -> None:
        history.configure(PROJECT="neighbour", STATE_DIR=history.folder.with_name("theirs"))
        history.take(95, 85)
        theirs = history.tree()
        history.take(75)
        with (history.folder / "manual_20250101T000000Z.txt").open("w") as file:
            file.write("somebody's")
        half = history.folder / "manual_20250101T000000Z"
        half.mkdir()
        (half / "fixtures.jsonl.zst.00000").write_text("they write this just now")
        api.backups(sync=True)
        history.configure(PROJECT="tests", STATE_DIR=history.folder.with_name("state"))
        history.take(90, 3, 2, 1)
        shutil.rmtree(history.folder / history.name(75))  # which is theirs to do

        result = api.prune()

        assert history.held() == {95, 85, 3, 2, 1}
        assert "another project" in reasons(result)[history.name(95)]
        assert theirs.items() <= history.tree().items()
        assert (half / "fixtures.jsonl.zst.00000").exists()
        history.wait(73)
        api.prune()
        assert not half.exists()
        assert theirs.items() <= history.tree().items()
        assert (history.folder / "manual_20250101T000000Z.txt").exists()

    def test_one_whose_name_begins_like_that_of_another(self, history: History) -> None:
        with time_machine.travel(datetime.now(UTC) - timedelta(days=90), tick=False):
            first, second = api.backup(kind="daily"), api.backup(kind="daily")
        history.take(3, 2, 1)
        api.pin(identifier=first.manifest.id)

        result = api.prune()

        assert second.manifest.name == f"{first.manifest.name}_2"
        assert actions(result)[first.manifest.name] == "keep"
        assert actions(result)[second.manifest.name] == "delete"
        assert_all_good()

    def test_files_of_others(self, history: History) -> None:
        history.begin(90, 3, 2, 1)
        others = [
            "notes.txt",
            "manual/volume.00000",
            "manual_20250101T000000Z/notes.txt",
            "other/manual_20250101T000000Z/volume.00000",
            "mipyme_backup_20250101T000000Zx/volume.00000",
            "pool/volume.00000",
            "pool/somebody/volume.00000",
            f"pool/{'a' * 32}/notes.txt",
            f"{history.name(90)}/notes.txt",
        ]
        for name in others:
            (history.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (history.folder / name).write_text("ours")
        api.prune()
        history.wait(1000)

        api.prune()

        assert {name for name in others if (history.folder / name).exists()} == {*others}
        assert history.held() == {3, 2, 1}

    def test_what_a_noted_run_left(self, history: History) -> None:
        history.begin(3, 2, 1)
        name, pack = "manual_20250101T000000Z", f"pool/{'b' * 32}"
        for folder in (name, pack):
            (history.folder / folder).mkdir()
            (history.folder / folder / "volume.00000").write_text("half")
        note = {
            "name": name,
            "destinations": ["local"],
            "packs": [f"{pack}/volume"],
            "committing": True,
            "committed": True,
        }
        (history.state / "runs" / f"{'c' * 16}.json").write_text(json.dumps(note))
        api.prune()

        assert history.noted()["local"] == {"deleting": [], "since": {}}
        assert (history.folder / name).exists() and (history.folder / pack).exists()


class TestWhatTheDestinationKeeps:
    def test_locked_manifest_leaves_the_backup_as_it_was(self, history: History) -> None:
        history.begin(90, 80, 3, 2, 1)
        history.places["local"].update(BACKEND=ADD_ONLY)
        before = history.tree()

        result = api.prune()
        history.wait(100)
        api.prune()

        assert not result.failed
        assert actions(result)[history.name(90)] == "locked"
        assert history.tree() == before
        assert statuses(history.name(90)) == {"local": "complete"}
        assert result.destinations[0].freed == 0
        assert_all_good()

    def test_locked_volumes_are_tried_again(self, history: History) -> None:
        history.begin(90, 3, 2, 1)
        options = history.places["local"]["OPTIONS"]
        history.places["local"].update(BACKEND=ADD_ONLY, OPTIONS={**options, "kept": "*/fixtures*"})

        result = api.prune()
        left = [path.name for path in (history.folder / history.name(90)).iterdir()]
        history.places["local"].update(BACKEND=LOCAL, OPTIONS=options)
        api.prune()

        assert not result.failed
        assert actions(result)[history.name(90)] == "delete"
        assert any("fixtures" in name for name in left)
        assert not (history.folder / history.name(90)).exists()


class TestWhatStopsIt:
    def test_newest_run_that_failed(self, history: History) -> None:
        history.begin(90, 80, 3, 2, 1)
        before = history.tree()
        Backup.objects.filter(name=history.name(1)).update(status="failed")

        result = api.prune()

        assert result.failed
        assert history.name(1) in error_of(result) and "failed" in error_of(result)
        assert history.tree() == before
        history.take(0)
        api.prune()
        assert 90 not in history.held()

    def test_newest_run_that_was_killed(self, history: History) -> None:
        history.begin(90, 80, 3, 2, 1)
        before = history.tree()
        Catalog().start(
            "tests", "d" * 16, "manual_now", "manual", "", None, history.taken[1].finished_at
        )

        planned, result = api.prune(dry_run=True), api.prune()

        assert "has not ended" in error_of(planned)
        assert "was killed" in error_of(result)
        assert history.tree() == before

    @pytest.mark.parametrize(("days", "stops"), [(-60, True), (-0.9, False), (60, False)])
    def test_clock_that_another_one_says_is_ahead(
        self, days: float, stops: bool, history: History
    ) -> None:
        """All that a host holds is old once its clock has jumped: then the others' are asked."""
        other = history.folder.with_name("other")
        options = {"location": other, "days": days}
        place = {"BACKEND": "tests.faulty.OtherClock", "OPTIONS": options}
        history.configure(DESTINATIONS={**history.places, "other": place}, RETENTION={"daily": 30})
        history.take(90, 80, 3, 2, 1)
        api.status()

        result = api.prune()

        left = {90, 80, 3, 2, 1} if stops else {3, 2, 1}
        assert history.held() == history.held(other) == left
        assert ("the clock of other is 60 d behind" in error_of(result)) is stops

    def test_catalog_that_cannot_be_read(self, history: History) -> None:
        history.begin(90, 80, 3, 2, 1)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE mipyme_backup_backup RENAME COLUMN pinned TO was_pinned")
        try:
            with pytest.raises(PreflightError, match="catalog"):
                api.prune()
        finally:
            with connection.cursor() as cursor:
                cursor.execute(
                    "ALTER TABLE mipyme_backup_backup RENAME COLUMN was_pinned TO pinned"
                )
        assert history.held() == {90, 80, 3, 2, 1}

    def test_catalog_that_could_not_be_told_stops_nothing_later(self, history: History) -> None:
        history.begin(90, 80, 3, 2, 1)
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TRIGGER full BEFORE UPDATE ON mipyme_backup_copy"
                " BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
            )
        try:
            untold = api.prune()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP TRIGGER full")
        believed = statuses(history.name(90))

        again = api.prune()

        assert history.held() == {3, 2, 1}
        assert believed == {"local": "complete"}
        assert statuses(history.name(90)) == {"local": "pruned"}
        assert not (untold.failed or again.failed)
        assert history.noted()["local"]["deleting"] == []

    @pytest.fixture
    def two_places(self, history: History) -> Path:
        """Another destination, which is pruned whatever happens to the first."""
        other = history.folder.with_name("other")
        places = {"other": {"BACKEND": LOCAL, "OPTIONS": {"location": other}}}
        history.configure(DESTINATIONS={**history.places, **places})
        history.take(90, 80, 3, 2, 1)
        return other

    def test_listing_that_fails(self, history: History, two_places: Path) -> None:
        history.folder.rename(history.folder.with_name("unmounted"))

        result = api.prune()

        assert "does not exist" in error_of(result)
        assert history.held(history.folder.with_name("unmounted")) == {90, 80, 3, 2, 1}
        assert history.held(two_places) == {3, 2, 1}

    def test_listing_that_is_empty(self, history: History, two_places: Path) -> None:
        history.folder.rename(history.folder.with_name("unmounted"))
        history.folder.mkdir()

        result = api.prune()

        assert "(5)" in error_of(result)
        assert statuses(history.name(90)) == {"local": "complete", "other": "pruned"}
        assert history.held(two_places) == {3, 2, 1}

    def test_listing_that_lacks_one(self, history: History, two_places: Path) -> None:
        shutil.rmtree(history.folder / history.name(2))

        result = api.prune()
        held = history.held()
        api.backups(sync=True)
        api.prune()

        assert f"lacks what should be there (1): {history.name(2)}" in error_of(result)
        assert held == {90, 80, 3, 1}
        assert history.held() == {80, 3, 1}

    def test_deletion_that_fails_ends_that_destination(
        self, history: History, two_places: Path
    ) -> None:
        options = {"location": history.folder, "verb": "delete", "call": 3}
        history.places["local"].update(
            BACKEND="tests.faulty.FailingOnce", OPTIONS=options, RETRY_FOR=0
        )

        result = api.prune()
        history.places["local"].update(BACKEND=LOCAL, OPTIONS={"location": history.folder})
        again = api.prune()

        assert "planned fault" in error_of(result)
        assert history.held(two_places) == history.held() == {3, 2, 1}
        assert not again.failed
        assert not (history.folder / history.name(90)).exists()
        assert_all_good()


class TestDryRun:
    def test_it_says_what_would_be_done_and_does_nothing(self, history: History) -> None:
        history.begin(120, 110, 100, 90, 80, 70, 10, 1)
        with ago(30):
            earlier = api.prune()
        before = (history.tree(), history.noted(), api.backups())

        planned = api.prune(dry_run=True)

        assert (history.tree(), history.noted(), api.backups()) == before
        done = api.prune()
        assert actions(earlier)[history.name(110)] == "delete"
        assert not history.needed_packs(110) <= history.packs()  # it was time for its pack
        assert actions(planned) == actions(done)
        assert planned.destinations[0].freed == done.destinations[0].freed > 0
        assert planned.destinations[0].waiting == done.destinations[0].waiting

    def test_it_needs_no_lock(self, history: History) -> None:
        history.take(90, 3, 2, 1)

        with _held(history.state, "backup"):
            assert not api.prune(dry_run=True).failed
            with pytest.raises(LockedError):
                api.prune()


class TestCommand:
    def test_table_names_each_backup_with_its_reason(
        self,
        history: History,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        history.begin(95, 90, 3, 2, 1)
        monkeypatch.setenv("COLUMNS", "80")

        call_command("prune_backups", "--dry-run")
        planned = " ".join(capsys.readouterr().out.split())
        call_command("prune_backups", destination=["local"])
        done = " ".join(capsys.readouterr().out.split())

        assert "would be freed" in planned and "would" not in done
        for said in (planned, done):
            assert history.taken[90].id[:8] in said
            assert "90 days delete Older than 30 days" in said
            assert "3 days keep Not older than 30 days" in said
            assert "1 folder belongs to no backup" in said
        assert history.held() == {3, 2, 1}

    def test_json_has_the_documented_members(
        self, history: History, capsys: pytest.CaptureFixture[str]
    ) -> None:
        history.begin(95, 90, 3, 2, 1)

        call_command("prune_backups", "--json")

        printed = json.loads(capsys.readouterr().out)
        (local,) = printed["destinations"]
        row = next(row for row in local["backups"] if row["name"] == history.name(90))
        assert printed["dry_run"] is False
        assert printed["freed"] == local["freed"] > 0
        assert (local["destination"], local["error"], local["waiting"]) == ("local", None, 1)
        assert row == {
            "id": history.taken[90].id,
            "name": history.name(90),
            "kind": "daily",
            "finished_at": history.taken[90].finished_at.isoformat(),
            "age_days": pytest.approx(90, abs=0.1),
            "size": row["size"],
            "action": "delete",
            "reason": "Older than 30 days.",
        }

    def test_status_says_that_a_destination_was_not_pruned(
        self, history: History, capsys: pytest.CaptureFixture[str]
    ) -> None:
        history.begin(90, 3, 2, 1)
        shutil.rmtree(history.folder / history.name(2))

        with pytest.raises(CommandError) as caught:
            call_command("prune_backups")

        assert caught.value.returncode == 3
        said = " ".join(capsys.readouterr().out.split())
        assert "lacks what should be there" in said and "list_backups --sync" in said

    def test_held_lock_ends_with_5(self, history: History) -> None:
        history.take(90, 3, 2, 1)

        with _held(history.state, "prune"), pytest.raises(CommandError) as caught:
            call_command("prune_backups")

        assert caught.value.returncode == 5
        assert "prune (process 4711" in str(caught.value)
        assert 90 in history.held()


class TestSuspectNewest:
    def test_nothing_goes_on_the_strength_of_one_that_lost_its_rows(self, history: History) -> None:
        Group.objects.bulk_create(Group(name=f"group {number}") for number in range(200))
        history.take(90, 4, 3, 2)
        Group.objects.all().delete()
        history.take(1)

        result = api.prune()

        assert "is suspect: tables have lost rows: auth_group 201 → 0" in error_of(result)
        assert history.held() == {90, 4, 3, 2, 1}
        found = {finding.id: finding for finding in api.status(timeout=60).findings}
        assert found["rows_fallen"].level == "warning"
        assert history.name(1) in str(found["rows_fallen"].message)

        history.configure(ALERTS={"max_shrink": 1})
        api.prune()
        assert history.held() == {4, 3, 2, 1}
        assert "rows_fallen" not in {finding.id for finding in api.status(timeout=60).findings}

    def test_nothing_goes_after_the_media_are_gone(self, history: History) -> None:
        film = history.media / "film"
        film.write_bytes(bytes(16 * 10**6))
        history.take(90, 4, 3, 2)
        film.unlink()
        history.take(1)

        result = api.prune()

        assert "is suspect: it holds" in error_of(result)
        assert history.held() == {90, 4, 3, 2, 1}
        assert "size_fallen" in {finding.id for finding in api.status(timeout=60).findings}

    def test_smaller_backups_become_usual(self, history: History) -> None:
        Group.objects.bulk_create(Group(name=f"group {number}") for number in range(200))
        history.take(90, 80, 70)
        Group.objects.all().delete()
        history.take(4, 3)
        stopped = api.prune()
        history.take(2, 1, 0.5)

        assert "is suspect" in error_of(stopped)
        assert not api.prune().failed
        assert history.held() == {4, 3, 2, 1, 0.5}
