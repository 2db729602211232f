"""One child of a run is ended: gpg, pg_dump, pg_restore, psql. The run fails, and says why.

What is ended is chosen among all children that an undisturbed run has, one after the other, and
not by time: most of them live for a few milliseconds.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.arena import Arena
from tests.e2e.descendants import descendants, send
from tests.e2e.test_kills import BACKUP, Round, the_arena

__all__ = ["the_arena"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
SECONDS = 120
VERBS = ("backup", "verify", "restore", "drill")
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run of which the child `program` was ended, and how the run ended then."""

    pid: int
    program: str
    number: signal.Signals
    status: int
    said: str


@pytest.fixture
def commands(the_arena: Arena) -> dict[str, list[str]]:
    return {
        "backup": BACKUP,
        "verify": ["verify_backups", the_arena.first, "--level", "content"],
        "restore": the_arena.restore_command(),
        "drill": ["restore_drill", the_arena.first, "--no-input"],
    }


def test_run_whose_child_is_ended_says_so(
    the_arena: Arena, commands: dict[str, list[str]], torture_random: random.Random, tell: Tell
) -> None:
    name = torture_random.choice(VERBS)
    assert_told(the_arena, commands[name], 1, torture_random, tell)


@pytest.mark.torture
@pytest.mark.parametrize("name", VERBS)
def test_every_run_whose_child_is_ended_says_so(
    the_arena: Arena,
    commands: dict[str, list[str]],
    name: str,
    torture_random: random.Random,
    torture_rounds: int,
    tell: Tell,
) -> None:
    assert_told(the_arena, commands[name], (torture_rounds + 7) // 8, torture_random, tell)


def assert_told(
    arena: Arena, command: list[str], kills: int, chance: random.Random, tell: Tell
) -> None:
    expected = children_of(arena, command)
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    ended = 0
    while ended < kills:
        arena.reset()
        run = end_one(arena, command, chance.randrange(expected), chance)
        if run is None:
            outcomes["met no child"] += 1
            assert outcomes["met no child"] <= 20 + 2 * kills
            continue
        ended += 1
        outcomes[f"{run.program} {run.number.name}: {run.status}"] += 1
        found = [*_problems(arena, command, run)]
        found += Round(arena, command, run.pid, outcomes).problems(chance)
        problems += [f"{run.number.name} of {run.program}: {problem}" for problem in found]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    tell(f"{command[0]} ({expected} children): {counts}, {len(problems)} problems")
    assert not problems, "\n".join(problems)


def children_of(arena: Arena, command: list[str]) -> int:
    """Return how many children an undisturbed run has that can be met."""
    arena.reset()
    seen: set[int] = set()
    with arena.started(command) as process:
        while process.poll() is None:
            seen |= {pid for pid, _program in descendants(process.pid)}
            time.sleep(0.001)
    assert process.returncode == 0, arena.said()
    assert seen
    return len(seen)


def end_one(arena: Arena, command: list[str], wanted: int, chance: random.Random) -> Ended | None:
    """End the child number `wanted` a little after its start; None where it was too quick."""
    number = chance.choice(SIGNALS)
    delay = chance.choice([0, 0, chance.uniform(0, 0.02), chance.uniform(0, 0.2)])
    seen: dict[int, str] = {}
    with arena.started(command) as process:
        while process.poll() is None and len(seen) <= wanted:
            seen |= descendants(process.pid)
        if process.poll() is not None:
            return None
        child, program = [*seen.items()][wanted]
        time.sleep(delay)
        if not send(child, number, process.pid):
            return None
        status = process.wait(SECONDS)
        return Ended(
            pid=process.pid, program=program, number=number, status=status, said=arena.said()
        )


def _problems(arena: Arena, command: list[str], run: Ended) -> Iterator[str]:
    """Yield what the run itself did wrong, before another one can mend it."""
    if run.status not in ({0, 1, 3} if command[0] == "verify_backups" else {0, 1}):
        yield f"it ended with {run.status}: {run.said}"
    if "Traceback" in run.said:
        yield f"a traceback: {run.said}"
    if run.status and not _names(run):
        yield f"it does not say what failed: {run.said}"
    content = arena.inspector.content()
    new = command[0] == "restore" and run.status == 0
    if content != (arena.new if new else arena.old):
        yield f"live data is not {'new' if new else 'old'} after exit {run.status}"
    yield from (f"left at once: {name}" for name in arena.leftovers(run.pid, owed=True))
    yield from (f"readable at once: {path}" for path in arena.plaintext())
    yield from (f"noted as damaged: {name}" for name in noted_as_damaged(arena))


def _names(run: Ended) -> bool:
    """A child that is ours, as in a drill, is known by its signal."""
    return run.program in run.said or run.number.name in run.said


def noted_as_damaged(arena: Arena) -> list[str]:
    """Return which backups the catalog calls damaged; none of them is."""
    return [
        row["name"]
        for row in arena.inspector.backups()
        if any(copy["status"] in {"damaged", "missing"} for copy in row["copies"])
    ]
