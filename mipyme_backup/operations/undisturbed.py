"""Holding back Ctrl-C and SIGTERM while live data is half old and half new."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

from mipyme_backup.messages import _
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Run the block to its end; a signal that comes meanwhile takes effect right after it.

    Only the main thread can do so: in any other the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def hold_back(number: int, _frame: object) -> None:
        warn(logger, _("Ending after the cut-over, which must not be left half done."))
        arrived.append(number)

    # A handler that was not set by Python is None, and cannot be set again.
    known = [one for one in SIGNALS if signal.getsignal(one) is not None]
    before = {one: signal.signal(one, hold_back) for one in known}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in arrived:
            signal.raise_signal(number)
