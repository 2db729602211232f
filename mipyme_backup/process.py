"""The only module that starts processes.

Every child gets a session of its own, so that a whole group can be ended; its stderr is
drained by a thread and the tail kept for the error; its exit status is always checked.
Secrets reach a child by an inherited descriptor (`secret_pipe`, `secret_file`), never by
argv or environment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn, Protocol

from mipyme_backup.errors import (
    KilledError,
    PreflightError,
    ProcessError,
    no_memory,
    says_memory,
)
from mipyme_backup.messages import _

CHUNK = 256 * 1024
STDERR_BYTES = 4096
GRACE_SECONDS = 5
BRIEF_SECONDS = 1
POLL_SECONDS = 0.01
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""What a process is ended by that has done nothing wrong; what it reads may make it crash."""


class Reader(Protocol):
    """A stream of bytes that is pulled: the one shape that sources, stages and volumes share.

    `read` returns at most `size` bytes and ``b""`` at the end. A reader that cannot vouch for
    having reached the true end raises instead of returning ``b""``. `close` may be called again.
    """

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Child:
    """A running process whose stdout is read here and whose stdin is fed from a `Reader`.

    At the end of stdout the exit status is checked: what stopped the feeder is raised first
    (it is the root cause), then `KilledError` where another process ended it, then
    `ProcessError` with the tail of stderr. `on_exit` may look at
    the captured stderr and raise a better error; it is called with (exit status, stderr).
    `stdin` belongs to the child from this call on, even when it cannot be started: it is
    closed with it. Nothing written to stdout, or no exit after its end, for `idle_timeout`
    seconds ends the whole process group.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: Reader | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        idle_timeout: float | None = None,
        on_exit: Callable[[int, str], None] | None = None,
    ) -> None:
        self.argv = list(argv)
        self.idle_timeout = idle_timeout
        self._on_exit = on_exit
        self._upstream = stdin
        self._upstream_error: BaseException | None = None
        self._finished = False
        self._failure: BaseException | None = None
        self._stderr = b""
        try:
            self._process = _popen(argv, stdin=stdin is not None, env=env, pass_fds=pass_fds)
        except BaseException:
            if stdin is not None:
                stdin.close()
            raise
        self._threads = [threading.Thread(target=self._drain, daemon=True)]
        if stdin is not None:
            self._threads.append(threading.Thread(target=self._feed, daemon=True))
        try:
            for thread in self._threads:
                thread.start()
        except BaseException as error:
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            _end_group(self._process)
            self._join()
            if stdin is not None:
                stdin.close()
            if isinstance(error, RuntimeError):  # "can't start new thread"
                raise no_memory(error) from error
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> str:
        """The last lines that the process wrote to stderr."""
        return self._stderr.decode(errors="replace").strip()

    def read(self, size: int, /) -> bytes:
        if self._finished:
            self.wait()
            return b""
        stdout = self._process.stdout
        assert stdout is not None
        if self.idle_timeout is not None:
            poll = select.poll()  # unlike select, it takes descriptors above 1023
            poll.register(stdout, select.POLLIN)
            if not poll.poll(self.idle_timeout * 1000):
                self._end_idle()
        data = os.read(stdout.fileno(), size)
        if not data:
            self.wait()
        return data

    @property
    def tool(self) -> str:
        return os.path.basename(self.argv[0])

    def wait(self) -> None:
        """Wait for the end and check it; raises the root cause of a failure, on every call."""
        if not self._finished:
            try:
                status = self._process.wait(self.idle_timeout)
            except subprocess.TimeoutExpired:
                self._end_idle()
            self._finished = True
            self._join()
            try:
                self._check(status)
            except BaseException as error:
                self._failure = error
                raise
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End the process group if it still runs, and everything upstream of it."""
        if not self._finished:
            self._finished = True
            self._failure = ProcessError(_("%(tool)s was ended before it was done"), tool=self.tool)
            _end_group(self._process)
        if self._upstream is not None:
            # The feeder stops at its next write. Only one that hangs in its upstream is
            # disturbed there: a descriptor closed under a reader may be another file's soon.
            self._threads[-1].join(BRIEF_SECONDS)
            self._upstream.close()
        self._join()

    def _end_idle(self) -> NoReturn:
        self.close()
        self._failure = ProcessError(
            _("%(tool)s produced nothing for %(seconds)d seconds and was ended: %(stderr)s"),
            tool=self.tool,
            seconds=self.idle_timeout,
            stderr=self.stderr or "-",
        )
        raise self._failure

    def _check(self, status: int) -> None:
        if self._upstream_error is not None:
            raise self._upstream_error
        if status != 0 and says_memory(self.stderr):
            raise no_memory(f"{self.tool}: {self.stderr}")
        if -status in FROM_OUTSIDE:
            raise KilledError(
                _("%(tool)s was ended by another process or by the system (%(signal)s)."),
                hint=_("Where the host lacks memory, free some. Then run the command again."),
                tool=self.tool,
                signal=_describe(status),
            )
        if self._on_exit is not None:
            self._on_exit(status, self.stderr)
        if status != 0:
            raise ProcessError(
                _("%(tool)s failed (%(status)s): %(stderr)s"),
                tool=self.tool,
                status=_describe(status),
                stderr=self.stderr or "-",
            )

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(GRACE_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _drain(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with contextlib.suppress(ValueError, OSError):
            while data := os.read(stderr.fileno(), CHUNK):
                self._stderr = (self._stderr + data)[-STDERR_BYTES:]

    def _feed(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None and self._upstream is not None
        try:
            while data := self._upstream.read(CHUNK):
                if not _write(stdin, data):
                    break  # the process went away; its exit status and stderr tell why
        except BaseException as error:  # noqa: BLE001 - carried to the reading thread
            # Ended before its stdin is: it must not take a broken stream for a whole one.
            self._upstream_error = error
            _end_group(self._process)
        with contextlib.suppress(OSError):
            stdin.close()


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: Reader | None = None,
    timeout: float | None = 60,
    errors: str = "replace",
) -> str:
    """Run a short command to its end and return its stdout as text; `errors` are of decoding it.

    Raises ProcessError when it fails or writes nothing for `timeout` seconds, PreflightError
    when it is not installed.
    """
    child = Child(argv, env=env, pass_fds=pass_fds, stdin=stdin, idle_timeout=timeout)
    output = bytearray()
    try:
        while data := child.read(CHUNK):
            output += data
    finally:
        child.close()
    return output.decode(errors=errors)


@contextlib.contextmanager
def secret_pipe(secret: bytes) -> Iterator[int]:
    """Yield the read end of a pipe that holds `secret` (at most one pipe buffer, 64 KiB)."""
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, secret)
    finally:
        os.close(write_end)
    try:
        yield read_end
    finally:
        os.close(read_end)


@contextlib.contextmanager
def secret_file(content: bytes) -> Iterator[tuple[Path, int]]:
    """Yield (path, descriptor) of a private file that vanishes with the processes using it.

    It lives in memory where the kernel can (memfd), else as an unlinked temporary file; a
    child that inherits the descriptor can open the path as often as it likes.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("mipyme_backup")
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
    else:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            descriptor = os.dup(file.fileno())
    try:
        yield Path(f"/dev/fd/{descriptor}"), descriptor
    finally:
        os.close(descriptor)


def _popen(
    argv: Sequence[str], *, stdin: bool, env: Mapping[str, str] | None, pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - no shell, argv from pure functions
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**_inherited(), **(env or {})},
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EAGAIN):
            raise no_memory(f"{argv[0]}: {error.strerror}") from error
        raise PreflightError(
            _("%(tool)s cannot be run: %(reason)s"),
            hint=_("Install it, or put it on PATH."),
            tool=argv[0],
            reason=error.strerror or error,
        ) from error


def _write(pipe: IO[bytes], data: bytes) -> bool:
    """Write all of `data`; return False where nobody reads it any more."""
    view = memoryview(data)
    try:
        while view:
            view = view[pipe.write(view) :]
    except (BrokenPipeError, ValueError):
        return False
    return True


def _inherited() -> dict[str, str]:
    """What every child may see of our environment; nothing in it is a secret."""
    names = ("PATH", "HOME", "USER", "TMPDIR", "LANG", "LC_ALL", "LC_MESSAGES", "TZ")
    return {name: os.environ[name] for name in names if name in os.environ}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and its descendants; what outlives SIGTERM by the grace is killed.

    The group is killed before its leader is waited for: until then nobody else can get its id.
    """
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while not _exited(process) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _exited(process: subprocess.Popen[bytes]) -> bool:
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
