"""A slow or dead destination neither stops nor slows the others, and is completed afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup import api, recover
from mipyme_backup.errors import DestinationError, NoBackupError
from mipyme_backup.operations import looking
from mipyme_backup.operations.writing import DEPTH
from tests.faulty import FarAway
from tests.integration.conftest import LOCAL

VOLUME = 65536
VOLUMES = 30


@pytest.fixture
def project(backups: Path, settings: Any) -> Any:
    """The settings, with volumes of 64 KiB, and media that fills thirty of them."""
    (backups.with_name("media") / "large").write_bytes(os.urandom(VOLUME * VOLUMES))
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "VOLUME_SIZE": VOLUME,
        "STATE_DIR": backups.with_name("state"),
    }
    FarAway.puts.clear()
    FarAway.most, FarAway.gave_up = 0, 0
    return settings


def place(project: Any, backups: Path, *, local: bool = True, **far: Any) -> None:
    """Set the destinations: a local one where asked for, and `far` ones with their options."""
    places: dict[str, Any] = {}
    if local:
        places["local"] = {"BACKEND": LOCAL, "OPTIONS": {"location": backups}}
    for name, options in far.items():
        given = {"location": backups.with_name(name), **options}
        places[name] = {"BACKEND": "tests.faulty.FarAway", "OPTIONS": given, "RETRY_FOR": 0}
    project.MIPYME_BACKUP = {**project.MIPYME_BACKUP, "DESTINATIONS": places}


def finished(folder: Path, made: api.BackupResult) -> float:
    return (folder / made.manifest.name / "manifest.json").stat().st_mtime


def assert_good(made: api.BackupResult, *destinations: str) -> None:
    verified = api.verify(identifiers=[made.manifest.id], level="content")
    assert {v.destination: v.problems for v in verified} == dict.fromkeys(destinations, ())


def test_local_copy_does_not_wait_for_a_slow_one(project: Any, backups: Path) -> None:
    watched = backups.with_name("state") / "work"
    place(project, backups, slow={"seconds": 0.4, "watched": watched})

    made = api.backup()

    assert made.status == "complete"
    assert finished(backups, made) < finished(backups.with_name("slow"), made)
    assert 0 < FarAway.most <= DEPTH + 1
    assert len(FarAway.puts) == len(set(FarAway.puts)), "volumes were sent twice"
    assert_good(made, "local", "slow")


def test_local_copy_does_not_wait_for_one_that_does_not_answer(
    project: Any, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PATIENCE_SECONDS", 12)
    place(project, backups)
    api.backup()
    place(project, backups, silent={"down": True, "seconds": 12})

    made = api.backup()

    assert made.status == "partial"
    assert finished(backups, made) < FarAway.gave_up


def test_monthly_name_is_not_taken_twice(
    project: Any, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PATIENCE_SECONDS", 0.5)
    place(project, backups, local=False, far={})
    first = api.backup(kind="monthly")
    place(project, backups, far={"down": True, "seconds": 2})
    second = api.backup(kind="monthly")
    place(project, backups, far={})
    api.backup()

    assert first.manifest.name != second.manifest.name
    assert_good(first, "far")
    assert_good(second, "local", "far")


def test_without_a_local_one_the_spool_stays_small(project: Any, backups: Path) -> None:
    watched = backups.with_name("state") / "work"
    place(project, backups, local=False, slow={"seconds": 0.02, "watched": watched})

    made = api.backup()

    assert made.status == "complete"
    assert 0 < FarAway.most <= DEPTH + 1
    assert_good(made, "slow")


def test_the_fast_one_of_two_far_ones_completes_the_slow_one(project: Any, backups: Path) -> None:
    place(project, backups, local=False, fast={}, slow={"seconds": 0.4})

    made = api.backup()

    assert made.status == "complete"
    assert_good(made, "fast", "slow")
    program = Path(recover.__file__).read_bytes()
    for name in ("fast", "slow"):
        assert (backups.with_name(name) / "recover.py").read_bytes() == program


def test_one_that_is_down_is_completed_by_the_next_run(project: Any, backups: Path) -> None:
    place(project, backups, far={"down": True, "seconds": 4})
    first = api.backup()
    row = api.backups()[0].to_dict()

    assert first.status == row["status"] == "partial"
    assert {copy["destination"]: copy["status"] for copy in row["copies"]} == {
        "local": "complete",
        "far": "failed",
    }
    assert "it is down" in str(first.copies["far"])

    place(project, backups, far={})
    second = api.backup()

    assert second.status == "complete"
    assert_good(first, "local", "far")
    assert [row.to_dict()["status"] for row in api.backups()] == ["complete", "complete"]
    assert not [*(backups.with_name("state") / "runs").iterdir()]


def test_one_that_breaks_down_gets_only_what_it_lacks(project: Any, backups: Path) -> None:
    place(project, backups, far={"fails_at": 6})
    first = api.backup()
    sent = {*FarAway.puts}
    FarAway.puts.clear()

    assert first.status == "partial"
    assert len(sent) == 5
    place(project, backups, far={})
    api.backup()

    assert sent.isdisjoint(FarAway.puts)
    assert_good(first, "local", "far")


def test_busy_disk_is_followed_and_not_left_behind_a_far_one(project: Any, backups: Path) -> None:
    place(project, backups, local=False, far={"fails_at": 12})
    busy = {"BACKEND": "tests.faulty.BusyDisk", "OPTIONS": {"location": backups, "seconds": 0.1}}
    places = {"local": busy, **project.MIPYME_BACKUP["DESTINATIONS"]}
    project.MIPYME_BACKUP = {**project.MIPYME_BACKUP, "DESTINATIONS": places}

    made = api.backup()

    assert made.copies["local"] is None and made.copies["far"] is not None
    verified = api.verify(identifiers=[made.manifest.id], destination="local")
    assert [v.problems for v in verified] == [()]


def test_parts_on_one_that_is_full_are_removed_and_come_again(project: Any, backups: Path) -> None:
    place(project, backups, far={})
    blocked = backups.with_name("far") / "pool"
    blocked.parent.mkdir()
    blocked.write_text("in the way of every pack, as a full disk is")
    first = api.backup()

    assert first.status == "partial"
    assert [path.name for path in blocked.parent.iterdir()] == ["pool"]
    blocked.unlink()
    api.backup()

    assert_good(first, "local", "far")


def test_all_of_them_down_is_a_failure(project: Any, backups: Path) -> None:
    place(project, backups, local=False, one={"down": True}, two={"down": True})

    with pytest.raises(DestinationError, match="it is down"):
        api.backup()

    assert api.backups()[0].to_dict()["status"] == "failed"
    assert not [*backups.with_name("state").glob("runs/*")]


def test_safety_backup_stays_on_this_machine(project: Any, backups: Path) -> None:
    place(project, backups, far={})
    made = api.backup()
    FarAway.puts.clear()

    restored = api.restore(identifier=made.manifest.id)

    assert restored.safety_backup is not None
    assert (backups / restored.safety_backup / "manifest.json").exists()
    assert FarAway.puts == []


def test_copy_is_completed_by_hand_and_mended(project: Any, backups: Path) -> None:
    place(project, backups, far={"down": True})
    made = api.backup()
    place(project, backups, far={})

    completed = api.complete(identifier=made.manifest.id[:6])

    assert completed.status == "complete"
    assert_good(made, "local", "far")
    place(project, backups, far={}, third={"down": True})
    completed = api.complete(identifier=made.manifest.id, destinations=["far"])
    assert completed.copies == {"local": None, "far": None}  # and nothing of the third
    place(project, backups, far={})
    (volume,) = (backups.with_name("far") / made.manifest.name).glob("fixtures*")
    content = bytearray(volume.read_bytes())
    content[len(content) // 2] ^= 1
    volume.write_bytes(content)
    FarAway.puts.clear()
    mended = api.complete(identifier=made.manifest.name, destinations=["far"])

    assert mended.status == "complete"
    assert sorted(FarAway.puts) == sorted(
        [f"{made.manifest.name}/{volume.name}", f"{made.manifest.name}/manifest.json"]
    )
    assert_good(made, "local", "far")


def test_the_only_copy_cannot_be_completed(project: Any, backups: Path) -> None:
    place(project, backups, far={"down": True})
    made = api.backup()

    with pytest.raises(NoBackupError, match="no other copy"):
        api.complete(identifier=made.manifest.id, destinations=["local"])


def test_latest_passes_over_what_a_verification_found_damaged(project: Any, backups: Path) -> None:
    place(project, backups)
    older = api.backup()
    newer = api.backup()
    (volume,) = (backups / newer.manifest.name).glob("fixtures*")
    volume.write_bytes(b"damaged")
    api.verify()

    chosen = api.restore(latest=True, plan=True)

    assert chosen.backup_id == older.manifest.id


def test_good_copy_is_taken_before_a_damaged_and_a_near_one_before_a_far_one(
    project: Any, backups: Path
) -> None:
    place(project, backups, local=False, far={})
    far = project.MIPYME_BACKUP["DESTINATIONS"]
    place(project, backups)
    near = project.MIPYME_BACKUP["DESTINATIONS"]
    project.MIPYME_BACKUP = {**project.MIPYME_BACKUP, "DESTINATIONS": {**far, **near}}
    made = api.backup()

    first = str(api.restore(latest=True, plan=True).plan[0])
    (volume,) = (backups / made.manifest.name).glob("fixtures*")
    volume.write_bytes(b"damaged")
    api.verify()
    second = str(api.restore(latest=True, plan=True).plan[0])

    assert first.endswith("from local, far")
    assert second.endswith("from far, local")


def test_fault_in_the_code_of_one_costs_its_own_copy_only(project: Any, backups: Path) -> None:
    place(project, backups)
    places = project.MIPYME_BACKUP["DESTINATIONS"]
    odd = {"odd": {"BACKEND": "tests.faulty.Broken"}}
    project.MIPYME_BACKUP = {**project.MIPYME_BACKUP, "DESTINATIONS": {**places, **odd}}

    made = api.backup()

    assert made.copies["local"] is None
    assert "ZeroDivisionError" in str(made.copies["odd"])
    assert made.status == "partial"
    verified = api.verify(identifiers=[made.manifest.id], destination="local")
    assert [v.problems for v in verified] == [()]
