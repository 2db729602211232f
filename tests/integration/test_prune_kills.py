"""Prune killed or failing in the middle: nothing good is lost, and the next one ends the work."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from mipyme_backup import api, catalog
from mipyme_backup.models import Backup, Copy
from mipyme_backup.monitoring import run_end
from tests import services
from tests.faulty import Dying, FailingOnce
from tests.integration.conftest import LOCAL
from tests.integration.pruning import History, ago, assert_all_good, history
from tests.unit.sources.forks import killed_at_line

__all__ = ["history"]
DYING = "tests.faulty.Dying"
FAILING = "tests.faulty.FailingOnce"
LINES = (
    "operations/deleting.py",
    "operations/leftovers.py",
    "destinations/local.py",
    *map(str, Path(catalog.__file__).parent.glob("*.py")),
)
SAMPLE = 8
KEPT = {70, 10, 1}
Reset = Callable[[], None]


@pytest.fixture
def reset(history: History) -> Reset:
    """Puts everything back: two backups are to go, and the packs of two that went before.

    Three others stay; one pack is shared by all.
    """
    history.begin(120, 110, 100, 90, 80, 70, 10, 1)
    with ago(30):
        api.prune()
    kept = history.folder.with_name("kept")
    for folder in (history.folder, history.state):
        shutil.copytree(folder, kept / folder.name)

    def reset() -> None:
        for folder in (history.folder, history.state):
            shutil.rmtree(folder)
            shutil.copytree(kept / folder.name, folder)
        Backup.objects.all().delete()
        api.backups(sync=True)

    return reset


@pytest.fixture
def undisturbed(history: History, reset: Reset) -> dict[str, Any]:
    """What a prune comes to that nobody kills; its deletions are left in `Dying`."""
    reset()
    dying(history, at=0)
    Dying.deletions.clear()
    assert not api.prune().failed
    assert history.held() == KEPT
    assert len(Dying.deletions) == 10, Dying.deletions
    return end_of(history)


def dying(history: History, **options: Any) -> None:
    history.places["local"].update(
        BACKEND=DYING, OPTIONS={"location": history.folder, **options}, RETRY_FOR=0
    )


def end_of(history: History) -> dict[str, Any]:
    noted = history.noted()["local"]
    folders = [path for path in history.folder.rglob("*") if path.is_dir()]
    return {
        "files": history.tree(),
        "empty folders": [str(f) for f in folders if f.name[0] != "." and not any(f.iterdir())],
        "deleting": noted["deleting"],
        "waiting": {*noted["since"]},
        "copies": dict(Copy.objects.values_list("backup__name", "status")),
    }


def killed(work: Callable[[], object]) -> bool:
    """Run `work` in a child; say whether it was killed, False where it came to its end."""
    connections.close_all()
    Dying.deletions.clear()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


def assert_mended(history: History, undisturbed: dict[str, Any], where: str) -> None:
    """Assert that nothing is lost after a kill, and that the next prune ends as it should."""
    assert history.held() >= KEPT, where
    assert_all_good()
    history.places["local"].update(BACKEND=LOCAL, OPTIONS={"location": history.folder})
    result = api.prune()
    assert not result.failed, f"{where}: {result.to_dict()}"
    assert end_of(history) == undisturbed, where
    assert_all_good(level="stored")


def test_kill_before_and_after_every_deletion(
    history: History, reset: Reset, undisturbed: dict[str, Any]
) -> None:
    names = [*Dying.deletions]
    after = [number for number, name in enumerate(names, 1) if name.endswith("manifest.json")]
    trials = [(number, True) for number in range(1, len(names) + 1)]
    trials += [(number, False) for number in (*after, len(names))]

    for at, before in trials:
        reset()
        dying(history, at=at, before=before)
        assert killed(api.prune)
        where = f"{'before' if before else 'after'} {names[at - 1]}"
        assert_mended(history, undisturbed, where)


@pytest.mark.parametrize(
    ("verb", "action"),
    [("delete", "raise"), ("delete", "raise_after"), ("open", "raise"), ("entries", "empty")],
)
def test_call_that_fails_loses_nothing(
    history: History,
    reset: Reset,
    undisturbed: dict[str, Any],
    verb: str,
    action: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_end, "check", lambda *_args, **_options: None)  # no part of the prune
    options = {"location": history.folder, "verb": verb, "action": action, "call": 0}
    reset()
    history.places["local"].update(BACKEND=FAILING, OPTIONS=options, RETRY_FOR=0)
    api.prune()

    for call in range(1, FailingOnce.made.calls[verb] + 1):
        reset()
        history.places["local"].update(BACKEND=FAILING, OPTIONS={**options, "call": call})
        result = api.prune()
        # What cannot be read once is kept, and that is no failure.
        assert result.failed is (verb != "open")
        history.places["local"].update(BACKEND=LOCAL, OPTIONS={"location": history.folder})
        assert_mended(history, undisturbed, f"call {call} of {verb}")


def test_kill_at_some_lines(
    history: History, reset: Reset, undisturbed: dict[str, Any], torture_random: random.Random
) -> None:
    assert_lines_survived(history, reset, undisturbed, torture_random, lambda _lines: SAMPLE)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_kill_at_every_line(
    history: History,
    reset: Reset,
    undisturbed: dict[str, Any],
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
) -> None:
    """In a slice, at some of them."""
    assert_lines_survived(
        history, reset, undisturbed, torture_random, lambda lines: scaled(lines, SAMPLE)
    )


def assert_lines_survived(
    history: History,
    reset: Reset,
    undisturbed: dict[str, Any],
    chance: random.Random,
    kills: Callable[[int], int],
) -> None:
    history.places["local"].update(BACKEND=LOCAL, OPTIONS={"location": history.folder})
    reset()
    count = lines_of_a_prune()
    for line in sorted(chance.sample(range(1, count + 1), kills(count))):
        reset()
        connections.close_all()
        assert killed_at_line(line, api.prune, LINES)
        assert_mended(history, undisturbed, f"line {line} of {count}")


def lines_of_a_prune() -> int:
    """Return how many lines of the files `LINES` a prune runs."""
    import sys

    count = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(LINES):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        api.prune()
    finally:
        sys.settrace(before)
    return count


@pytest.fixture
def s3(settings: Any) -> Iterator[services.S3Server]:
    with services.s3() as server:
        settings.STORAGES = {
            **settings.STORAGES,
            "s3": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": server.options()},
        }
        yield server


def test_on_s3_a_prune_that_is_killed_after_each_deletion_comes_to_its_end(
    history: History, reset: Reset, undisturbed: dict[str, Any], s3: services.S3Server
) -> None:
    reset()
    assert s3.folder is not None
    for name in history.tree():
        (s3.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(history.folder / name, s3.folder / name)
    history.places["local"].update(
        BACKEND=DYING, OPTIONS={"storage": "s3", "at": 1, "before": False}
    )
    history.configure(ENCRYPTION=None)
    # Remote: the daily ones would be kept for 90 days there.
    history.places["local"]["RETENTION"] = {"daily": 30}

    kills = 0
    while killed(api.prune):
        kills += 1
        assert kills <= 10
        assert history.held(s3.folder) >= KEPT
        assert_all_good()

    assert kills == 10
    assert not api.prune().failed
    left = {key: value for key, value in undisturbed.items() if key != "empty folders"}
    noted = history.noted()["local"]
    assert left == {
        "files": history.tree(s3.folder),
        "deleting": noted["deleting"],
        "waiting": {*noted["since"]},
        "copies": dict(Copy.objects.values_list("backup__name", "status")),
    }
    with contextlib.suppress(FileNotFoundError):
        assert not [*(s3.folder / Path(history.name(90))).iterdir()]
