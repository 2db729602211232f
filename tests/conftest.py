"""Fixtures for every test: real servers, real tools, private folders."""

from __future__ import annotations

import functools
import gc
import os
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import botocore.session
import pytest

from tests import cheap_keys, services, settings

Mount = Callable[..., None]

# The files that take longest, from half a minute up: one that began last would be waited for.
LONGEST = (
    "test_field",
    "test_round_trip",
    "test_drill",
    "test_kills",
    "test_writers",
    "test_in_place",
    "test_memory",
    "test_network_backups",
    "test_resume",
    "test_secrets",
    "test_celery",
    "test_keys",
    "test_commands",
    "test_bare_host",
    "test_spanish",
    "test_network_faults",
    "test_fixtures_round_trip",
    "test_bad_input",
    "test_browser",
    "test_browser_tasks",
    "test_recover",
    "test_side_by_side",
    "test_corruption",
)

CASES_OF_A_SLICE = 6
REPEATED_BY = ("TORTURE_SEED", "TORTURE_ROUNDS", "TORTURE_SCALE")


def pytest_configure() -> None:
    shutil.rmtree(settings.WORK_DIR, ignore_errors=True)  # of a killed run with our process id
    settings.WORK_DIR.mkdir(mode=0o700)
    # Some two thousand processes import the same modules, which are to be compiled once: of
    # libraries that was done when they were installed.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # What runs in the background of a shell, or under nohup, ignores these, and so would whatever
    # it starts: commands that a test interrupts.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, handler)
    # Set here, before parallel workers start and inherit it, so that all of them agree.
    os.environ.setdefault("TORTURE_SEED", str(secrets.randbits(32)))


def pytest_unconfigure() -> None:
    shutil.rmtree(settings.WORK_DIR, ignore_errors=True)


def pytest_report_header() -> str:
    return f"torture: TORTURE_SEED={os.environ['TORTURE_SEED']}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is rare and all PostgreSQL but the newest; with TESTS=rest, keep only those.

    TESTS=all leaves out nothing. Parallel workers begin with the longest files.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)
    if torture_scale() < 1:
        _leave_out(config, items, _beyond_a_slice(items))
    wanted = os.environ.get("TESTS")
    if wanted == "all":
        return
    newest = services.postgresql_majors()[-1:]
    left_out: list[pytest.Item] = []
    for item in items:
        rare = item.get_closest_marker("rare") is not None or _major(item, newest) not in newest
        longer = item.get_closest_marker("longer") is not None
        right = rare or longer if wanted == "rest" else not rare
        if not right:
            left_out.append(item)
    _leave_out(config, items, left_out)


