"""Messages: what fills a placeholder may come from another program, and is bounded."""

from __future__ import annotations

import pytest
from django.utils.translation import override

from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import LONGEST, Message
from mipyme_backup.translation import translated


@pytest.mark.parametrize("language", ["en", "es"])
def test_what_another_program_printed_is_cut_short(language: str) -> None:
    said = OSError("x" * 10 * LONGEST + " the reason")
    error = DestinationError("It failed: %(reason)s (%(number)d)", reason=said, number=10**30)
    outer = Message("Lost: %(error)s", {"error": error.message})

    with override(language):
        for text in (str(outer), translated(outer)):
            assert len(text) < LONGEST + 100
            assert (
                "…" in text
                and "the reason" in text
                and f"({10**30})" in text.replace(" ", "").replace("\u00a0", "")
            )
