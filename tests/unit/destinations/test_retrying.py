"""Passing errors are tried again within the budget, permanent ones not; a reader resumes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mipyme_backup.destinations import LocalDestination
from mipyme_backup.destinations import retrying as module
from mipyme_backup.destinations.retrying import RetryingDestination
from mipyme_backup.errors import DestinationError
from mipyme_backup.process import Reader
from mipyme_backup.testing import DestinationContract, Fault, FaultyDestination, read_whole


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    path.write_bytes(b"content" * 1000)
    return path


def retrying(
    tmp_path: Path, *faults: Fault, seconds: float = 5
) -> tuple[RetryingDestination, FaultyDestination]:
    inner = FaultyDestination(LocalDestination(location=tmp_path / "backups"), *faults)
    return RetryingDestination(inner, name="far", seconds=seconds), inner


class TestContract(DestinationContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> RetryingDestination:
        return retrying(tmp_path)[0]


def test_passing_error_is_tried_again(tmp_path: Path, file: Path) -> None:
    destination, inner = retrying(tmp_path, Fault(verb="put", last=3))

    destination.put("backup/object", file)

    assert inner.calls["put"] == 4
    assert read_whole(destination.open("backup/object")) == file.read_bytes()


def test_permanent_error_fails_at_once(tmp_path: Path, file: Path) -> None:
    error = DestinationError("the bucket is not there", permanent=True)
    destination, inner = retrying(tmp_path, Fault(verb="put", last=9, error=error))

    with pytest.raises(DestinationError, match="bucket"):
        destination.put("backup/object", file)

    assert inner.calls["put"] == 1


def test_budget_ends(tmp_path: Path, file: Path) -> None:
    destination, inner = retrying(tmp_path, Fault(verb="put", last=10**6), seconds=2)

    with pytest.raises(DestinationError):
        destination.put("backup/object", file)

    assert 2 < inner.calls["put"] < 20


def test_check_is_not_tried_again(tmp_path: Path) -> None:
    destination, inner = retrying(tmp_path, Fault(verb="check"))

    with pytest.raises(DestinationError):
        destination.check()

    assert inner.calls["check"] == 1


def test_reader_that_breaks_off_goes_on_where_it_was(tmp_path: Path, file: Path) -> None:
    class Breaking(LocalDestination):
        opened = 0

        def open(self, name: str) -> Reader:
            type(self).opened += 1
            return _BreaksAfter(super().open(name), 1500 * self.opened)

    inner = Breaking(location=tmp_path / "backups")
    destination = RetryingDestination(inner, name="far", seconds=5)
    destination.put("backup/object", file)

    assert read_whole(destination.open("backup/object"), 400) == file.read_bytes()
    assert Breaking.opened > 3


def test_error_on_the_way_back_loses_the_place_but_no_byte(tmp_path: Path, file: Path) -> None:
    class Breaking(LocalDestination):
        lives = iter([1500, 700, 10**6])

        def open(self, name: str) -> Reader:
            return _BreaksAfter(super().open(name), next(self.lives), for_good=False)

    file.write_bytes(bytes(range(251)) * 20)
    destination = RetryingDestination(
        Breaking(location=tmp_path / "backups"), name="far", seconds=5
    )
    destination.put("backup/object", file)

    assert read_whole(destination.open("backup/object"), 400) == file.read_bytes()


def test_object_that_became_shorter_while_it_was_read_has_no_end(
    tmp_path: Path, file: Path
) -> None:
    class Breaking(LocalDestination):
        def open(self, name: str) -> Reader:
            return _BreaksAfter(super().open(name), 1500)

    destination = RetryingDestination(
        Breaking(location=tmp_path / "backups"), name="far", seconds=5
    )
    destination.put("backup/object", file)
    reader = destination.open("backup/object")
    first = reader.read(300)
    file.unlink()
    file.touch(mode=0o600)
    destination.put("backup/object", file)

    with pytest.raises(DestinationError, match="shorter"):
        first += read_whole(reader)


def test_one_call_at_a_time_reaches_what_is_inside(tmp_path: Path, file: Path) -> None:
    inside: list[int] = []

    class Watched(LocalDestination):
        def put(self, name: str, file: Path) -> None:
            inside.append(1)
            assert sum(inside) == 1
            time.sleep(0.01)
            super().put(name, file)
            inside.append(-1)

    destination = RetryingDestination(Watched(location=tmp_path / "backups"), name="far", seconds=0)
    threads = [
        threading.Thread(target=destination.put, args=(f"backup/{number}", file))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(list(destination.entries())) == 8


class _BreaksAfter:
    def __init__(self, reader: Reader, size: int, *, for_good: bool = True) -> None:
        self._reader = reader
        self._left = size
        self._for_good = for_good

    def read(self, size: int, /) -> bytes:
        data = self._reader.read(min(size, 300))
        self._left -= len(data)
        if self._left < 0:
            self._left = 0 if self._for_good else 10**6
            raise DestinationError("the line is cut", permanent=False)
        return data

    def close(self) -> None:
        self._reader.close()
