"""Every destination keeps the contract, and a faulty one breaks it as planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipyme_backup.destinations import Destination, LocalDestination
from mipyme_backup.errors import DestinationError, ObjectMissingError
from mipyme_backup.testing import DestinationContract, Fault, FaultyDestination, read_whole


class TestLocalDestination(DestinationContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Destination:
        return LocalDestination(location=tmp_path / "backups")


class TestFaultyDestinationWithoutFaults(DestinationContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Destination:
        return FaultyDestination(LocalDestination(location=tmp_path / "backups"))


@pytest.fixture
def local(tmp_path: Path) -> LocalDestination:
    destination = LocalDestination(location=tmp_path / "backups")
    destination.check()
    return destination


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "spooled"
    file.write_bytes(b"0123456789")
    return file


def test_only_the_planned_call_fails(local: LocalDestination, file: Path) -> None:
    faulty = FaultyDestination(local, Fault(verb="put", first=2))
    faulty.put("a", file)

    with pytest.raises(DestinationError) as caught:
        faulty.put("b", file)
    faulty.put("c", file)

    assert not caught.value.permanent
    assert [entry.name for entry in local.entries()] == ["a", "c"]
    assert faulty.calls["put"] == 3


def test_a_planned_error_is_the_one_raised(local: LocalDestination) -> None:
    error = ObjectMissingError("gone")
    faulty = FaultyDestination(local, Fault(verb="size", last=9, error=error))

    for _turn in range(9):
        with pytest.raises(ObjectMissingError) as caught:
            faulty.size("a")
        assert caught.value is error
    assert faulty.size("a") is None


def test_a_lost_answer_leaves_the_work_done(local: LocalDestination, file: Path) -> None:
    faulty = FaultyDestination(
        local, Fault(verb="put", action="raise_after"), Fault(verb="delete", action="raise_after")
    )

    with pytest.raises(DestinationError):
        faulty.put("a", file)
    assert local.size("a") == 10

    with pytest.raises(DestinationError):
        faulty.delete("a")
    assert local.size("a") is None


def test_a_short_write_leaves_half_behind_and_fails(local: LocalDestination, file: Path) -> None:
    faulty = FaultyDestination(local, Fault(verb="put", action="short_write"))

    with pytest.raises(DestinationError):
        faulty.put("a", file)

    assert read_whole(local.open("a")) == b"01234"
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == ["spooled"]


@pytest.mark.parametrize("verb", ["put", "open"])
def test_bytes_are_lost_or_changed_without_a_word(
    verb: str, local: LocalDestination, file: Path
) -> None:
    faulty = FaultyDestination(
        local,
        Fault(verb=verb, action="truncate"),  # type: ignore[arg-type]
        Fault(verb=verb, action="corrupt", first=2),  # type: ignore[arg-type]
    )
    seen = []
    for name in ("a", "b", "c"):
        faulty.put(name, file)
        seen.append(read_whole(faulty.open(name)))

    assert seen == [b"01234", b"0123446789", b"0123456789"]


def test_a_listing_comes_back_empty(local: LocalDestination, file: Path) -> None:
    local.put("a", file)
    faulty = FaultyDestination(local, Fault(verb="entries", action="empty"))

    assert list(faulty.entries()) == []
    assert [entry.name for entry in faulty.entries()] == ["a"]


def test_a_fault_that_a_verb_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="size cannot corrupt"):
        Fault(verb="size", action="corrupt")
