"""A group that the operator gave the state to is no stranger; any other group is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipyme_backup.errors import StateError
from mipyme_backup.state import State
from tests import pod

RECORD = "restores/ab12.json"


@pytest.fixture
def group() -> Iterator[int]:
    with pod.of_group() as group:
        yield group


@pytest.fixture
def state(tmp_path: Path) -> State:
    kept = State(tmp_path / "volume" / "state")
    kept.write(RECORD, {"phase": "swapping"})
    return kept


def modes(state: State) -> list[int]:
    places = [(state.folder / "restores"), state.folder / RECORD]
    return [place.stat().st_mode & 0o7777 for place in places]


def set_aside(state: State) -> list[Path]:
    return [*state.folder.rglob("*.ignored-*")]


def test_what_a_restarted_pod_finds_counts_and_is_private_again(state: State, group: int) -> None:
    pod.restart(state.folder, group)

    assert state.names("restores") == [RECORD]
    assert state.read(RECORD) == {"phase": "swapping"}
    assert modes(state) == [0o700, 0o600]


def test_folders_that_a_restarted_pod_finds_are_used(state: State, group: int) -> None:
    pod.restart(state.folder, group)

    state.make("restores")

    assert set_aside(state) == []
    assert modes(state)[0] == 0o700


def test_group_that_this_process_is_no_member_of_is_a_stranger(state: State) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to a group that it is not in")
    pod.restart(state.folder, pod.GROUP)

    with pytest.raises(StateError, match="others may write"):
        state.read(RECORD)
    assert modes(state) == [0o2770, 0o660]


@pytest.mark.parametrize("folder_mode", [0o700, 0o750])
def test_group_that_the_folder_itself_is_not_open_to_is_a_stranger(
    folder_mode: int, state: State, group: int
) -> None:
    pod.restart(state.folder, group)
    state.folder.chmod(folder_mode)

    with pytest.raises(StateError, match="others may write"):
        state.read(RECORD)


def test_group_that_the_folder_itself_is_not_of_is_a_stranger(state: State, group: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("a user of one group cannot make that")
    pod.restart(state.folder, group)
    os.chown(state.folder, -1, 0)

    with pytest.raises(StateError, match="others may write"):
        state.read(RECORD)


@pytest.mark.parametrize("name", ["restores", RECORD])
def test_what_all_may_write_to_counts_for_no_group(name: str, state: State, group: int) -> None:
    pod.restart(state.folder, group)
    (state.folder / name).chmod(0o777)

    with pytest.raises(StateError, match="others may write"):
        state.read(RECORD)


def test_file_of_another_user_in_that_group_does_not_count(state: State, group: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    pod.restart(state.folder, group)
    os.chown(state.folder, 0, group)
    os.chown(state.folder / RECORD, 12345, group)

    with pytest.raises(StateError, match="another user"):
        state.read(RECORD)


def test_what_was_set_aside_is_named_until_it_is_removed(state: State) -> None:
    (state.folder / "restores").chmod(0o777)

    state.make("restores")

    (name,) = state.names_set_aside()
    assert name.startswith("restores.ignored-")
    assert (state.folder / name / "ab12.json").exists()
    (state.folder / name).rename(state.folder.parent / "elsewhere")
    assert state.names_set_aside() == []
