"""The limit of what is sent in a second."""

from __future__ import annotations

import threading
from pathlib import Path

from mipyme_backup.destinations.throttle import Throttle


class Clock:
    """A time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def throttle(clock: Clock, rate: int | None) -> Throttle:
    return Throttle(rate, clock=lambda: clock.now, sleep=clock.sleep)


def test_what_is_taken_takes_its_time() -> None:
    clock = Clock()
    limited = throttle(clock, 1000)

    for _turn in range(10):
        limited.take(500)

    assert clock.now == 105.0


def test_a_pause_saves_up_for_one_second_and_no_more() -> None:
    clock = Clock()
    limited = throttle(clock, 1000)
    clock.now += 3600

    limited.take(1000)
    assert clock.now == 3700.0

    limited.take(1000)
    assert clock.now == 3701.0


def test_without_a_rate_everything_passes() -> None:
    clock = Clock()

    throttle(clock, None).take(10**12)

    assert clock.now == 100.0


def test_threads_share_one_limit() -> None:
    slept: list[float] = []
    limited = Throttle(1000, clock=lambda: 100.0, sleep=slept.append)
    threads = [threading.Thread(target=limited.take, args=(500,)) for _turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(slept) == [0.5 * turn for turn in range(1, 9)]


def test_every_way_of_reading_a_file_counts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3000))
    for read in (
        lambda file: file.read(),
        lambda file: list(iter(lambda: file.read(700), b"")),
        lambda file: file.readinto(bytearray(3000)),
        list,
    ):
        clock = Clock()
        with throttle(clock, 1000).open(tmp_path / "file") as file:
            read(file)

        assert clock.now == 103.0


def test_a_file_can_be_read_again_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with Throttle(None).open(tmp_path / "file") as file:
        assert file.read() == b"content"
        file.seek(0)
        assert file.read(3) == b"con"
