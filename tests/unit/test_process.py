"""Children are drained, checked and ended; secrets reach them unseen."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mipyme_backup.errors import (
    BackupError,
    MemoryShortageError,
    PreflightError,
    ProcessError,
    SourceError,
)
from mipyme_backup.process import CHUNK, Child, run, secret_file, secret_pipe
from mipyme_backup.testing import BytesReader, read_whole
from tests.unit.sources.forks import in_child

CANARY = b"canary-0b5c9e"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


class Hanging:
    """A reader that gives nothing until it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def read(self, size: int, /) -> bytes:
        self.closed.wait(200)
        return b""

    def close(self) -> None:
        self.closed.set()


def test_stdin_comes_out_of_a_filter_whole() -> None:
    data = os.urandom(5 * CHUNK + 3)

    assert read_whole(Child(["cat"], stdin=BytesReader(data, piece=7001))) == data


def test_a_chain_of_children_passes_everything() -> None:
    data = os.urandom(3_000_000)
    chain = Child(["cat"], stdin=Child(["cat"], stdin=BytesReader(data)))

    assert read_whole(chain) == data


def test_a_read_gives_at_most_what_was_asked_for() -> None:
    child = Child(shell("printf 0123456789"))

    pieces = list(iter(lambda: child.read(4), b""))

    assert b"".join(pieces) == b"0123456789"
    assert max(map(len, pieces)) <= 4
    assert child.read(4) == b""
    child.close()


def test_much_stderr_does_not_block_and_its_tail_is_in_the_error() -> None:
    child = Child(
        python(
            "import sys\n"
            "for n in range(30000): print('noise', n, file=sys.stderr)\n"
            "print('plain' * 30000)\n"
            "sys.exit('the reason')"
        )
    )

    with pytest.raises(ProcessError) as caught:
        read_whole(child)

    assert "exit 1" in str(caught.value)
    assert str(caught.value).endswith("the reason")
    assert len(str(caught.value)) < 5000


def test_a_failure_at_the_very_end_is_no_end_of_stream() -> None:
    child = Child(shell("printf whole; exit 3"))

    assert child.read(100) == b"whole"
    for _turn in range(2):
        with pytest.raises(ProcessError, match="exit 3"):
            child.read(100)
    child.close()
    with pytest.raises(ProcessError, match="exit 3"):
        child.read(100)


def test_an_end_by_signal_is_named() -> None:
    with pytest.raises(ProcessError, match="SIGKILL"):
        read_whole(Child(shell("printf x; kill -9 $$")))


def test_a_signal_without_a_name_is_numbered() -> None:
    with pytest.raises(ProcessError, match="signal 40"):
        read_whole(Child(python("import os; os.kill(os.getpid(), 40)")))


def test_a_tool_that_is_missing_says_so_and_closes_what_feeds_it() -> None:
    upstream = BytesReader(b"data")

    with pytest.raises(PreflightError) as caught:
        Child(["no-such-tool-anywhere"], stdin=upstream)

    assert "no-such-tool-anywhere" in str(caught.value)
    assert str(caught.value.hint)
    assert upstream.closed


