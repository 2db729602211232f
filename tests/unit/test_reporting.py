"""Progress that is kept while an operation goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mipyme_backup.messages import Message
from mipyme_backup.operations.reporting import Reporter


def test_what_cannot_be_kept_does_not_end_the_signs_of_life() -> None:
    """PostgreSQL's driver has an error of Python's own for a text with a NUL, for example."""
    kept: list[Mapping[str, Any]] = []

    def keep(values: Mapping[str, Any]) -> None:
        if "\0" in values.get("step", ""):
            raise ValueError("A string literal cannot contain NUL (0x00) characters.")
        kept.append(values)

    with Reporter(keep, interval=0.01) as progress:
        progress.step(Message("Saving \0"))
        time.sleep(0.2)
        progress.step(Message("Saving media"))
        deadline = time.monotonic() + 60
        while not kept and time.monotonic() < deadline:
            time.sleep(0.01)

    assert kept and kept[-1]["step"] == "Saving media"