def _beyond_a_slice(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return what a slice of the torture leaves out of each test with many cases.

    Which ones stay is chosen by the seed, so each slice has others.
    """
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("torture") is not None:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = []
    for name, found in sorted(cases.items()):
        chance = random.Random(f"{os.environ['TORTURE_SEED']}:{name}")
        found.sort(key=lambda item: item.nodeid)
        left_out += chance.sample(found, max(0, len(found) - CASES_OF_A_SLICE))
    return left_out


def _leave_out(
    config: pytest.Config, items: list[pytest.Item], left_out: Sequence[pytest.Item]
) -> None:
    config.hook.pytest_deselected(items=left_out)
    without = {id(item) for item in left_out}
    items[:] = [item for item in items if id(item) not in without]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how to repeat each trial that failed: the seed is not chosen again by itself."""
    failed = [
        report.nodeid
        for outcome in ("failed", "error")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and "torture" in report.keywords
    ]
    if failed:
        terminalreporter.section("to repeat what failed")
        given = [f"{name}={os.environ[name]}" for name in REPEATED_BY if name in os.environ]
        for nodeid in dict.fromkeys(failed):
            terminalreporter.line(f"{' '.join(given)} make torture ARGS={_for_make(nodeid)}")


def _for_make(nodeid: str) -> str:
    """Return it quoted for the shell that calls make, and for the one that make calls."""
    return shlex.quote(shlex.quote(nodeid))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # the tests themselves are no garbage, and need not be looked at after each file


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """Blame what a file's tests leave open on that file.

    A database connection of SQLite's is part of a cycle: without this, Python would warn of it in
    whichever test happens to run when the cycle is collected.
    """
    yield
    gc.collect()


def _major(item: pytest.Item, newest: Sequence[int | None]) -> int | None:
    """Return the version of the server that a test asks for, the newest where it asks for none."""
    callspec = getattr(item, "callspec", None)
    default = newest[-1] if newest else None
    return default if callspec is None else callspec.params.get("postgresql_server", default)


def _turn(item: pytest.Item) -> int:
    name = item.path.stem
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


@pytest.fixture(
    scope="session",
    params=services.postgresql_majors(),
    ids=lambda major: f"postgresql{major or ''}",
)
def postgresql_server(request: pytest.FixtureRequest) -> Iterator[services.PostgreSQLServer]:
    """A server of each major version at hand, one after the other."""
    with services.postgresql(request.param) as server:
        yield server


@pytest.fixture
def postgresql_database(postgresql_server: services.PostgreSQLServer) -> Iterator[str]:
    """The name of a new, empty database on `postgresql_server`."""
    name = f"test_{secrets.token_hex(6)}"
    postgresql_server.create_database(name)
    yield name
    postgresql_server.drop_database(name)


@pytest.fixture
def workdir() -> Iterator[Path]:
    """A private folder with a short name: a gpg home's socket must fit in 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mb_", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def gpg() -> Path:
    """The gpg program; without it what matters most would go untested, so that is a failure."""
    program = shutil.which("gpg")
    if program is None:
        pytest.fail("gpg is missing: sudo apt-get install -y gnupg")
    return Path(program)


@pytest.fixture(scope="session")
def s3_models() -> Iterator[None]:
    """The description of S3's interface is read once, not for the client of each test."""
    with pytest.MonkeyPatch.context() as patch:
        loader = functools.cache(botocore.session.create_loader)
        patch.setattr(botocore.session, "create_loader", loader)
        yield


@pytest.fixture(scope="session", autouse=True)
def _keys_are_derived_once() -> None:
    cheap_keys.remember(settings.WORK_DIR)


@pytest.fixture
def torture_random(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that `TORTURE_SEED` (in the head of the report) repeats."""
    return random.Random(f"{os.environ['TORTURE_SEED']}:{request.node.nodeid}")


@pytest.fixture(scope="session")
def torture_rounds() -> int:
    """How often a trial is repeated; `make torture` asks for the full count."""
    return int(os.environ.get("TORTURE_ROUNDS", "5"))


def torture_scale() -> float:
    """The part of a long trial that is asked for: 1, or less for `make torture-slice`."""
    return min(1.0, float(os.environ.get("TORTURE_SCALE", "1")))


@pytest.fixture(scope="session")
def scaled() -> Callable[[int, int], int]:
    """Call it with a trial's full size or count, and the least that tells anything."""
    return lambda full, least: max(round(full * torture_scale()), min(least, full))


@pytest.fixture
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mount]:
    """Mounts, with the arguments of ``mount``, on the last of them, a place of the test."""
    from mipyme_backup.sources.media.kernel import mounts_below

    folders = [tmp_path]
    if "workdir" in request.fixturenames:
        folders.append(request.getfixturevalue("workdir"))

    def mount_on(*arguments: str | Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can mount")
        assert any(Path(arguments[-1]).is_relative_to(folder) for folder in folders)
        if subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode != 0:
            pytest.skip("this machine does not let us mount")

    yield mount_on
    # Looked for, as some went along with a folder that was renamed; others' mounts are not ours.
    for folder in folders:
        for place in reversed(mounts_below(folder)):
            subprocess.run(["umount", "--lazy", place], check=True)
