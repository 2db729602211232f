"""Swapping media folders: killed before any line, both ways, and on a real mount.

In `make test-all` it is killed before every single line, otherwise before
every `STEP`th, from a random one on.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mipyme_backup.errors import RestoreError
from mipyme_backup.sources.media import kernel
from mipyme_backup.sources.media.entry_swap import EntrySwap
from mipyme_backup.sources.media.folder_swap import FolderSwap
from mipyme_backup.sources.media.folders import held
from mipyme_backup.sources.media.swap import Swap
from tests.unit.sources.forks import NOBODY, in_child, killed_at_line
from tests.unit.sources.media_trees import texts

CODE = ("media/swap.py", "media/entry_swap.py", "media/folder_swap.py", "private_files.py")
DEEP = (*CODE, "mipyme_backup/removal.py")
OLD = {"both": b"old", "old/below": b"old", "was folder/x": b"old", "was file": b"old"}
NEW = {"both": b"new", "new/below": b"new", "was folder": b"new", "was file/x": b"new"}

STEP = 1 if os.environ.get("TESTS") else 8
DEEP_STEP = 1 if os.environ.get("TESTS") else 24
pytestmark = pytest.mark.longer

KINDS: dict[str, Callable[[Path], Swap]] = {
    "exchange": lambda live: FolderSwap(live, "id"),
    "two renames": lambda live: FolderSwap(live, "id", atomic=False),
    "entries": lambda live: EntrySwap(live, "id"),
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def make(request: pytest.FixtureRequest) -> Callable[[Path], Swap]:
    return request.param  # type: ignore[no-any-return]


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def ready(folder: Path, make: Callable[[Path], Swap]) -> Swap:
    """Return a swap with an old live folder and a restored side."""
    swap = make(folder / "media")
    fill(swap.live, OLD)
    swap.live.chmod(0o751)
    fill(swap.side, NEW)
    mark(swap)
    return swap


def mark(swap: Swap) -> None:
    with held(swap.side) as side:
        swap.mark_in(side)


def own_names(swap: Swap) -> list[str]:
    folders = {swap.beside, swap.live} if swap.live.exists() else {swap.beside}
    names = [name for folder in folders for name in os.listdir(folder)]
    return sorted(name for name in names if name.startswith(".mipyme_backup_"))


def each_kill(
    tmp_path: Path,
    make: Callable[[Path], Swap],
    before: Callable[[Swap], object],
    work: Callable[[Swap], object],
    code: tuple[str, ...] = CODE,
) -> Iterator[Swap]:
    """Yield a swap as a kill before each `STEP`th line of `work` leaves it."""
    step = DEEP_STEP if code is DEEP else STEP
    first = random.Random(f"{os.environ['TORTURE_SEED']}:{tmp_path.name}").randint(1, step)
    for number in itertools.count(first, step):
        folder = tmp_path / str(number)
        folder.mkdir()
        swap = ready(folder, make)
        before(swap)
        if not killed_at_line(number, lambda swap=swap: work(swap), code):  # type: ignore[misc]
            assert number > 5
            return
        yield make(swap.live)


def nothing(_swap: Swap) -> None:
    pass


def swapped(swap: Swap) -> None:
    swap.swap()


def test_swap_and_undo(tmp_path: Path, make: Callable[[Path], Swap]) -> None:
    swap = ready(tmp_path, make)

    began = time.monotonic()
    seconds = swap.swap()
    took = time.monotonic() - began

    assert texts(swap.live) == NEW
    assert texts(swap.before) == OLD
    assert swap.live.stat().st_mode & 0o777 == 0o751
    assert 0 <= seconds <= took
    assert own_names(swap) == [".mipyme_backup_before_id"]
    assert swap.swap() == 0.0
    assert texts(swap.live) == NEW
    swap.undo()
    assert texts(swap.live) == OLD
    swap.undo()
    assert texts(swap.live) == OLD
    swap.discard()
    assert own_names(swap) == []
    assert texts(swap.live) == OLD


def test_a_kill_before_any_line_of_swap_is_finished_by_swap(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    for swap in each_kill(tmp_path, make, nothing, swapped):
        swap.swap()

        assert texts(swap.live) == NEW
        assert texts(swap.before) == OLD
        assert own_names(swap) == [".mipyme_backup_before_id"]


def test_a_kill_before_any_line_of_swap_is_rolled_back_by_discard(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    for swap in each_kill(tmp_path, make, nothing, swapped):
        finished = (
            own_names(swap) == [".mipyme_backup_before_id"]
            and not (swap.live / ".mipyme_backup_loaded_id").exists()
        )

        swap.discard()

        if not finished:
            assert texts(swap.live) == OLD
            assert own_names(swap) == []


def test_a_kill_before_any_line_of_undo_is_finished_by_undo(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    for swap in each_kill(tmp_path, make, swapped, lambda swap: swap.undo()):
        swap.undo()

        assert texts(swap.live) == OLD
        assert texts(swap.side) == NEW
        swap.discard()
        assert own_names(swap) == []


def test_a_kill_before_any_line_of_undo_can_still_be_swapped(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    for swap in each_kill(tmp_path, make, swapped, lambda swap: swap.undo()):
        swap.swap()

        assert texts(swap.live) == NEW
        assert texts(swap.before) == OLD


def test_a_kill_before_any_line_of_swap_can_still_be_undone(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    for swap in each_kill(tmp_path, make, nothing, swapped):
        if not swap.begun:
            continue
        swap.undo()

        assert texts(swap.live) == OLD


def test_a_kill_before_any_line_of_discard_or_removal_is_finished(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    (tmp_path / "discard").mkdir()
    (tmp_path / "remove").mkdir()
    for swap in each_kill(tmp_path / "discard", make, nothing, lambda s: s.discard(), DEEP):
        swap.discard()
        assert texts(swap.live) == OLD
        assert own_names(swap) == []
    for swap in each_kill(tmp_path / "remove", make, swapped, lambda s: s.remove_replaced(), DEEP):
        swap.remove_replaced()
        assert texts(swap.live) == NEW
        assert own_names(swap) == []


def test_an_exchange_leaves_live_whole_at_any_kill(tmp_path: Path) -> None:
    for swap in each_kill(tmp_path, KINDS["exchange"], nothing, swapped):
        assert texts(swap.live) in (OLD, NEW)


def test_uploads_made_after_a_kill_are_kept(tmp_path: Path, make: Callable[[Path], Swap]) -> None:
    for swap in each_kill(tmp_path, make, nothing, swapped):
        fill(swap.live, {"new upload": b"late"})

        swap.swap()

        kept = [texts(folder) for folder in (swap.live, swap.before, swap.late) if folder.exists()]
        assert any("new upload" in files for files in kept)
        assert {name: texts(swap.live).get(name) for name in NEW} == NEW


def test_a_side_that_was_not_loaded_whole_is_not_swapped_in(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    swap = ready(tmp_path, make)
    (swap.side / ".mipyme_backup_loaded_id").unlink()

    with pytest.raises(RestoreError, match="no restored media folder"):
        swap.swap()

    assert texts(swap.live) == OLD


def test_undo_without_what_was_replaced_is_an_error(
    tmp_path: Path, make: Callable[[Path], Swap]
) -> None:
    swap = ready(tmp_path, make)
    swap.swap()
    swap.remove_replaced()

    with pytest.raises(RestoreError, match="no longer"):
        swap.undo()

    assert texts(swap.live) == NEW


@pytest.mark.parametrize("supported", [True, False], ids=["renameat2", "rename"])
def test_a_move_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    if not supported:
        monkeypatch.setattr(kernel, "_rename", lambda *_arguments: False)
    fill(tmp_path / "one", {"free": b"1", "taken": b"1", "link": b"1"})
    fill(tmp_path / "other", {"taken": b"other"})
    (tmp_path / "other" / "link").symlink_to("nowhere")

    with held(tmp_path / "one") as one, held(tmp_path / "other") as other:
        one.move("free", into=other)
        for name in ("taken", "link"):
            with pytest.raises(FileExistsError):
                one.move(name, into=other)

    assert texts(tmp_path) == {
        "one/link": b"1",
        "one/taken": b"1",
        "other/free": b"1",
        "other/taken": b"other",
    }


def test_a_live_folder_that_does_not_exist_is_made(tmp_path: Path) -> None:
    swap = FolderSwap(tmp_path / "media", "id")
    fill(swap.side, NEW)
    mark(swap)

    swap.swap()

    assert texts(swap.live) == NEW
    assert swap.live.stat().st_mode & 0o777 == 0o755
    swap.undo()
    assert texts(swap.live) == {}


def test_a_mount_point_inside_the_media_folder_stops_the_swap_before_it_begins(
    tmp_path: Path,
) -> None:
    swap = ready(tmp_path, KINDS["entries"])
    (swap.live / "zz").mkdir()
    script = (
        "import sys; from pathlib import Path;"
        "from mipyme_backup.sources.media.entry_swap import EntrySwap;"
        "EntrySwap(Path(sys.argv[1]), 'id').swap()"
    )

    outcome = in_mount_namespace(f"mount -t tmpfs none {swap.live / 'zz'}", script, swap.live)

    assert "is a mount point" in outcome.stderr
    assert texts(swap.live) == OLD
    assert not swap.begun


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two owners")
def test_entries_that_cannot_be_moved_are_all_put_back(workdir: Path) -> None:
    swap = ready(workdir, KINDS["entries"])
    workdir.chmod(0o755)
    for path in (swap.live, *swap.live.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    (swap.live / "zz").mkdir()  # not theirs: it cannot be moved to another parent

    def try_to_swap() -> str:
        with pytest.raises(RestoreError) as refusal:
            swap.swap()
        return str(refusal.value)

    answer = in_child(try_to_swap, nobody=True)

    assert "cannot be moved" in answer
    assert texts(swap.live) == OLD
    assert texts(swap.side) == NEW
    assert not swap.begun


def test_a_mounted_media_folder_is_found_out_and_swapped_inside(tmp_path: Path) -> None:
    live, volume = tmp_path / "media", tmp_path / "volume"
    live.mkdir()
    fill(volume, OLD)
    (volume / "lost+found").mkdir()
    script = (
        "import sys; from pathlib import Path;"
        "from mipyme_backup.sources.media import MediaTarget;"
        "from tests.unit.sources.media_trees import Saved, write, texts, opener;"
        "target = MediaTarget.prepare(location=Path(sys.argv[1]), restore_id='id');"
        "assert target.state['inside'];"
        'target.load({\'media.index.jsonl\': opener(b\'{"path": "empty/", "mode": 493}\\n\')});'
        "target.swap();"
        "print(target.plan()[1])"
    )

    outcome = in_mount_namespace(f"mount --bind {volume} {live}", script, live)

    assert outcome.returncode == 0, outcome.stderr
    assert "mount point" in outcome.stdout
    assert sorted(os.listdir(volume)) == [".mipyme_backup_before_id", "empty", "lost+found"]
    assert texts(volume / ".mipyme_backup_before_id") == OLD


def in_mount_namespace(mount: str, script: str, live: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code where something is mounted that nobody else sees."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine allows no mount namespaces (unshare --mount)")
    shell = f'{mount} && exec "$@"'
    argv = [*unshare, "sh", "-c", shell, "sh", sys.executable, "-c", script, str(live)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)
