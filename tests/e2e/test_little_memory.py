"""Commands in a process with little memory: they work, or they say so and leave nothing behind."""

from __future__ import annotations

import random
import resource
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.bulk import MEGABYTE, ROW, fill
from tests.e2e.project import Project, sqlite_project
from tests.fingerprint import media_fingerprint

SIZE = 3 * MEGABYTE
JOBS = 16
"""As on a large machine, where each worker wants memory of its own."""

COMMANDS = {
    "backup": ("backup",),
    "verify": ("verify_backups", "--latest", "--level", "content"),
    "restore": ("restore", "--latest", "--no-input"),
}
AMPLE = 250
"""Megabytes with which everything works."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with sqlite_project(tmp_path_factory.mktemp("little_memory"), JOBS=JOBS) as made:
        fill(made, SIZE)
        made.backup()
        yield made


@pytest.fixture(scope="module")
def least(project: Project) -> int:
    """The megabytes with which a command can be loaded; below it we cannot say anything."""
    low, high = 20, AMPLE
    while high - low > 4:
        middle = (low + high) // 2
        if limited(project, middle, "backup", "--help").returncode:
            low = middle
        else:
            high = middle
    return high


def limited(project: Project, megabytes: int, *args: str) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py`` with so much address space, which its children have as well."""
    limits = (megabytes * MEGABYTE, megabytes * MEGABYTE)
    return subprocess.run(
        project.command(*args),
        cwd=project.root,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limits),
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_quarter_of_a_gigabyte_is_enough(project: Project, name: str) -> None:
    ended = limited(project, AMPLE, *COMMANDS[name])
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_too_little_memory_is_told_and_harms_nothing(
    project: Project, least: int, torture_random: random.Random, tell: Callable[[str], None]
) -> None:
    assert_told(project, least, 2, torture_random, tell)


@pytest.mark.torture
def test_too_little_memory_is_told_and_harms_nothing_anywhere(
    project: Project,
    least: int,
    torture_random: random.Random,
    torture_rounds: int,
    tell: Callable[[str], None],
) -> None:
    assert_told(project, least, torture_rounds, torture_random, tell)


def assert_told(
    project: Project,
    least: int,
    rounds: int,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Run each command `rounds` times with a few megabytes more than the least."""
    refused = 0
    for name, command in COMMANDS.items():
        for number in range(rounds):
            megabytes = least + 1 + (chance.randrange(40) if number else 0)
            media, rows = media_fingerprint(project.media), project.execute(COUNT)

            ended = limited(project, megabytes, *command)

            said = ended.stdout + ended.stderr
            tell(f"{name} with {megabytes} MB (least {least}): exit status {ended.returncode}")
            assert "Traceback" not in said, said[-3000:]
            assert ended.returncode in (0, 1), said[-3000:]
            if ended.returncode:
                refused += 1
                assert "not enough memory" in said, said[-3000:]
                assert "ulimit -v" in said, said[-3000:]
            assert media_fingerprint(project.media) == media
            assert project.execute(COUNT) == rows == [(SIZE // ROW,)]
    project.backup()
    assert project.manage("verify_backups", "--all", check=False).returncode == 0
    assert [*(project.state / "work").glob("*")] == []
    assert refused


COUNT = "SELECT count(*) FROM bulk"
