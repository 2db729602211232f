"""How a manifest is authenticated: its ending, which is checked before anything else is parsed.

What is authenticated is every byte before the line that begins the last member. Two things of the
file are looked at before that is known to be right, and both are bounded: the ending itself, and
the project that the manifest claims to be of, which decides the salt.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mipyme_backup.errors import DamagedError, KeyMissingError
from mipyme_backup.messages import _

MARKER = b',\n "authentication": '
HMAC = "HMAC-SHA256"
CHECKSUM = "SHA-256"

MAX_ENDING = 1024
"""Bytes after the marker: ours are fewer than 300."""

CLAIMED_PROJECT = re.compile(rb'\n "project": ("(?:[^"\\]|\\.)*")')
FOREIGN = re.compile(r"[^0-9A-Za-z.]")
"""What no fingerprint has in it."""

CLAIM_WITHIN = 16 * 1024
"""Bytes in which the project's name comes: it is the fourth member."""

DeriveKey = Callable[[bytes, bytes], bytes]
"""From (secret, salt) to the key of the HMAC."""


def salt_of(project: str) -> bytes:
    """Return the salt of a project's manifests: a thousand then cost one scrypt to read."""
    return hashlib.sha256(b"mipyme_backup manifest of " + project.encode()).digest()[:16]


def ending(
    body: bytes, project: str, key: tuple[str, bytes] | None, derive_key: DeriveKey
) -> bytes:
    """Return what follows `body` and the marker; `key` is (fingerprint, secret)."""
    if key is None:
        return _written(_checksum(body))
    return _written(_signature(body, key, salt_of(project), derive_key))


def authenticated(
    data: bytes, *, secrets_by_key: Mapping[str, bytes], derive_key: DeriveKey, trust_needed: bool
) -> bytes:
    """Return the body of a manifest, without the end of its object.

    Raises DamagedError for what is damaged or forged, and where `trust_needed` for what proves no
    author; KeyMissingError where the key that it names is not among `secrets_by_key`; and whatever
    `derive_key` raises, which is asked for no other salt than that of the project that is claimed.
    """
    body, marker, tail = data.rpartition(MARKER)
    authentication = _parsed(tail) if marker else None
    if authentication is None:
        raise DamagedError(
            _("The manifest is cut off or damaged."),
            hint=_("Use another copy of this backup, or another backup."),
        )
    expected = _expected(body, authentication, secrets_by_key, derive_key, trust_needed)
    # All of the ending is compared, so that no byte of the file can change unseen.
    if expected is None or not hmac.compare_digest(_written(expected), tail):
        raise DamagedError(
            _("The manifest is not authentic: it was changed after it was written."),
            hint=_("Use another copy of this backup, or another backup."),
        )
    return body


def _parsed(tail: bytes) -> dict[str, Any] | None:
    if len(tail) > MAX_ENDING:
        return None
    try:
        authentication = json.loads(tail.removesuffix(b"\n}\n"))
    except (ValueError, RecursionError):
        return None
    return authentication if isinstance(authentication, dict) else None


def _expected(
    body: bytes,
    authentication: Mapping[str, Any],
    secrets_by_key: Mapping[str, bytes],
    derive_key: DeriveKey,
    trust_needed: bool,
) -> dict[str, str] | None:
    """Return the authentication that `body` must carry; None where none can be right."""
    algorithm = authentication.get("algorithm")
    if algorithm == CHECKSUM:
        if trust_needed:
            raise DamagedError(
                _("The manifest is not signed, and the settings need it to be (ENCRYPTION)."),
                hint=_("It was made without encryption, or by somebody else."),
            )
        return _checksum(body)
    if algorithm == HMAC:
        key = str(authentication.get("key"))
        if key not in secrets_by_key:
            raise KeyMissingError(
                _("No passphrase at hand authenticates this backup: it was made with key %(key)s."),
                hint=_("Name the file of that passphrase in the settings (ENCRYPTION, OPTIONS)."),
                key=FOREIGN.sub("?", key),
            )
        # Anyone may write a salt, and each costs a scrypt: only that of the project counts.
        project = _claimed_project(body)
        if project is None or authentication.get("salt") != salt_of(project).hex():
            return None
        return _signature(body, (key, secrets_by_key[key]), salt_of(project), derive_key)
    raise DamagedError(_("The manifest names an unknown way of authentication."))


def _claimed_project(body: bytes) -> str | None:
    match = CLAIMED_PROJECT.search(body, 0, CLAIM_WITHIN)
    try:
        project = json.loads(match[1]) if match else None
        return project if isinstance(project, str) and project.encode() else None
    except ValueError:  # no JSON, or a lone surrogate
        return None


def _checksum(body: bytes) -> dict[str, str]:
    return {"algorithm": CHECKSUM, "digest": hashlib.sha256(body).hexdigest()}


def _signature(
    body: bytes, key: tuple[str, bytes], salt: bytes, derive_key: DeriveKey
) -> dict[str, str]:
    digest = hmac.digest(derive_key(key[1], salt), body, "sha256").hex()
    return {"algorithm": HMAC, "key": key[0], "salt": salt.hex(), "digest": digest}


def _written(authentication: Mapping[str, str]) -> bytes:
    return json.dumps(authentication).encode() + b"\n}\n"
