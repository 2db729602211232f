"""Memory stays bounded however much there is to save: all our processes together, at any moment.

The database server's own processes do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import services
from tests.e2e.bulk import MEGABYTE, ROW, fill
from tests.e2e.memory import peak_of
from tests.e2e.project import Project, postgresql_project, sqlite_project

LIMIT = 200 * MEGABYTE
SAMPLE = 200 * MEGABYTE
FULL = 1000 * MEGABYTE
JOBS = 16
"""As on a large machine: each worker wants memory of its own."""


@pytest.fixture(params=["sqlite", "postgresql"])
def project(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("memory")
    if request.param == "sqlite":
        with sqlite_project(folder, JOBS=JOBS) as made:
            yield made
        return
    with services.postgresql() as server:
        with postgresql_project(folder, server, JOBS=JOBS) as made:
            yield made


@pytest.mark.rare
@pytest.mark.parametrize("project", ["postgresql"], indirect=True)
def test_memory_stays_below_the_limit(project: Project, tell: Callable[[str], None]) -> None:
    assert_bounded(project, SAMPLE, tell)


@pytest.mark.torture
def test_memory_stays_below_the_limit_with_more_data(
    project: Project, tell: Callable[[str], None], scaled: Callable[[int, int], int]
) -> None:
    assert_bounded(project, scaled(FULL, SAMPLE), tell)


def assert_bounded(project: Project, size: int, tell: Callable[[str], None]) -> None:
    fill(project, size)

    peaks = {"backup": peak_of(project, "backup")}
    empty_media(project.media)
    peaks["restore"] = peak_of(project, "restore", "--latest", "--no-input")

    for name, peak in peaks.items():
        tell(f"{name} of {size // MEGABYTE} MB and as much media: {peak}")
    assert rows(project) == [(size // ROW,)]
    assert sum(path.stat().st_size for path in project.media.rglob("*")) >= size
    assert all(peak.samples > 20 for peak in peaks.values())
    assert max(peak.size for peak in peaks.values()) < LIMIT, {n: str(p) for n, p in peaks.items()}


def empty_media(media: Path) -> None:
    """Leave little, so that a restore has to unpack the files, and the old ones are gone."""
    for path in media.rglob("*"):
        if path.is_file():
            path.write_bytes(b"gone")


def rows(project: Project) -> list[tuple[object, ...]]:
    return project.execute("SELECT count(*) FROM bulk")
