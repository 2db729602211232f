"""Runs Python scripts in processes forked from one that has imported Django already.

Half of what a `manage.py` costs is the import of libraries, and the tests run it some thousand
times. A forked process is a new one in every other respect: its own arguments, environment,
working folder and standard streams.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def run(
    argv: Sequence[str],
    *,
    text: str | None,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run the script `argv[0]` to its end, `text` on its stdin, as `subprocess.run` would.

    Raises subprocess.TimeoutExpired after `timeout` seconds, the process being killed.
    """
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(tempfile.NamedTemporaryFile()) for _ in range(3)]
        streams[0].write((text or "").encode())
        streams[0].flush()
        names = [stream.name for stream in streams]
        process = _context().Process(target=_child, args=(list(argv), names, str(cwd), dict(env)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(argv), timeout)
        status = process.exitcode
        process.close()
        said = [
            Path(name).read_text(errors="surrogateescape", encoding="utf-8") for name in names[1:]
        ]
    return subprocess.CompletedProcess(list(argv), status, *said)


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.e2e.preloaded"])
    return context


def _child(argv: list[str], streams: list[str], cwd: str, env: dict[str, str]) -> None:
    for number, name in enumerate(streams):
        descriptor = os.open(name, os.O_RDWR | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors=errors)  # noqa: SIM115 - for good
        for number, mode, errors in (
            (0, "r", "surrogateescape"),
            (1, "w", "surrogateescape"),
            (2, "w", "backslashreplace"),
        )
    )
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # as TMPDIR says now
    os.chdir(cwd)
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name="__main__")
