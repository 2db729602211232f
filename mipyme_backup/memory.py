"""Getting along in a process whose memory is limited (``ulimit -v``). Imports no Django."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import threading

M_ARENA_MAX = -8  # malloc.h of the GNU C library
STACK_BYTES = 1024 * 1024

# Each thread reserves up to this much address space (its stack, and an arena of the C library),
# hardly any of which it uses.
BYTES_OF_A_THREAD = 256 * 1024 * 1024


def limit() -> int | None:
    """Return how many bytes of address space this process may have, None without a limit."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((given for given in limits if given != resource.RLIM_INFINITY), default=None)


def room_for_threads() -> int:
    """Return how many threads may work beside the caller, where half of the limit is theirs."""
    given = limit()
    return sys.maxsize if given is None else given // 2 // BYTES_OF_A_THREAD


def fit_into_limit() -> None:
    """Where there is a limit, have each thread started from now on reserve little."""
    if limit() is None:
        return
    with contextlib.suppress(ValueError, RuntimeError):
        threading.stack_size(STACK_BYTES)
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(M_ARENA_MAX, 1)
