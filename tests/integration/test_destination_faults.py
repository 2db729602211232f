"""One of two destinations fails at any one call: the other's copy is good, nothing is hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from mipyme_backup import api
from mipyme_backup.testing.doubles import Verb
from tests.faulty import FailingOnce
from tests.integration.conftest import LOCAL

FAULTY = "tests.faulty.FailingOnce"


@pytest.mark.parametrize("verb", get_args(Verb))
def test_call_that_fails_costs_one_copy_at_most(backups: Path, settings: Any, verb: Verb) -> None:
    options = {"location": backups.with_name("faulty"), "verb": verb, "call": 0}
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "DESTINATIONS": {
            "faulty": {"BACKEND": FAULTY, "OPTIONS": options},  # asked before the other
            "good": {"BACKEND": LOCAL, "OPTIONS": {"location": backups}},
        },
        "STATE_DIR": backups.with_name("state"),
    }
    api.backup()
    calls = FailingOnce.made.calls[verb]

    for call in range(1, calls + 1):
        backups.with_name("media").joinpath("picture").write_text(f"{call}")  # makes a new pack
        options["call"] = call
        made = api.backup()
        options["call"] = 0

        sound = {
            result.destination: not result.problems
            for result in api.verify(identifiers=[made.manifest.id], level="content")
        }
        said = {name: True for name, error in made.copies.items() if error is None}
        assert sound == said, f"call {call} of {calls}"
        assert "good" in said
