"""`kill -9` at random moments of a backup or a restore loses nothing and blocks nobody.

Each round puts everything back, kills one run, and then lets a backup and a restore follow, in
a random order: whatever comes next has to mend what the killed one left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests import services
from tests.e2e.arena import Arena, arena, described
from tests.e2e.project import postgresql_project, sqlite_project
from tests.fingerprint import difference

SAMPLE = {"backup": 1, "restore": 1}
BACKUP = ["backup"]
MARK = b".mipyme_backup_loaded_"


@pytest.fixture(
    scope="module", params=[pytest.param("sqlite", marks=pytest.mark.rare), "postgresql"]
)
def the_arena(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arena]:
    folder = tmp_path_factory.mktemp("kills")
    if request.param == "sqlite":
        with sqlite_project(folder / "project") as project:
            with arena(project, folder / "arena") as made:
                yield made
        return
    with services.postgresql() as server:
        with postgresql_project(folder / "project", server) as project:
            with arena(project, folder / "arena") as made:
                yield made


@pytest.fixture
def commands(the_arena: Arena) -> dict[str, list[str]]:
    return {"backup": BACKUP, "restore": the_arena.restore_command()}


Tell = Callable[[str], None]


@pytest.mark.parametrize("name", ["backup", "restore"])
def test_killed_run_is_mended_by_the_next(
    the_arena: Arena,
    commands: dict[str, list[str]],
    name: str,
    torture_random: random.Random,
    tell: Tell,
) -> None:
    assert_survives(the_arena, commands[name], SAMPLE[name], torture_random, tell)


def test_run_that_had_come_to_its_end_is_not_abandoned(the_arena: Arena) -> None:
    the_arena.reset()
    assert the_arena.run(the_arena.restore_command()) is None
    for table in ("backup", "restore"):  # as if killed just before the catalog was told
        the_arena.project.execute(f"UPDATE mipyme_backup_{table} SET status = 'running'")

    assert the_arena.run(BACKUP) is None

    backups = {row["status"] for row in the_arena.inspector.backups()}
    assert backups == set(the_arena.inspector.restores().values()) == {"complete"}


@pytest.mark.torture
@pytest.mark.parametrize("name", ["backup", "restore"])
def test_every_killed_run_is_mended_by_the_next(
    the_arena: Arena,
    commands: dict[str, list[str]],
    name: str,
    torture_random: random.Random,
    torture_rounds: int,
    tell: Tell,
) -> None:
    assert_survives(the_arena, commands[name], (torture_rounds + 1) // 2, torture_random, tell)


def assert_survives(
    arena: Arena, command: list[str], kills: int, chance: random.Random, tell: Tell
) -> None:
    pace = arena.pace(command)
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    while outcomes["killed"] < kills:
        arena.reset()
        pid = arena.kill(command, pace, chance)
        if pid is None:
            outcomes["too quick to be killed"] += 1
            assert outcomes["too quick to be killed"] <= 20 + kills
            pace = pace.scaled(0.9)  # the machine is less busy than when it was measured
            continue
        pace = pace.scaled(1.02)
        outcomes["killed"] += 1
        found = Round(arena, command, pid, outcomes).problems(chance)
        problems += [f"kill {outcomes['killed']}: {problem}" for problem in found]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    tell(f"{command[0]} (undisturbed: {pace.total:.2f} s): {counts}, {len(problems)} problems")
    assert not problems, "\n".join(problems)


class Round:
    """What has to hold after one kill."""

    def __init__(
        self, arena: Arena, command: list[str], killed: int, outcomes: Counter[str]
    ) -> None:
        self.arena = arena
        self.command = command
        self.killed = killed
        self.outcomes = outcomes

    def problems(self, chance: random.Random) -> list[str]:
        """Return what does not hold, of everything that is promised."""
        problems: list[str] = []
        running: set[str] = set()
        if chance.random() < 0.5:  # else the next command comes while children still run
            problems += [f"still runs: {line}" for line in self.arena.orphans()]
            problems += self._torn_parts()
            running = self._running()
        commands = [BACKUP, self.arena.restore_command()]
        chance.shuffle(commands)
        for number, command in enumerate(commands):
            if failure := self.arena.run(command):
                problems.append(f"next run: {failure}")
            problems += self._live_data(
                restored=self.arena.restore_command() in commands[: number + 1]
            )
            # What a committed backup still owes is for the next backup, not for a restore.
            owed = BACKUP not in commands[: number + 1]
            left = self.arena.leftovers(self.killed, owed=owed)
            problems += [f"left behind: {name}" for name in left]
            problems += [f"readable: {path}" for path in self.arena.plaintext()]
            problems += self._catalog(running)
        problems += [f"still runs: {line}" for line in self.arena.orphans()]
        return problems + self._stored()

    def _torn_parts(self) -> list[str]:
        """The database alone, and the media alone, are old or new at any moment.

        The mark by which the next run knows the folder that came in may still lie in it.
        """
        database, media = self.arena.inspector.content()
        media = {name: entry for name, entry in media.items() if not name.startswith(MARK)}
        problems = []
        if database not in (self.arena.old[0], self.arena.new[0]):
            problems.append("the database is torn")
        if media not in (self.arena.old[1], self.arena.new[1]):
            problems.append(f"the media is torn: {difference(self.arena.new[1], media)[:5]}")
        return problems

    def _live_data(self, *, restored: bool) -> list[str]:
        """The next run leaves the database and the media both old or both new."""
        allowed = {"old": self.arena.old, "new": self.arena.new}
        if restored:
            allowed.pop("old")
        elif self.command[0] != "restore":
            allowed.pop("new")
        content = self.arena.inspector.content()
        for name, expected in allowed.items():
            if content == expected:
                if not restored:
                    self.outcomes[f"{name} afterwards"] += 1
                return []
        return [f"live data differs: {described(allowed, content)}"]

    def _running(self) -> set[str]:
        rows = self.arena.inspector.backups()
        return {row["id"] for row in rows if row["status"] == "running"}

    def _catalog(self, running: set[str]) -> list[str]:
        """The catalog says what the destination holds, and owns up to what was killed."""
        rows = {row["id"]: row["status"] for row in self.arena.inspector.backups()}
        stored = {row["id"] for row in self.arena.inspector.backups("local")}
        problems = [
            f"backup {identifier} is {status}"
            for identifier, status in rows.items()
            if status not in ({"complete"} if identifier in stored else {"abandoned", "failed"})
        ]
        problems += [f"backup {row} is not in the catalog" for row in stored - rows.keys()]
        problems += [f"killed backup {row} is forgotten" for row in running - rows.keys()]
        restores = self.arena.inspector.restores()
        done = {entry["id"] for entry in self.arena.journal() if entry["phase"] == "done"}
        problems += [
            f"restore {identifier} is {restores.get(identifier)}"
            for identifier in restores.keys() | done
            if restores.get(identifier)
            not in ({"complete"} if identifier in done else {"abandoned", "failed"})
        ]
        return problems

    def _stored(self) -> list[str]:
        """Every backup that is listed is whole, those from before the kill among them."""
        rows = self.arena.inspector.backups("local")
        problems = [
            f"{row['name']} is {row['status']}" for row in rows if row["status"] != "complete"
        ]
        missing = {self.arena.first, self.arena.second} - {row["id"] for row in rows}
        problems += [f"lost: {identifier}" for identifier in missing]
        self.outcomes["backups verified"] += len(rows)
        return problems + self.arena.inspector.verify(level="content")
