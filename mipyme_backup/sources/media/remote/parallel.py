"""The same call for many items, some of them at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def each(call: Callable[[T], None], items: Iterable[T], workers: int) -> None:
    """Call with each of the items, in any order where there are several `workers`.

    Items are taken as they are needed, in this thread. Raises the first error, after what had
    begun has come to its end; nothing new begins after it.
    """
    if workers == 1:
        for item in items:
            call(item)
        return
    running: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                running.append(pool.submit(call, item))
                if len(running) > 2 * workers:
                    running.popleft().result()
            while running:
                running.popleft().result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
