"""A swap entry by entry that one user began, was killed in, and another user goes on with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mipyme_backup.errors import BackupError, RestoreError
from mipyme_backup.sources.media.swap import Swap
from tests.unit.sources.forks import NOBODY, in_child, killed_at_line
from tests.unit.sources.media_trees import contents, texts
from tests.unit.sources.test_media_swap import (
    CODE,
    KINDS,
    NEW,
    OLD,
    each_kill,
    own_names,
    ready,
)

OTHER = 4321
"""A user id that is neither root nor the owner of the media."""
LISTS = (".mipyme_backup_swap_leaving_id", ".mipyme_backup_swap_entering_id")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two owners")


@pytest.fixture
def site(workdir: Path) -> Path:
    workdir.chmod(0o755)
    return workdir


def give(swap: Swap) -> None:
    for path in (swap.beside, *swap.beside.rglob("*")):
        os.chown(path, NOBODY, NOBODY)


def as_nobody(work: Callable[[Swap], object]) -> Callable[[Swap], None]:
    def work_without_privileges(swap: Swap) -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        work(swap)

    return work_without_privileges


def swapped_and_given(swap: Swap) -> None:
    swap.swap()
    give(swap)


def killed_half_way(site: Path, work: Callable[[Swap], object]) -> Swap:
    """Return a swap of the user NOBODY's media, in which `work` was killed among the moves."""
    for number in range(100, 1000, 4):
        folder = site / str(number)
        folder.mkdir()
        swap = ready(folder, KINDS["entries"])
        give(swap)
        assert killed_at_line(number, lambda swap=swap: work(swap), CODE)  # type: ignore[misc]
        if has_come_in(swap):
            return swap
    raise AssertionError("no kill left a swap half done")


def has_come_in(swap: Swap) -> bool:
    return any(
        (swap.live / name).exists() and (swap.live / name).read_bytes() == b"new"
        for name in ("both", "new/below")
    )


def test_root_finishes_a_swap_that_the_owner_of_the_media_began(site: Path) -> None:
    for swap in each_kill(site, KINDS["entries"], give, as_nobody(lambda swap: swap.swap())):
        swap.swap()

        assert texts(swap.live) == NEW
        assert texts(swap.before) == OLD
        assert own_names(swap) == [".mipyme_backup_before_id"]


def test_root_takes_back_a_swap_that_the_owner_of_the_media_began(site: Path) -> None:
    for swap in each_kill(site, KINDS["entries"], give, as_nobody(lambda swap: swap.swap())):
        if not swap.begun:
            continue
        swap.undo()

        assert texts(swap.live) == OLD
        assert texts(swap.side) == NEW
        swap.discard()
        assert own_names(swap) == []


def test_root_finishes_an_undo_that_the_owner_of_the_media_began(site: Path) -> None:
    began = as_nobody(lambda swap: swap.undo())
    for swap in each_kill(site, KINDS["entries"], swapped_and_given, began):
        swap.undo()

        assert texts(swap.live) == OLD
        assert texts(swap.side) == NEW


def test_root_is_told_to_go_on_as_the_third_user_that_began(site: Path) -> None:
    swap = killed_half_way(site, as_nobody(lambda swap: swap.swap()))
    for name in LISTS:
        if (swap.live / name).exists():
            os.chown(swap.live / name, OTHER, OTHER)
    before = contents(swap.live)

    for step in (swap.swap, swap.undo, swap.discard):
        with pytest.raises(RestoreError, match="user with the id 4321") as refusal:
            step()
        assert "sudo -u '#4321'" in str(refusal.value.hint)
        assert "delete the file" not in str(refusal.value.hint)

    assert contents(swap.live) == before


def test_another_user_is_told_to_go_on_as_root_with_what_root_began(site: Path) -> None:
    swap = killed_half_way(site, lambda swap: swap.swap())
    before = contents(swap.live)

    def go_on() -> list[str]:
        answers = []
        for step in (swap.swap, swap.undo, swap.discard):
            try:
                step()
            except BackupError as error:
                answers.append(f"{error} {error.hint}")
        return answers

    answers = in_child(go_on, nobody=True)

    assert len(answers) == 3
    for answer in answers:
        assert "user with the id 0" in answer
        assert "sudo -u '#0'" in answer
    assert contents(swap.live) == before
    swap.swap()
    assert texts(swap.live) == NEW
    assert texts(swap.before) == OLD


def test_another_user_is_told_to_go_on_as_root_with_what_root_loaded(site: Path) -> None:
    swap = ready(site, KINDS["entries"])
    give(swap)
    os.chown(swap.side, 0, 0)
    swap.side.chmod(0o700)

    def go_on() -> str:
        with pytest.raises(RestoreError) as refusal:
            swap.swap()
        return str(refusal.value.hint)

    assert "the user that began the restore" in in_child(go_on, nobody=True)
    assert texts(swap.live) == OLD


def test_a_swap_whose_list_is_gone_is_not_taken_for_one_that_never_began(site: Path) -> None:
    swap = killed_half_way(site, lambda swap: swap.swap())
    for name in LISTS:
        (swap.live / name).unlink(missing_ok=True)
    before = contents(swap.live)

    for step in (swap.swap, swap.undo, swap.discard):
        with pytest.raises(RestoreError, match="cannot be told apart") as refusal:
            step()
        assert str(swap.before) in str(refusal.value.hint)
        assert str(swap.side) in str(refusal.value.hint)

    assert contents(swap.live) == before


@pytest.mark.parametrize(
    "content", [b"", b"x\0../up\0", b"x\0" + b"a" * 5000], ids=["nothing", "up", "no end"]
)
def test_root_moves_nothing_by_a_list_that_another_user_made_up(site: Path, content: bytes) -> None:
    """One of "nothing" is of 1 TB: to hold it in memory would end the process."""
    swap = ready(site, KINDS["entries"])
    give(swap)
    made_up = swap.live / LISTS[0]
    made_up.write_bytes(content)
    if not content:
        os.truncate(made_up, 1 << 40)
    os.chown(made_up, NOBODY, NOBODY)

    with pytest.raises(RestoreError, match="not a list that this restore wrote"):
        swap.swap()

    assert texts(swap.live) == OLD
