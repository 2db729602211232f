"""The process of a drill: ``python -m mipyme_backup.drills JOB``."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from mipyme_backup.drills import overrides
from mipyme_backup.drills.error_log import ErrorLog
from mipyme_backup.drills.job import Job, Step
from mipyme_backup.messages import Message, _

START = "check"
"""The step of a project that cannot even be set up."""


def main(job_file: str) -> None:
    output = _own_output()
    threading.Thread(target=_end_with, args=(output.fileno(),), daemon=True).start()
    job = Job.load(Path(job_file).read_bytes())
    _tell(output, {"begin": START})
    began = time.monotonic()
    try:
        log = _set_up(job)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the project's code may raise anything
        problem = str(
            Message(
                _("the project does not start: %(kind)s: %(reason)s"),
                {"kind": type(error).__name__, "reason": error},
            )
        )
        seconds = time.monotonic() - began
        _tell(output, {"step": Step(name=START, seconds=seconds, problems=(problem,)).to_dict()})
        _tell(output, {"end": True})
        return
    from mipyme_backup.drills.steps import steps, take

    for name, check in steps(job, log):
        _tell(output, {"begin": name})
        _tell(output, {"step": take(name, check).to_dict()})
    _tell(output, {"end": True})


def _set_up(job: Job) -> ErrorLog:
    """Set the project up on what is thrown away; what is imported here reads the settings."""
    log = ErrorLog()
    overrides.apply(job)
    import django
    from django.db import connections
    from django.test.utils import setup_test_environment

    overrides.check(job, connections.settings)
    django.setup()
    overrides.check(job, connections.settings)
    overrides.replace_field_storages(job)
    setup_test_environment(debug=False)
    return log


def _own_output() -> IO[str]:
    """Return what was stdout; whatever the project prints goes to stderr."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


def _tell(output: IO[str], event: dict[str, Any]) -> None:
    output.write(json.dumps(event) + "\n")
    output.flush()


def _end_with(output: int) -> None:
    """End this process and its own, as soon as nobody reads `output` any more.

    That is when the drill was killed: what it made must not be in use when it is removed.
    """
    poll = select.poll()
    poll.register(output, select.POLLERR)
    poll.poll()
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
