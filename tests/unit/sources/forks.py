"""Work in a forked child: as another user, or killed at a given line of the product's code."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

NOBODY = 65534


def in_child(work: Callable[[], Any], *, nobody: bool = False) -> Any:
    """Return what `work` (plain JSON) returns in a child, if need be one without privileges."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if nobody and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            answer = json.dumps(work()).encode()
            with os.fdopen(write_end, "wb") as stream:
                stream.write(answer)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        answer = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(answer)


def killed_at_line(number: int, work: Callable[[], object], code: tuple[str, ...]) -> bool:
    """Run `work` in a child that kills itself before the `number`th line run in files `code`.

    Returns whether it was killed: False says that `work` has fewer lines than that.
    """
    child = os.fork()
    if child == 0:
        try:
            _kill_at(number, code)
            work()
            sys.settrace(None)
            os._exit(0)
        except BaseException:
            sys.settrace(None)
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


def _kill_at(number: int, code: tuple[str, ...]) -> None:
    left = number

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(code):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
