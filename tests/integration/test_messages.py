"""Messages of another's making to each task: refused in one line, and rationed where they are good.

A broker without a password takes them from anyone on its network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
import time_machine
from django.contrib.auth.models import User

from mipyme_backup import api, tasks
from mipyme_backup.api.given import zone
from mipyme_backup.guarded_task import RETRIES, TaskError
from mipyme_backup.models import Backup, Drill, Task
from mipyme_backup.operations import scheduled
from mipyme_backup.schedule import last_slot
from tests.integration.asking import ASK, PASSWORD, logged_in, run_newest

CANARY = "canary-of-a-message"
DIRECT = ("backup", "complete", "verify", "prune", "status", "drill")
TAKES = {
    "run_job": {"job": "daily", "slot": "2001-01-01T02:00:00+00:00"},
    "run_task": {"task_id": "0123456789abcdef"},
    "complete": {"identifier": "x"},
}
"""What a task needs to be called in its proper form."""

ODD: list[Any] = [
    None,
    7,
    float("inf"),
    True,
    [7],
    {"a": [{"b": [CANARY]}]},
    CANARY.encode(),
    CANARY * 100_000,
    f"x\n{CANARY}",
    f"\x1b[2J{CANARY}",
    f"\u202e{CANARY}",
]
EXTRA: list[dict[str, Any]] = [
    {"slot2": CANARY},
    {f"x\n\x1b[2J{CANARY}": 1},
    {"self": CANARY},
    {f"argument{number}": CANARY for number in range(1000)},
]
OPTIONAL = {"backup": ("kind", "label"), "verify": ("identifiers", "level"), "drill": ("language",)}
EVERY = ("run_due", "run_job", "run_task", *DIRECT)


@pytest.fixture(autouse=True)
def _in_the_middle_of_an_hour() -> Iterator[None]:
    """An hour that ends while a test runs would let the next message through."""
    middle = datetime.now(UTC).replace(minute=10)
    with time_machine.travel(middle):
        yield


@pytest.fixture(autouse=True)
def _shop(backups: Path, broker: celery.Celery) -> None:
    """A project with a broker and no backup yet."""


class TestArguments:
    @pytest.mark.parametrize("verb", [*TAKES, *OPTIONAL])
    def test_value_of_another_kind(self, verb: str, caplog: Any) -> None:
        for name in (*TAKES.get(verb, {}), *OPTIONAL.get(verb, ())):
            for odd in ODD:
                if (name, odd) != ("language", None):  # that is its default
                    _check_refused(_receive(verb, {**TAKES.get(verb, {}), name: odd}), caplog)

    @pytest.mark.parametrize("verb", EVERY)
    def test_argument_that_it_has_not(self, verb: str, caplog: Any) -> None:
        for extra in EXTRA:
            _check_refused(_receive(verb, {**TAKES.get(verb, {}), **extra}), caplog)
        _check_refused(_receive(verb, TAKES.get(verb), (CANARY,)), caplog)

    @pytest.mark.parametrize("verb", TAKES)
    def test_argument_that_it_lacks(self, verb: str, caplog: Any) -> None:
        _check_refused(_receive(verb, {}), caplog)

    def test_ten_thousand_backups_to_verify(self, caplog: Any) -> None:
        _check_refused(_receive("verify", {"identifiers": [CANARY] * 10_000}), caplog)

    def test_count_of_retries_that_we_did_not_write(self, caplog: Any) -> None:
        """Two to the power of it is how long the next retry waits."""
        for retries in (-(10**6), 10**9, "7", [1], 1.5, True):
            given: Any = retries
            _check_refused(tasks.backup.apply(kwargs={}, retries=given, throw=False), caplog)


class TestRation:
    def test_a_hundred_backups_in_an_hour_are_one(self) -> None:
        first = _receive("backup")
        others = [
            _receive("backup", {"label": f"number {number}", "kind": kind})
            for number in range(25)
            for kind in api.KINDS
        ]

        assert first.state == "SUCCESS"
        assert {result.state for result in others} == {"FAILURE"}
        assert "python manage.py backup" in str(others[0].result)
        assert [row.label for row in Backup.objects.all()] == [""]

    def test_next_hour_has_another(self) -> None:
        _receive("backup")
        with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
            assert _receive("backup").state == "SUCCESS"

        assert Backup.objects.count() == 2

    def test_clock_that_was_ahead_starves_no_one(self) -> None:
        with time_machine.travel(datetime.now(UTC) + timedelta(days=400)):
            _receive("backup")

        assert _receive("backup").state == "SUCCESS"

    @pytest.mark.parametrize("verb", ["verify", "prune", "status", "drill"])
    def test_each_verb_has_its_own(self, verb: str) -> None:
        _receive("backup")

        assert [_receive(verb).state for _time in range(3)] == ["SUCCESS", "FAILURE", "FAILURE"]

    def test_failing_one_is_tried_a_few_times(
        self, backups: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that was killed has its message come back: so one attempt is too few."""
        tried = []
        begun = scheduled._begin

        def count(*args: Any) -> Any:
            tried.append(args)
            return begun(*args)

        monkeypatch.setattr(scheduled, "_begin", count)
        (backups.parent / "passphrase").unlink()

        results = [_receive("backup") for _time in range(20)]

        assert {result.state for result in results} == {"FAILURE"}
        assert "passphrase" in str(results[0].result)
        assert len(tried) == 1 + RETRIES

    def test_failing_slot_is_tried_a_few_times(self, backups: Path) -> None:
        (backups.parent / "passphrase").unlink()
        slot = last_slot("0 2 * * *", datetime.now(UTC), zone())
        assert slot is not None

        results = [
            _receive("run_job", {"job": "daily", "slot": slot.isoformat()}).result
            for _time in range(20)
        ]

        endings = [result["outcome"] for result in results]
        assert endings == ["failed"] * (1 + RETRIES) + ["not_due"] * (19 - RETRIES)

    def test_what_is_asked_for_in_the_admin_is_not_rationed(self) -> None:
        _receive("backup")
        root = logged_in(User.objects.create_superuser("root", password=PASSWORD))
        for number in range(2):
            root.post(ASK, {"verb": "backup", "label": f"number {number}"})
            assert run_newest() == "complete"

        assert Backup.objects.count() == 3

    def test_refused_one_leaves_one_line_in_the_log(self, caplog: Any) -> None:
        _receive("prune")
        caplog.clear()
        caplog.set_level(logging.INFO)

        result = _receive("prune")

        _check_refused(result, caplog)


