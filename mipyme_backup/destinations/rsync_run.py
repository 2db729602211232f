"""Runs rsync to its end and says how it ended."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mipyme_backup.destinations.rsync_command import Address
from mipyme_backup.destinations.rsync_errors import explain
from mipyme_backup.errors import DestinationError, PreflightError, ProcessError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Child

MOST_OUTPUT = 128 * 2**20
"""A million lines of a listing."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of rsync ended, and the tail of what it and ssh wrote to stderr."""

    status: int
    output: bytes
    stderr: str


def run_rsync(argv: Sequence[str], names: Collection[str] = (), *, seconds: float) -> Outcome:
    """Run `argv` with the `names`, if any, on stdin, as ``--from0 --files-from=-`` reads them.

    A stall is ended by rsync's own ``--timeout`` and by ssh, as a rule. What neither takes for one
    (bytes that crawl, or go one way only, past the keep-alives of both) is ended after `seconds`
    without a word on stdout. Raises DestinationError then, and when rsync is not installed; any
    exit status is given back.
    """
    # "./" keeps a name that begins with "#" from being a comment.
    stdin = _Bytes(b"".join(b"./" + os.fsencode(name) + b"\0" for name in names))
    ended: list[tuple[int, str]] = []
    output = bytearray()
    try:
        child = Child(
            argv,
            stdin=stdin if names else None,
            env={"LC_ALL": "C", "TZ": "UTC"},
            idle_timeout=seconds,
            on_exit=lambda status, stderr: ended.append((status, stderr)),
        )
    except PreflightError as error:
        raise DestinationError(
            _("The program rsync cannot be run on this machine: %(reason)s"),
            hint=_("Install the package rsync, or put rsync on PATH."),
            reason=error,
        ) from error
    try:
        while data := child.read(CHUNK):
            output += data
            if len(output) > MOST_OUTPUT:
                raise DestinationError(
                    _("rsync printed more than %(limit)d bytes: far too much lies there."),
                    hint=_("Look what lies beside the backups, and who can write there."),
                    limit=MOST_OUTPUT,
                )
    except ProcessError as error:
        if not ended:
            raise DestinationError(
                _("rsync did not come to an end: %(reason)s"),
                hint=_("Look whether the server is well, and at the connection to it."),
                permanent=False,
                reason=error,
            ) from error
    finally:
        child.close()
    status, stderr = ended[0]
    return Outcome(status=status, output=bytes(output), stderr=stderr)


def explained(address: Address, outcome: Outcome) -> DestinationError:
    """Return the error for an outcome whose status is not 0."""
    return explain(
        outcome.status,
        outcome.stderr,
        place=address.place,
        host=address.host,
        port=address.port,
    )


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def close(self) -> None:
        self._data = b""