@pytest.mark.parametrize("content", [b"\x7fELF broken", b"no interpreter line"])
def test_a_tool_that_cannot_be_run_is_no_traceback(content: bytes, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(content)
    tool.chmod(0o755)

    with pytest.raises(PreflightError, match="tool cannot be run"):
        run([str(tool)])


def test_what_stops_the_feeder_is_the_root_cause() -> None:
    broken = SourceError("the source broke")
    child = Child(["cat"], stdin=BytesReader(b"x" * 100_000, error=broken))

    with pytest.raises(SourceError) as caught:
        read_whole(child)

    assert caught.value is broken


@pytest.mark.parametrize("kind", [BrokenPipeError, ValueError, OSError, AssertionError])
def test_no_kind_of_feeder_error_passes_for_an_end(kind: type[Exception]) -> None:
    child = Child(["cat"], stdin=BytesReader(b"half", error=kind("of the source")))

    with pytest.raises(kind, match="of the source"):
        read_whole(child)


def test_a_child_never_sees_a_clean_end_of_a_broken_stream(tmp_path: Path) -> None:
    committed = tmp_path / "committed"
    broken = SourceError("the source broke")
    child = Child(
        shell(f"cat >/dev/null && touch {committed}"), stdin=BytesReader(b"half", error=broken)
    )

    with pytest.raises(SourceError):
        read_whole(child)

    time.sleep(0.2)
    assert not committed.exists()


def test_a_child_that_dies_tells_why_although_its_feeder_could_not_write() -> None:
    child = Child(shell("echo disk on fire >&2; exit 7"), stdin=BytesReader(b"x" * 5_000_000))

    with pytest.raises(ProcessError, match=r"exit 7.*disk on fire"):
        read_whole(child)


def test_a_child_that_dies_stops_what_feeds_it() -> None:
    class Endless(BytesReader):
        reads = 0

        def read(self, size: int, /) -> bytes:
            self.reads += 1
            return bytes(size)

    upstream = Endless(b"")

    with pytest.raises(ProcessError, match="exit 7"):
        read_whole(Child(shell("exit 7"), stdin=upstream))

    reads = upstream.reads
    time.sleep(0.2)
    assert upstream.reads == reads


def test_a_failure_upstream_is_told_by_the_one_that_failed_first() -> None:
    first = Child(shell("printf data; echo first reason >&2; exit 2"))

    with pytest.raises(ProcessError, match="first reason"):
        read_whole(Child(["cat"], stdin=first))


def test_on_exit_sees_status_and_stderr_and_its_error_wins() -> None:
    seen: list[tuple[int, str]] = []

    def look(status: int, stderr: str) -> None:
        seen.append((status, stderr))
        raise BackupError("better words")

    with pytest.raises(BackupError, match="better words"):
        read_whole(Child(shell("echo why >&2; exit 0"), on_exit=look))

    assert seen == [(0, "why")]


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A file that children write pids to; whoever of these is left is ended."""
    file = tmp_path / "pids"
    yield file
    for pid in file.read_text().split() if file.exists() else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def test_a_hang_ends_the_whole_process_group(pids: Path) -> None:
    script = f"(trap '' TERM; sleep 300 & echo $! >>{pids}; wait) & echo $$ >>{pids}; sleep 300"
    child = Child(shell(f"echo stuck >&2; {script}"), idle_timeout=4)

    with pytest.raises(ProcessError, match=r"nothing for 4 seconds.*stuck"):
        child.read(10)

    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    assert wait_until(lambda: not any(map(is_running, found)))
    with pytest.raises(ProcessError):
        child.read(10)


def test_a_grandchild_that_ignores_sigterm_is_killed(pids: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "if os.fork() == 0:\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"    open({str(pids)!r}, 'w').write(str(os.getpid()))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(300)\n"
        "time.sleep(300)"
    )
    child = Child(python(code))
    assert child.read(5)

    child.close()

    assert wait_until(lambda: not is_running(int(pids.read_text())))
    assert not is_running(child.pid)


def test_a_child_that_closes_its_output_and_stays_is_a_hang() -> None:
    child = Child(shell("exec >&-; sleep 600"), idle_timeout=1)

    with pytest.raises(ProcessError, match="nothing for 1 seconds"):
        child.read(10)

    assert not is_running(child.pid)


def test_a_slow_child_that_goes_on_is_no_hang() -> None:
    child = Child(shell("for n in 1 2 3 4 5 6; do sleep 1; printf $n; done"), idle_timeout=5)

    assert read_whole(child) == b"123456"


def test_closing_ends_a_child_and_what_feeds_it() -> None:
    upstream = Child(shell("sleep 300"))
    child = Child(["cat"], stdin=upstream)

    child.close()
    child.close()

    assert not is_running(child.pid)
    assert not is_running(upstream.pid)
    for reader in (child, upstream):
        with pytest.raises(ProcessError, match="ended before"):
            reader.read(10)


def test_closing_frees_a_feeder_that_hangs_in_its_source() -> None:
    upstream = Hanging()
    child = Child(["cat"], stdin=upstream)

    child.close()

    assert upstream.closed.is_set()


def test_no_descriptor_and_no_process_is_left_over() -> None:
    before = len(os.listdir("/proc/self/fd"))
    children = []

    for _turn in range(20):
        children.append(Child(["cat"], stdin=BytesReader(b"data")))
        read_whole(children[-1])
        children.append(Child(["cat"], stdin=BytesReader(b"data")))
        children[-1].close()

    assert len(os.listdir("/proc/self/fd")) == before
    assert not [child for child in children if Path(f"/proc/{child.pid}").exists()]


def test_idle_timeouts_work_with_a_thousand_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    opened = [os.open("/dev/null", os.O_RDONLY) for _turn in range(1100)]
    try:
        assert run(["echo", "ready"], timeout=60) == "ready\n"
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_children_get_no_environment_but_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", CANARY.decode())

    environment = run(["env"], env={"PGAPPNAME": "ours"})

    assert "PGAPPNAME=ours" in environment.splitlines()
    assert "PATH=" in environment
    assert CANARY.decode() not in environment


def test_children_inherit_no_descriptor_but_those_that_are_passed() -> None:
    with secret_pipe(CANARY) as ours, secret_pipe(b"other") as other:
        listed = run(["ls", "/proc/self/fd"], pass_fds=[ours]).split()

    assert str(ours) in listed
    assert str(other) not in listed


def test_a_child_cannot_read_our_terminal() -> None:
    assert run(["cat"], timeout=60) == ""


def seen_from_outside(pid: int) -> bytes:
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def test_a_secret_in_a_pipe_reaches_the_child_unseen() -> None:
    code = "import os, sys; print(os.read(int(sys.argv[1]), 99).decode(), flush=True); input()"
    with secret_pipe(CANARY) as descriptor:
        child = Child(python(code, str(descriptor)), stdin=Hanging(), pass_fds=[descriptor])
    try:
        assert child.read(100).strip() == CANARY
        seen = seen_from_outside(child.pid)
    finally:
        child.close()

    assert b"python" in seen
    assert CANARY not in seen


def test_a_secret_file_can_be_opened_again_and_again_by_the_child_only() -> None:
    code = (
        "import os, stat, sys\n"
        "for turn in range(3): content = open(sys.argv[1], 'rb').read()\n"
        "mode = os.stat(sys.argv[1]).st_mode\n"
        "print(content.decode(), oct(stat.S_IMODE(mode)), stat.S_ISREG(mode), flush=True)\n"
        "input()"
    )
    with secret_file(CANARY) as (path, descriptor):
        child = Child(python(code, str(path)), stdin=Hanging(), pass_fds=[descriptor])
    try:
        assert child.read(100).split() == [CANARY, b"0o600", b"True"]
        seen = seen_from_outside(child.pid)
    finally:
        child.close()

    assert CANARY not in seen
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_short_command_that_hangs_is_ended() -> None:
    with pytest.raises(ProcessError, match="nothing for 1 seconds"):
        run(["sleep", "300"], timeout=1)


@pytest.mark.parametrize(
    "said", ["gpg: out of core handler ignored", "pg_dump: error: out of memory"]
)
def test_a_tool_without_memory_is_told_as_such(said: str) -> None:
    """Before anybody looks for a damage or a wrong key in it."""
    looked = []
    child = Child(
        shell(f"echo '{said}' >&2; exit 2"), on_exit=lambda status, text: looked.append(text)
    )
    with pytest.raises(MemoryShortageError, match="memory"):
        child.read(1)
    child.close()
    assert looked == []


def test_no_process_is_left_where_no_thread_can_be_started() -> None:
    """Its output could not be read: it is ended, and so is what would have fed it."""
    feeder = Hanging()

    def work() -> list[str]:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "_start_new_thread", _no_thread)
            try:
                Child(shell("sleep 600"), stdin=feeder)
            except MemoryShortageError:
                pass
            else:
                return ["nothing raised"]
        left = [*(set(os.listdir("/proc/self/fd")) - before)]
        return left + Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

    assert in_child(work) == []


def _no_thread(*_args: object) -> None:
    raise RuntimeError("can't start new thread")
