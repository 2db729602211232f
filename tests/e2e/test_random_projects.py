"""Each file and row of a random project is back after a disaster, or was named before it.

There is no third case.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests import services
from tests.e2e.project import Project, postgresql_project, sqlite_project
from tests.e2e.random_projects import FOLDERS, Drawn, Thing, destroy, drawn
from tests.services import PostgreSQLServer

ENGINES = ("sqlite", "postgresql")
Tell = Callable[[str], None]


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.rare)])
def test_a_few_projects(engine: str, tmp_path: Path) -> None:
    assert_no_third_case(engine, tmp_path, seeds=["1"], outcomes=Counter())


@pytest.mark.torture
@pytest.mark.parametrize("engine", ENGINES)
def test_many_projects(
    engine: str,
    tmp_path: Path,
    torture_random: random.Random,
    scaled: Callable[[int, int], int],
    tell: Tell,
) -> None:
    outcomes: Counter[str] = Counter()
    seeds = [torture_random.randbytes(8).hex() for _turn in range(scaled(150, 2))]
    try:
        assert_no_third_case(engine, tmp_path, seeds=seeds, outcomes=outcomes)
    finally:
        tell(f"{engine}: " + ", ".join(f"{count} {what}" for what, count in outcomes.items()))


def assert_no_third_case(
    engine: str, folder: Path, *, seeds: Sequence[str], outcomes: Counter[str]
) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(services.postgresql()) if engine == "postgresql" else None
        problems = []
        for number, seed in enumerate(seeds):
            with _project(folder / str(number), server) as project:
                with drawn(project, random.Random(f"{engine} {seed}")) as made:
                    outcomes["projects"] += 1
                    problems += [f"{seed}: {text}" for text in _tried(made, outcomes)]
        assert not problems, "\n".join(problems)


@contextlib.contextmanager
def _project(folder: Path, server: PostgreSQLServer | None) -> Iterator[Project]:
    made = sqlite_project(folder) if server is None else postgresql_project(folder, server)
    with made as project:
        yield project


def _tried(made: Drawn, outcomes: Counter[str]) -> Iterator[str]:
    """Back up, lose and restore; yield what is neither back nor was named."""
    run = made.project.manage("backup", "--json", check=False)
    if run.returncode not in (0, 3):
        yield f"backup ended with {run.returncode}: {run.stderr[-2000:]}"
        return
    told = "\n".join(made.project.json("list_backups")[0]["warnings"])
    status = made.project.manage("backup_status", check=False)
    verified = made.project.manage("verify_backups", "--level", "content", check=False)
    if verified.returncode:
        yield f"verify ended with {verified.returncode}: {verified.stdout[-1000:]}"
    things, rows = made.things(), made.rows()
    destroy(made)
    made.project.create_database()
    made.project.restore("--latest")
    made.project.restore("--latest", "--only", "certificates")
    found = made.things()
    for path, what in things.items():
        if found.get(path) == what:
            outcomes["back"] += 1
        elif _is_named(made, path, what, told, status.stdout):
            outcomes["named"] += 1
        else:
            yield f"{path!r} was {what}, is {found.get(path)}, and nothing told:\n{told}"
    for name, content in made.rows().items():
        if rows.get(name) != content:
            yield f"{name}: {content} in place of {rows.get(name)}"
    for name in rows.keys() - made.rows().keys():
        yield f"{name} is not there"


def _is_named(made: Drawn, path: str, what: Thing, told: str, status: str) -> bool:
    """Say whether the backup and the status told that this is not saved, or the settings did."""
    columns = {c for c, f in FOLDERS.items() if path.split("/", maxsplit=1)[0] == f.split("/")[0]}
    if columns & made.chosen:
        return True
    if columns & made.told_by_field:
        field = next(iter(columns))
        named = f"vault.Paper.{field}"
        return named in told and named in status
    kind, _content, _mode = what
    name = path.rpartition("/")[2]
    return kind in ("special", "link") and name in told
