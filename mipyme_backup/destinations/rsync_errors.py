"""What the exit statuses and texts of rsync and ssh mean to a person, and whether they pass."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import _

PASSING_STATUSES = {10, 12, 19, 20, 24, 30, 35, 255}
"""Sockets, protocol stream, signals, vanished files, timeouts, ssh (rsync(1), EXIT VALUES)."""
STDERR_CHARACTERS = 600

LOOK_THERE = _("Look at the folder's owner and permissions there, and at the disk.")


@dataclass(frozen=True)
class Meaning:
    """What a text on stderr tells; `passing` where trying again may work."""

    pattern: str
    message: str
    hint: str
    passing: bool = False


MEANINGS = (
    Meaning(
        r"HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for .* has changed",
        _("%(place)s: the server shows another host key than the known one."),
        _(
            "Ask who runs the server, and compare the fingerprint, before you replace the line"
            " in the known_hosts file: somebody may stand in between."
        ),
    ),
    Meaning(
        r"Host key verification failed|host key is known for",
        _("%(place)s: the server's host key is not known."),
        _(
            "Fetch it with `ssh-keyscan -p %(port)s %(host)s`, compare its fingerprint"
            " (`ssh-keygen -lf`) with the one that the server's owner gives, and add it to the"
            " known_hosts file."
        ),
    ),
    Meaning(
        r"UNPROTECTED PRIVATE KEY|bad permissions",
        _("%(place)s: the identity file can be read by others, so ssh does not use it."),
        _("Run `chmod 600` on it."),
    ),
    Meaning(
        r"[Ii]dentity file .* not accessible",
        _("%(place)s: the identity file is missing or cannot be read."),
        _("Look at OPTIONS.identity_file, and at the file's owner."),
    ),
    Meaning(
        r"Permission denied \([a-z]|Too many authentication failures|Load key .*",
        _("%(place)s: the server does not let us in."),
        _("Add the public key of the identity file to the account's authorized_keys there."),
    ),
    Meaning(
        r"Failed to exec ssh|ssh: not found",
        _("%(place)s: the program ssh is not installed on this machine."),
        _("Install the package openssh-client, or put ssh on PATH."),
    ),
    Meaning(
        r"rsync: (command )?not found|rsync: No such file|remote command not found|\(code 127\)",
        _("%(place)s: the program rsync is not installed on the server."),
        _("Install the package rsync there."),
    ),
    Meaning(
        r"Another instance of rrsync",
        _("%(place)s: rrsync there serves one connection at a time, and another is open."),
        _("Add -no-lock to the rrsync command in authorized_keys there."),
        passing=True,
    ),
    Meaning(
        r"rrsync error: (sending to read-only|reading from write-only) server",
        _("%(place)s: the account there may not do this: %(reason)s"),
        _("Backups are written and read back: give rrsync neither -ro nor -wo."),
    ),
    Meaning(
        r"rrsync.* error: Restricted directory does not exist",
        _("%(place)s: the folder that rrsync guards there does not exist."),
        _("Mount it, or make it."),
    ),
    Meaning(
        r"unknown option|rrsync.* error: (?!.*No such file)",
        _("%(place)s: the server's rsync refuses how it is called: %(reason)s"),
        _("rsync 3.1 or newer is needed on both sides, and the rrsync of its version."),
    ),
    Meaning(
        r"No space left on device|Disk quota exceeded",
        _("%(place)s is full: %(reason)s"),
        _("Free some space there."),
    ),
    Meaning(
        r"change_dir .* failed: No such file|rrsync.* No such file|mkdir .* No such file",
        _("%(place)s does not exist."),
        _("Mount it, or look at OPTIONS.path; the first backup makes the folder."),
    ),
    Meaning(
        r"failed: (Permission denied|Read-only file system|Operation not permitted)",
        _("%(place)s: %(reason)s"),
        LOOK_THERE,
    ),
    Meaning(
        r"Could not resolve hostname",
        _("%(place)s: the host's name is not known: %(reason)s"),
        _("Look at OPTIONS.host, and at this machine's name service."),
        passing=True,
    ),
    Meaning(
        r"Connection refused|timed out|[Nn]o route to host|[Uu]nreachable|Connection reset"
        r"|Connection closed by|closed by remote host|Broken pipe|[Tt]imeout|not responding",
        _("%(place)s cannot be reached, or the connection was lost: %(reason)s"),
        _("Look whether the server runs and the network lets us through to port %(port)s."),
        passing=True,
    ),
    Meaning(
        r"protocol version mismatch|Is your shell clean|protocol incompatibility",
        _("%(place)s: what answers there is not rsync."),
        _("The account's login must print nothing; look at its .bashrc and forced command."),
    ),
)


def explain(status: int, stderr: str, *, place: str, host: str, port: int) -> DestinationError:
    """Return the error for a run of rsync that ended with `status`, not 0."""
    for meaning in MEANINGS:
        if match := re.search(meaning.pattern, stderr):
            return DestinationError(
                meaning.message,
                hint=meaning.hint,
                permanent=not meaning.passing,
                place=place,
                host=host,
                port=port,
                reason=_line(stderr, match.start()),
            )
    passing = status in PASSING_STATUSES or status < 0
    return DestinationError(
        _("%(place)s: rsync failed (%(status)s): %(reason)s"),
        hint=_("Look at the connection, and at the server's log.") if passing else LOOK_THERE,
        permanent=not passing,
        place=place,
        status=status,
        reason=stderr[-STDERR_CHARACTERS:] or "-",
    )


def _line(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    return text[start:].partition("\n")[0].strip()[:STDERR_CHARACTERS]
