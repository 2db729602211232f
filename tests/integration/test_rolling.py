"""The verification of each night: in a week every stored byte has been read, and once."""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from mipyme_backup import api
from mipyme_backup.destinations import LocalDestination
from mipyme_backup.errors import DestinationError
from mipyme_backup.models import Copy
from mipyme_backup.operations import rolling, verify
from mipyme_backup.operations.reading import check_stored
from mipyme_backup.process import Reader
from mipyme_backup.recover import MANIFEST
from mipyme_backup.results import Level, Verified
from tests.integration.conftest import LOCAL
from tests.integration.pruning import History, history

__all__ = ["history"]
AGES = (20, 15, 10, 5, 4, 3, 2, 1)


def nights(count: int, *, every: int = 1) -> list[list[Verified]]:
    """Verify so many times from now on, once in `every` nights; returns what each found."""
    found = []
    for number in range(0, count * every, every):
        night = datetime.now(UTC) + timedelta(days=number)
        with time_machine.travel(night):
            found.append(rolling.run(api.build_project(), night, api.Silent()))
    return found


@pytest.fixture
def read(monkeypatch: Any) -> Counter[str]:
    """Counts how often the bytes of each artifact are read."""
    counted: Counter[str] = Counter()

    def counting(destination: Any, artifact: Any, on_bytes: Any = None) -> Any:
        counted[artifact.path] += 1
        return check_stored(destination, artifact, on_bytes)

    monkeypatch.setattr(verify, "check_stored", counting)
    return counted


def test_every_byte_in_a_week(history: History, read: Counter[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(rolling, "_newest_content", lambda *_arguments: [])
    history.begin(*AGES)
    artifacts = {a.path for manifest in history.taken.values() for a in manifest.artifacts()}

    found = nights(rolling.NIGHTS)

    assert {path for path in artifacts if not read[path]} == set()
    assert {read[path] for path in artifacts if path.startswith("pool/")} == {1}
    assert max(read.values()) <= 2
    assert [len(night) for night in found] == [2, 2, 2, 2, 0, 0, 2]
    assert {one.name for one in found[0]} == {history.name(1), history.name(2)}
    assert not any(one.problems for night in found for one in night)
    assert not Copy.objects.filter(verified_at=None).exists()


@pytest.mark.parametrize(("count", "every"), [(2, 7), (4, 2)])
def test_share_of_nights_that_were_left_out_is_made_up_for(
    count: int, every: int, history: History, read: Counter[str], monkeypatch: Any
) -> None:
    """By a schedule that is weekly, or a machine that is off every other night."""
    monkeypatch.setattr(rolling, "_newest_content", lambda *_arguments: [])
    history.begin(*AGES)
    artifacts = {a.path for manifest in history.taken.values() for a in manifest.artifacts()}

    nights(count, every=every)

    assert {path for path in artifacts if not read[path]} == set()


def test_share_of_a_destination_that_was_away_is_read_when_it_is_back(
    line_that_is_cut: History, read: Counter[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(rolling, "_newest_content", lambda *_arguments: [])
    packs = {pack.path for m in line_that_is_cut.taken.values() for pack in m.packs}
    start = datetime.now(UTC)
    project = api.build_project()
    for number in range(6):
        with contextlib.suppress(DestinationError):
            rolling.run(project, start + timedelta(days=number), api.Silent())
    monkeypatch.setattr(CutOff, "cut", False)
    read.clear()

    rolling.run(project, start + timedelta(days=6), api.Silent())

    assert {path for path in packs if not read[path]} == set()


def test_newest_is_verified_the_whole_way_down(history: History) -> None:
    history.begin(3, 2, 1)

    (found,) = nights(1)

    assert [one.name for one in found].count(history.name(1)) == 2


def test_newest_that_must_be_fetched_is_read_whole_once_a_week(
    history: History, monkeypatch: Any
) -> None:
    history.begin(1)
    monkeypatch.setattr(LocalDestination, "remote", True)
    levels: list[str] = []
    run = verify.run

    def noted(*arguments: Any, **options: Any) -> Any:
        levels.append(options["level"])
        return run(*arguments, **options)

    monkeypatch.setattr(verify, "run", noted)

    nights(rolling.NIGHTS)

    assert levels == ["content"]


def test_damaged_pack_is_found_for_all_that_need_it_and_stays_found(history: History) -> None:
    history.begin(*AGES)
    (shared,) = set.intersection(*(history.needed_packs(age) for age in AGES))
    volume = next((history.folder / "pool" / shared).iterdir())
    volume.write_bytes(volume.read_bytes()[:-1] + b"!")

    nights(rolling.NIGHTS)
    statuses = set(Copy.objects.values_list("status", flat=True))
    nights(2)

    assert statuses == {"damaged"}
    assert set(Copy.objects.values_list("status", flat=True)) == {"damaged"}


class CutOff(LocalDestination):
    """A folder that can be listed; once it is `cut`, nothing but manifests can be read in it."""

    cut = False

    def open(self, name: str) -> Reader:
        if self.cut and not name.endswith(MANIFEST):
            raise DestinationError("the line is cut", permanent=False)
        return super().open(name)


@pytest.fixture
def line_that_is_cut(history: History, monkeypatch: Any) -> History:
    """Two destinations, of which the first was good until its backups were made."""
    places = {
        name: {"BACKEND": backend, "OPTIONS": {"location": folder}, "RETRY_FOR": 0}
        for name, backend, folder in (
            ("offsite", f"{__name__}.CutOff", history.folder.with_name("offsite")),
            ("local", LOCAL, history.folder),
        )
    }
    history.configure(DESTINATIONS=places)
    history.take(2, 1)
    monkeypatch.setattr(CutOff, "cut", True)
    return history


def test_line_that_is_cut_says_nothing_of_what_is_stored(line_that_is_cut: History) -> None:
    night = datetime.now(UTC)

    outcome = api.run_job(job="verify", slot=night)
    verified = Copy.objects.exclude(verified_at=None).values_list("destination", flat=True)

    assert outcome.ending == "failed" and "the line is cut" in str(outcome.error)
    assert set(Copy.objects.values_list("status", flat=True)) == {"complete"}
    assert {*verified} == {"local"}
    assert not (line_that_is_cut.state / "damaged_packs.json").exists()


@pytest.mark.parametrize("level", ["stored", "content"])
def test_destination_that_goes_away_is_not_called_damaged(
    level: Level, line_that_is_cut: History
) -> None:
    results = api.verify(level=level)

    (away,) = [result for result in results if result.away]
    assert (away.destination, away.problems) == ("offsite", ("the line is cut",))
    assert [result.problems for result in results if not result.away] == [(), ()]
    assert set(Copy.objects.values_list("status", flat=True)) == {"complete"}


def test_no_backup_yet(history: History) -> None:
    history.folder.mkdir()

    assert nights(1) == [[]]
