"""A run, or one child of it, is stopped for longer than every patience, and goes on.

The server's own patience is short: it ends a session of the role that is idle for a second,
unless the session says otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from tests import services
from tests.e2e.arena import Arena, Pace
from tests.e2e.descendants import descendants, send
from tests.e2e.project import Project, postgresql_project
from tests.e2e.test_child_kills import commands, noted_as_damaged
from tests.e2e.test_kills import Round, the_arena

__all__ = ["commands", "the_arena"]
STOPPED_SECONDS = (3.5, 6.5)
"""Beyond the patience with the destinations (3 s), with locks (5 s), and of the server."""

SERVER_TIMEOUTS = ("idle_session_timeout", "idle_in_transaction_session_timeout")
SECONDS = 120
Tell = Callable[[str], None]
Commands = dict[str, list[str]]


@pytest.fixture
def impatient(the_arena: Arena) -> Iterator[Arena]:
    """The arena, whose server ends the idle sessions of its role."""
    server, role = the_arena.project.server, the_arena.project.database.get("USER", "")
    if server is not None:
        for name in SERVER_TIMEOUTS:
            text = sql.SQL("ALTER ROLE {} SET {} = '1s'")
            server.execute(text.format(sql.Identifier(role), sql.Identifier(name)))
    yield the_arena
    if server is not None:
        server.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(role)))


@pytest.mark.rare
def test_stopped_run_goes_on_or_fails(
    impatient: Arena,
    commands: Commands,
    torture_random: random.Random,
    tell: Tell,
) -> None:
    assert_goes_on(impatient, commands, 1, torture_random, tell)


@pytest.mark.torture
def test_runs_stopped_at_many_moments_go_on_or_fail(
    impatient: Arena,
    commands: Commands,
    torture_random: random.Random,
    torture_rounds: int,
    tell: Tell,
) -> None:
    assert_goes_on(impatient, commands, (torture_rounds + 3) // 4, torture_random, tell)


def assert_goes_on(
    arena: Arena, commands: Commands, rounds: int, chance: random.Random, tell: Tell
) -> None:
    paces: dict[str, Pace] = {}
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    done = 0
    while done < rounds:
        name = chance.choice([*commands])
        command = commands[name]
        if name not in paces:
            paces[name] = arena.pace(command)
        arena.reset()
        whom = chance.choice(["the run", "all of it", "a child"])
        moment = chance.uniform(0.1, 0.95) * paces[name].total
        with arena.started(command) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            stopped = _stop(process, whom)
            if not stopped:
                outcomes["not met"] += 1
                assert outcomes["not met"] <= 20 + 4 * rounds
                continue
            try:
                problems += _excluded(arena, process, chance, outcomes)
            finally:
                for pid in stopped:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            status, said = process.wait(SECONDS), arena.said()
        done += 1
        outcomes[f"{name}, {whom}: {status}"] += 1
        label = f"{whom} of {name} stopped at {moment:.2f} s"
        found = []
        if status not in ({0, 1, 3} if name == "verify" else {0, 1}):
            found.append(f"it ended with {status}: {said}")
        if "Traceback" in said:
            found.append(f"a traceback: {said}")
        content = arena.inspector.content()
        expected = arena.new if name == "restore" and status == 0 else arena.old
        if content != expected:
            found.append(f"live data is not as exit {status} has it: {said}")
        found += [f"noted as damaged: {one}" for one in noted_as_damaged(arena)]
        found += arena.leftovers(process.pid, owed=True)
        found += Round(arena, command, process.pid, outcomes).problems(chance)
        problems += [f"{label}: {problem}" for problem in found]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    tell(f"stopped: {counts}, {len(problems)} problems")
    assert not problems, "\n".join(problems)


def _stop(process: subprocess.Popen[bytes], whom: str) -> list[int]:
    """Stop the run, a child of it, or both; return the ids of those that are."""
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        children = [pid for pid, _program in descendants(process.pid)]
        if whom == "a child":
            stopped = [pid for pid in children[:1] if send(pid, signal.SIGSTOP, process.pid)]
        else:
            process.send_signal(signal.SIGSTOP)
            stopped = [process.pid]
            if whom == "all of it":
                stopped += [c for c in children if send(c, signal.SIGSTOP, process.pid)]
        if stopped:
            return stopped
    return []


def _excluded(
    arena: Arena, process: subprocess.Popen[bytes], chance: random.Random, outcomes: Counter[str]
) -> Iterator[str]:
    """Wait for longer than every patience; another run meanwhile must not begin."""
    began = time.monotonic()
    if _holds_the_lock(arena, process.pid):
        other = arena.project.manage("backup", check=False, env=arena.environment)
        if process.poll() is None and _holds_the_lock(arena, process.pid):
            outcomes["another kept out"] += 1
            if other.returncode != 5 or str(process.pid) not in other.stderr:
                yield f"another run ended with {other.returncode}: {other.stderr[-2000:]}"
    time.sleep(max(0.0, chance.uniform(*STOPPED_SECONDS) - (time.monotonic() - began)))


def _holds_the_lock(arena: Arena, pid: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((arena.state / "lock").read_text())["pid"] == pid)
    return False


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[tuple[Project, Project]]:
    """Two hosts of one project: one database, one destination, a state of their own."""
    with services.postgresql() as server:
        destination = {
            "BACKEND": "mipyme_backup.destinations.LocalDestination",
            "OPTIONS": {"location": str(tmp_path / "shared")},
        }
        options: dict[str, Any] = {
            "DESTINATIONS": {"shared": destination},
            "SCHEDULE": {"monthly": None},
        }
        first_state, second_state = str(tmp_path / "state1"), str(tmp_path / "state2")
        with postgresql_project(
            tmp_path / "one", server, STATE_DIR=first_state, **options
        ) as first:
            first.populate()
            settings = {**first.backup_settings, "STATE_DIR": second_state}
            second = replace(first, root=tmp_path / "two", backup_settings=settings)
            second.write()
            second.passphrase_file.write_bytes(first.passphrase_file.read_bytes())
            second.media.mkdir()
            yield first, second


@pytest.mark.rare
def test_woken_run_does_not_do_its_slot_again(two_hosts: tuple[Project, Project]) -> None:
    """Its lock went with its session, as a firewall ends one that is silent for long."""
    first, second = two_hosts
    state = Path(first.backup_settings["STATE_DIR"])
    process = _without_its_lock(first, "runs/*.json", "schedule_backups", "run-due")
    done = second.json("schedule_backups", "run-due")
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=SECONDS)[0]

    assert [one["outcome"] for one in done if one["job"] == "daily"] == ["done"], done
    rows = first.json("list_backups", "--destination", "shared")
    assert [row["kind"] for row in rows] == ["daily"], said
    assert "Traceback" not in said
    assert process.returncode == 0, said
    assert first.manage("verify_backups", "--level", "content").returncode == 0
    assert [*state.glob("runs/*.json")] == []


@pytest.mark.rare
def test_woken_restore_without_its_lock_changes_nothing(two_hosts: tuple[Project, Project]) -> None:
    first, second = two_hosts
    saved = first.backup()["id"]
    new = first.fingerprint()
    first.execute("UPDATE zoo_account SET balance = balance + 1")

    process = _without_its_lock(first, "restores/*.json", "restore", saved, "--no-input")
    second.restore(saved)
    second.execute("UPDATE zoo_account SET balance = balance + 2")
    live = second.fingerprint()
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=SECONDS)[0]

    assert process.returncode == 5, said
    assert "ended the session that held the lock" in said
    assert "Traceback" not in said
    assert first.fingerprint() == live
    assert not [*Path(first.backup_settings["STATE_DIR"]).glob("restores/*.json")]
    first.restore(saved)
    assert first.fingerprint() == new


@pytest.mark.rare
def test_woken_prune_without_its_lock_stops(two_hosts: tuple[Project, Project]) -> None:
    first, _second = two_hosts
    first.backup()

    process = _without_its_lock(first, "lock", "prune_backups", "--no-input")
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=SECONDS)[0]

    assert process.returncode == 5, said
    assert "ended the session that held the lock" in said


def _without_its_lock(host: Project, noted: str, *command: str) -> subprocess.Popen[str]:
    """Begin a run; stop it, and end its session, once it holds the lock and has noted this."""
    assert host.server is not None
    process = subprocess.Popen(
        host.command(*command),
        cwd=host.root,
        env=host.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    state = Path(host.backup_settings["STATE_DIR"])
    query = (
        "FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND granted"
        f" AND application_name LIKE 'mipyme_backup %:{process.pid}'"
    )
    while process.poll() is None and not (
        [*state.glob(noted)] and host.server.execute(f"SELECT 1 {query}")
    ):
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    assert host.server.execute(f"SELECT pg_terminate_backend(pid) {query}"), "no lock was met"
    return process
