"""`recover.py` beside the backups: all that is needed to read them without us.

People are told to give it the passphrase, and whoever can write to a destination can change it. So
it is ours byte for byte, or that of a version which made a backup that lies there, as its
authentic manifest says; anything else was changed, which is told, and replaced.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

import mipyme_backup
from mipyme_backup.destinations import Destination
from mipyme_backup.errors import BackupError, DamagedError, DestinationError
from mipyme_backup.messages import Message, _
from mipyme_backup.operations.layout import RECOVERY_PROGRAM
from mipyme_backup.operations.project import Project
from mipyme_backup.operations.reading import read_whole
from mipyme_backup.results import Found
from mipyme_backup.translation import warn

logger = logging.getLogger("mipyme_backup")

HUGE = "huge"
MOST_BYTES = 2**20
"""No version of it comes near; of a larger one nothing is read."""


@functools.cache
def program_sha256() -> str:
    """Return the SHA-256 of this version's program, in hexadecimal."""
    return hashlib.sha256(_program().read_bytes()).hexdigest()


def is_changed(project: Project, destination: Destination, found: Iterable[Found]) -> bool:
    """Say whether what lies there under its name is of no version that we know.

    `found` are the backups there. False where there is none, or it cannot be read now.
    """
    try:
        held = _held(destination)
    except BackupError:
        return False
    known = {program_sha256()}
    if project.signing_key is not None:  # else anyone may have written the manifests
        versions = (item.manifest.versions for item in found if item.manifest is not None)
        known |= {str(version.get(RECOVERY_PROGRAM)) for version in versions}
    return held is not None and held not in known


def put_recovery_program(name: str, destination: Destination) -> None:
    """Lay this version's program beside the backups, in place of any other."""
    try:
        if _held(destination) != program_sha256():
            destination.put(RECOVERY_PROGRAM, _program())
    except DestinationError as error:  # no reason to call a backup that is whole a failure
        text = _("%(name)s lacks its copy of %(file)s: %(reason)s")
        warn(logger, text, name=name, file=RECOVERY_PROGRAM, reason=error)


def changed_text(name: str) -> Message:
    """Return what is to be said of a program that was changed on the destination `name`."""
    text = _("%(file)s on %(name)s is not the one that this software put there.")
    return Message(text, {"file": RECOVERY_PROGRAM, "name": name})


def replaced_text(name: str) -> Message:
    """Return the warning of a run that puts the right program back."""
    text = _(
        "%(file)s on %(name)s was not the one that this software put there, and is replaced."
        " Look who can write there: a changed one could send the passphrase away."
    )
    return Message(text, {"file": RECOVERY_PROGRAM, "name": name})


def _held(destination: Destination) -> str | None:
    """Return the SHA-256 of what lies there, None of nothing, `HUGE` of what is so."""
    size = destination.size(RECOVERY_PROGRAM)
    if size is None:
        return None
    try:
        content = read_whole(destination, RECOVERY_PROGRAM, min(size, MOST_BYTES), size)
    except DamagedError:
        return HUGE
    return hashlib.sha256(content).hexdigest()


def _program() -> Path:
    return Path(mipyme_backup.__file__).with_name(RECOVERY_PROGRAM)