class TestErrors:
    @pytest.mark.parametrize("verb", DIRECT)
    def test_foreign_error_keeps_its_text_to_itself(
        self, verb: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a library says may hold a password; the result back end is another machine."""

        def broken(**_arguments: Any) -> Any:
            raise RuntimeError(f"postgresql://shop:{CANARY}@db/shop")

        monkeypatch.setattr(api, "watch" if verb == "status" else verb, broken)

        result = _receive(verb, TAKES.get(verb, {}))

        assert result.state == "FAILURE"
        assert "RuntimeError" in str(result.result)
        assert CANARY not in f"{result.result!r} {result.traceback}"

    def test_of_a_task_of_the_admin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(**_arguments: Any) -> Any:
            raise RuntimeError(f"postgresql://shop:{CANARY}@db/shop")

        monkeypatch.setattr("mipyme_backup.api.tasks.backup", broken)
        root = logged_in(User.objects.create_superuser("root", password=PASSWORD))
        root.post(ASK, {"verb": "backup"})

        result = _receive("run_task", {"task_id": Task.objects.get().task_id})

        assert Task.objects.get().status == "failed"
        assert "RuntimeError" in str(result.result)
        assert CANARY not in f"{result.result!r} {result.traceback} {Task.objects.get().error}"


def _receive(verb: str, given: dict[str, Any] | None = None, args: tuple[Any, ...] = ()) -> Any:
    """Return what the worker keeps of a message, which it does not check against the code."""
    return getattr(tasks, verb).apply(args=args, kwargs=given or {}, throw=False)


def _check_refused(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It says so in one short line, shows nothing of the message, and nothing was done."""
    said = str(result.result)
    assert result.state == "FAILURE"
    assert isinstance(result.result, TaskError)
    assert len(said) < 400 and said.isprintable()
    assert CANARY not in f"{said} {result.traceback} {caplog.text}"
    assert "Traceback" not in caplog.text
    assert not Backup.objects.exists() and not Drill.objects.exists()
