"""Two hosts share a destination: one backs up and prunes while the other restores and verifies.

They have one project name and one key, each a database and a state of its own, so no lock and no
catalog keeps them apart: what is left is what lies on the destination.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.inspector import Content
from tests.e2e.moved_clock import Host, moved_host
from tests.e2e.project import Project, sqlite_project
from tests.fingerprint import difference

SHORT = {"manual": 1, "safety": 1, "minimum_good": 1}

FRESH = 300_000
Tell = Callable[[str], None]


@dataclass
class Other:
    """The other host, which changes its media, backs up and prunes until it is stopped.

    When it prunes, its clock is two days ahead: all but the newest backup goes.
    """

    project: Project
    pruning: Host
    rounds: int = 0
    problems: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        while not self._stop.is_set():
            (self.project.media / "fresh").write_bytes(os.urandom(FRESH))
            ended = self.project.manage("backup", check=False)
            if ended.returncode or "Traceback" in ended.stderr:
                said = (ended.stdout + ended.stderr)[-2000:]
                self.problems.append(f"backup ended with {ended.returncode}: {said}")
            self.rounds += 1
            later = datetime.now(UTC) + timedelta(days=2)
            try:
                self.pruning.run(later, "prune_backups", "--no-input")
            except AssertionError as error:
                self.problems.append(f"prune_backups: {error}")
                self.pruning.kill()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        thread = threading.Thread(target=self.work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Project, Other]]:
    destination = {
        "BACKEND": "mipyme_backup.destinations.LocalDestination",
        "OPTIONS": {"location": str(tmp_path / "shared")},
        "RETENTION": SHORT,
    }
    options = {"DESTINATIONS": {"shared": destination}}
    with sqlite_project(tmp_path / "one", STATE_DIR=str(tmp_path / "state1"), **options) as one:
        one.populate()
        settings = {**one.backup_settings, "STATE_DIR": str(tmp_path / "state2")}
        two = replace(one, backup_settings=settings)._elsewhere(tmp_path / "two")
        two.populate(seed=2)
        two.backup()  # two hosts know of each other by their backups
        with moved_host(two, tmp_path / "clock", {}) as pruning:
            yield one, Other(two, pruning)


@pytest.mark.rare
def test_one_restores_while_the_other_prunes(
    hosts: tuple[Project, Other], torture_random: random.Random, tell: Tell
) -> None:
    assert_kept_apart(*hosts, 2, torture_random, tell)


@pytest.mark.torture
def test_one_restores_many_times_while_the_other_prunes(
    hosts: tuple[Project, Other],
    torture_random: random.Random,
    torture_rounds: int,
    tell: Tell,
) -> None:
    assert_kept_apart(*hosts, (torture_rounds + 3) // 4, torture_random, tell)


def assert_kept_apart(
    one: Project, other: Other, rounds: int, chance: random.Random, tell: Tell
) -> None:
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    known: dict[str, Content] = {}
    with other.working():
        for number in range(rounds):
            (one.media / "changing").write_text(f"{number}")
            saved = _content(one)
            made = one.json("backup")
            known[made["id"]] = saved
            if made["status"] != "complete":
                problems.append(f"backup {made['name']} is {made['status']}")
            (one.media / "changing").write_text("live")
            live = _content(one)
            wanted = chance.choice([*known][-3:])
            ended = one.manage("restore", wanted, "--no-input", check=False)
            outcomes[f"restore: {ended.returncode}"] += 1
            expected = live if ended.returncode else known[wanted]
            said = ended.stderr[-2000:]
            if "Traceback" in said or ended.returncode not in {0, 1, 4, 6}:
                problems.append(f"restore ended with {ended.returncode}: {said}")
            if found := _differences(expected, _content(one)):
                problems.append(f"live data after exit {ended.returncode}: {found[:5]} {said}")
            # What the other one prunes meanwhile is gone, and is no damage.
            checked = one.manage("verify_backups", "--level", "content", check=False)
            outcomes[f"verify: {checked.returncode}"] += 1
            if "Traceback" in checked.stderr:
                problems.append(f"verify: {checked.stderr[-2000:]}")
    rows = other.project.json("verify_backups", "--level", "content")
    problems += [f"{row['name']}: {row['problems']}" for row in rows if not row["ok"]]
    problems += other.problems
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    pruned = 1 + rounds + other.rounds - len(rows)
    tell(
        f"{rounds} rounds beside {other.rounds} backups: {counts}, {pruned} backups pruned,"
        f" {len(rows)} whole in the end, {len(problems)} problems"
    )
    assert pruned > 0
    assert not problems, "\n".join(problems)


def _content(project: Project) -> Content:
    return project.fingerprint(), project.media_fingerprint()


def _differences(expected: Content, found: Content) -> list[str]:
    return [*difference(expected[0], found[0]), *difference(expected[1], found[1])]
