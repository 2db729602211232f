"""A destination for the settings of a test that fails once, at the call that it is told."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mipyme_backup.destinations import LocalDestination
from mipyme_backup.testing import Fault, FaultyDestination
from mipyme_backup.testing.doubles import Verb


class FailingOnce(FaultyDestination):
    """A local folder; the call number `call` of `verb` fails. `made` is the newest one."""

    made: ClassVar[FailingOnce]

    def __init__(self, *, location: str | Path, verb: Verb, call: int) -> None:
        super().__init__(LocalDestination(location=location), Fault(verb=verb, first=call))
        type(self).made = self
