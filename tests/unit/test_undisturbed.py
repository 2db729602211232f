"""Ctrl-C and SIGTERM wait for the end of a cut-over, and then take effect."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from mipyme_backup.operations.undisturbed import undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_takes_effect_right_after_the_block(number: signal.Signals) -> None:
    done: list[str] = []

    def interrupt(_number: int, _frame: object) -> None:
        done.append("interrupted")
        raise SystemExit(number)

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(SystemExit):  # noqa: PT012 - what comes after the signal matters
            with undisturbed():
                os.kill(os.getpid(), number)
                time.sleep(0.01)
                done.append("whole")
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)

    assert done == ["whole", "interrupted"]


def test_error_of_the_block_passes_and_the_handlers_are_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(ValueError, match="mine"), undisturbed():
        raise ValueError("mine")

    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_run_the_block_as_it_is() -> None:
    ran: list[object] = []

    def run() -> None:
        with undisturbed():
            ran.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert ran == [signal.getsignal(signal.SIGTERM)]
