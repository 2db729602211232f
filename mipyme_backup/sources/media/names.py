"""Paths inside a media folder: bytes on disk, text in the index, safe text on a screen.

A path is relative, ``/``-separated and never empty. File names are bytes; the index holds
them as UTF-8 with ``surrogateescape``, so that every name comes back byte for byte whatever
the locale.
"""

from __future__ import annotations

from mipyme_backup.errors import DamagedError
from mipyme_backup.messages import _

OWN_PREFIX = b".mipyme_backup_"
"""What the names of our own files and folders inside a media folder begin with."""

MAX_DEPTH = 255
MAX_PATH_BYTES = 65_536
SHOWN_NAMES = 10


def to_text(path: bytes) -> str:
    """Return `path` as the index holds it."""
    return path.decode("utf-8", "surrogateescape")


def from_text(text: str) -> bytes:
    """Return the path that `to_text` made `text` of; ValueError where there is none."""
    return text.encode("utf-8", "surrogateescape")


def sort_key(path: bytes) -> bytes:
    """Return what orders paths as a depth-first walk with sorted folders meets them."""
    return path.replace(b"/", b"\0")


def shown(path: bytes) -> str:
    """Return `path` for people: on one line, with whatever cannot be printed escaped."""
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def checked(path: bytes) -> bytes:
    """Return a `path` out of an index; DamagedError unless it stays inside its folder."""
    parts = path.split(b"/")
    if (
        len(path) > MAX_PATH_BYTES
        or len(parts) > MAX_DEPTH
        or b"\0" in path
        or any(part in (b"", b".", b"..") for part in parts)
        or parts[0].startswith(OWN_PREFIX)
    ):
        raise DamagedError(
            _("The media index names a path that is not allowed: %(path)s"),
            hint=_("Nothing was written to it. Restore another backup."),
            path=shown(path[:200]),
        )
    return path
