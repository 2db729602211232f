"""One run at a time; the lock dies with its process and names its holder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mipyme_backup.errors import LockedError, PreflightError
from mipyme_backup.lock import UNREACHABLE, ServerLock, project_lock

HOLDER = """
import sys, time
from pathlib import Path
from mipyme_backup.lock import project_lock
with project_lock(Path(sys.argv[1]), "shop", "restore"):
    print("held", flush=True)
    sys.stdin.read()
print("released", flush=True)
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def holder(state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def take(state_dir: Path, *, wait: bool = False, locks: list[ServerLock] | None = None) -> None:
    with project_lock(state_dir, "shop", "backup", wait=wait, server_locks=locks or []):
        pass


def test_a_full_disk_keeps_nobody_from_the_lock(state_dir: Path) -> None:
    """Only who holds it is noted there; a restore, or a prune, may be what makes room."""
    state_dir.mkdir(parents=True)
    full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)){HOLDER}"

    ended = subprocess.run(
        [sys.executable, "-c", full, str(state_dir)], input=b"", capture_output=True
    )

    assert ended.stdout == b"held\nreleased\n", ended.stderr.decode()


def test_a_second_process_is_refused_and_told_who_holds_it(
    state_dir: Path, holder: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(LockedError) as caught:
        take(state_dir)

    assert f"restore (process {holder.pid}, since 2" in str(caught.value)
    assert caught.value.exit_status == 5
    assert str(caught.value.hint)


def test_a_second_taker_in_the_same_process_is_refused(state_dir: Path) -> None:
    with project_lock(state_dir, "shop", "backup"):
        with pytest.raises(LockedError, match=rf"backup \(process {os.getpid()}"):
            take(state_dir)

    take(state_dir)


def test_a_kill_releases_it(state_dir: Path, holder: subprocess.Popen[bytes]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()

    take(state_dir)


def test_a_child_of_the_holder_does_not_keep_it(state_dir: Path) -> None:
    with project_lock(state_dir, "shop", "backup"):
        child = subprocess.Popen(["sleep", "300"], close_fds=False)
    try:
        take(state_dir)
    finally:
        child.kill()
        child.wait()


def test_waiting_takes_it_as_soon_as_it_is_free(
    state_dir: Path, holder: subprocess.Popen[bytes]
) -> None:
    code = HOLDER.replace('"restore"', '"backup", wait=True')
    with subprocess.Popen(
        [sys.executable, "-c", code, str(state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as waiting:
        assert waiting.stdin is not None and waiting.stdout is not None
        assert holder.stdin is not None and holder.stdout is not None
        os.set_blocking(waiting.stdout.fileno(), False)
        time.sleep(1.5)
        assert not waiting.stdout.read(), "it did not wait"
        os.set_blocking(waiting.stdout.fileno(), True)

        holder.stdin.close()

        assert holder.stdout.readline() == b"released\n"
        assert waiting.stdout.readline() == b"held\n"
        waiting.stdin.close()


def test_an_error_inside_releases_it(state_dir: Path) -> None:
    with pytest.raises(ValueError, match="inside"):
        with project_lock(state_dir, "shop", "backup"):
            raise ValueError("inside")

    take(state_dir)
    assert (state_dir / "lock").read_text() == ""


def test_its_file_is_private(state_dir: Path) -> None:
    before = os.umask(0)
    try:
        take(state_dir)
    finally:
        os.umask(before)

    assert (state_dir / "lock").stat().st_mode & 0o777 == 0o600
    assert state_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"pid": 1}', "\0" * 9])
def test_a_holder_that_cannot_be_read_is_a_dash(content: str, state_dir: Path) -> None:
    with project_lock(state_dir, "shop", "backup"):
        (state_dir / "lock").write_text(content)

        with pytest.raises(LockedError, match="holds the lock: -"):
            take(state_dir)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_lies_in_its_place_is_set_aside(kind: str, state_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    state_dir.mkdir(parents=True)
    lock = state_dir / "lock"
    make = {"link": lambda: lock.symlink_to(victim), "folder": lock.mkdir, "pipe": None}[kind]
    os.mkfifo(lock) if make is None else make()

    take(state_dir)

    assert victim.read_text() == "precious"
    assert lock.is_file() and not lock.is_symlink()
    assert len([*state_dir.glob("lock.ignored-*")]) == 1


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PreflightError) as caught:
        take(tmp_path / "file" / "state")

    assert "STATE_DIR" in str(caught.value.hint)


class FakeServer:
    """A server's advisory lock: held by the names in `holders`, one after the other."""

    def __init__(self, *holders: str | None) -> None:
        self.holders = list(holders)
        self.keys: list[tuple[int, str]] = []
        self.open = 0

    @contextlib.contextmanager
    def lock(self, key: int, name: str) -> Iterator[str | None]:
        self.keys.append((key, name))
        self.open += 1
        try:
            yield self.holders.pop(0) if self.holders else None
        finally:
            self.open -= 1


def test_a_holder_on_another_host_is_named_and_ours_is_released(state_dir: Path) -> None:
    free, taken = FakeServer(), FakeServer("mipyme_backup restore web2:99")

    with pytest.raises(LockedError, match="restore web2:99"):
        take(state_dir, locks=[free.lock, taken.lock])

    assert (free.open, taken.open) == (0, 0)
    take(state_dir)


def test_waiting_asks_the_server_again(state_dir: Path) -> None:
    server = FakeServer("mipyme_backup restore web2:99", None)
    inside = []

    with project_lock(state_dir, "shop", "backup", server_locks=[server.lock], wait=True):
        inside.append(server.open)

    assert inside == [1]
    assert len(server.keys) == 2
    assert server.open == 0


def test_a_server_that_cannot_be_asked_keeps_no_run_from_its_work(state_dir: Path) -> None:
    server = FakeServer(UNREACHABLE, UNREACHABLE)

    with project_lock(state_dir, "shop", "restore", server_locks=[server.lock]) as held:
        held.check()


@pytest.mark.parametrize("later", [None, "mipyme_backup restore 01234567 web2:99"])
def test_a_lock_that_the_server_let_go_of_is_lost(later: str | None, state_dir: Path) -> None:
    server = FakeServer(None, later)

    with (
        project_lock(state_dir, "shop", "restore", server_locks=[server.lock]) as held,
        pytest.raises(LockedError, match="ended the session"),
    ):
        held.check()


def test_a_server_that_goes_away_meanwhile_is_no_lost_lock(state_dir: Path) -> None:
    server = FakeServer(None, UNREACHABLE)

    with project_lock(state_dir, "shop", "restore", server_locks=[server.lock]) as held:
        held.check()


def test_a_lock_that_is_still_held_is_ours(state_dir: Path) -> None:
    server = FakeServer(None)

    with project_lock(state_dir, "shop", "restore", server_locks=[server.lock]) as held:
        server.holders = [server.keys[0][1]]
        held.check()


def keys_of(state_dir: Path, project: str) -> list[tuple[int, str]]:
    server = FakeServer()
    locks: list[Callable[[int, str], contextlib.AbstractContextManager[str | None]]] = [server.lock]
    with project_lock(state_dir, project, "backup", server_locks=locks):
        return server.keys


def test_the_servers_key_is_the_projects_own_and_fits(state_dir: Path) -> None:
    (key, name), (same, _name), (other, _other) = (
        keys_of(state_dir, project)[0] for project in ("shop", "shop", "shop2")
    )

    assert key == same != other
    assert -(2**63) <= key < 2**63
    assert name.startswith("mipyme_backup backup ")
    assert name.endswith(f":{os.getpid()}")


def test_the_holder_is_written_as_json(state_dir: Path) -> None:
    with project_lock(state_dir, "shop", "backup"):
        held = json.loads((state_dir / "lock").read_text())

    assert held["pid"] == os.getpid()
    assert held["operation"] == "backup"
