"""Passphrase files: read only where nobody else could have read or replaced them."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import threading
from pathlib import Path

from mipyme_backup.errors import EncryptionError, no_memory
from mipyme_backup.messages import _

# RFC 7914; these cost about 100 ms and 32 MiB on a small server.
SCRYPT = {"n": 2**15, "r": 8, "p": 1, "maxmem": 2**26}
FINGERPRINT_SALT = b"mipyme_backup key fingerprint, version 1"
MAX_BYTES = 4096

_deriving = threading.Lock()


def read_secret(path: Path) -> bytes:
    """Return the first line of the private file `path`, without its line end.

    Raises EncryptionError when the file is missing, empty or too long, is a link, belongs to
    another user than us or root, or can be read or written by group or others; and when the
    secret holds a control character: CVE-2019-6690 smuggled commands behind a newline, and
    gpg would take the carriage return of a Windows line end as part of the passphrase.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise EncryptionError(
            _("The passphrase file %(path)s cannot be read: %(reason)s"),
            hint=_("It must be a regular file of the user that runs the backup, not a link."),
            path=path,
            reason=error.strerror,
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {os.geteuid(), 0}:
            raise EncryptionError(
                _("The passphrase file %(path)s is not a regular file of ours."),
                hint=_("Make it a regular file owned by the user that runs the backup."),
                path=path,
            )
        if status.st_mode & 0o077:
            raise EncryptionError(
                _("The passphrase file %(path)s can be read by others."),
                hint=_("Run: chmod 600 %(path)s"),
                path=path,
            )
        content = os.read(descriptor, MAX_BYTES + 2)
    finally:
        os.close(descriptor)
    return _checked(content, path)


def _checked(content: bytes, path: Path) -> bytes:
    secret = content.removesuffix(b"\n")
    if not secret or len(secret) > MAX_BYTES or any(byte < 0x20 for byte in secret):
        raise EncryptionError(
            _(
                "The passphrase file %(path)s must hold one line of 1 to %(limit)d bytes,"
                " without control characters."
            ),
            hint=_("Make one with: (umask 077; openssl rand -base64 32 > %(path)s)"),
            path=path,
            limit=MAX_BYTES,
        )
    return secret


def derive_key(secret: bytes, salt: bytes) -> bytes:
    """Return 32 bytes by scrypt, which is done once a process, however many threads ask."""
    with _deriving:
        return _derived(secret, salt)


@functools.lru_cache(maxsize=128)
def _derived(secret: bytes, salt: bytes) -> bytes:
    try:
        return hashlib.scrypt(secret, salt=salt, dklen=32, **SCRYPT)
    except ValueError as error:  # the numbers are ours: all that can lack is memory
        raise no_memory(error) from error


def fingerprint(secret: bytes) -> str:
    """Return a stable name of the secret, 16 hex digits, as costly to guess from as the key."""
    return derive_key(secret, FINGERPRINT_SALT).hex()[:16]
