"""GnuPG keyrings: which public keys a fingerprint means, and whether they are good."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gnupg

from mipyme_backup.errors import ConfigurationError, PreflightError
from mipyme_backup.messages import _

FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
STATES = {"r": _("revoked"), "e": _("expired"), "d": _("disabled"), "i": _("invalid")}
# Nothing of the keyring is to be changed, and it may be on a read-only mount.
OPTIONS = ("--no-auto-check-trustdb", "--no-autostart", "--lock-never", "--no-options")


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A key that encrypts: `content` is its export, `expires` None where it does not."""

    fingerprint: str
    user: str
    expires: datetime | None
    content: bytes


def checked_fingerprint(text: object) -> str:
    """Return a whole fingerprint as GnuPG writes it; ConfigurationError for anything else.

    Names and short ids would leave it to the keyring whose key is meant.
    """
    fingerprint = re.sub(r"\s", "", text).upper() if isinstance(text, str) else ""
    if not FINGERPRINT.fullmatch(fingerprint):
        raise ConfigurationError(
            _("%(text)r in ENCRYPTION.OPTIONS.recipients is no whole fingerprint of a key."),
            hint=_("gpg --fingerprint shows it: 40 hexadecimal digits (64 of newer keys)."),
            text=text,
        )
    return fingerprint


class Keyring:
    """The keys in the folder `home`, by default in GnuPG's own."""

    def __init__(self, home: str | Path | None) -> None:
        self.home = Path(home or os.environ.get("GNUPGHOME") or Path.home() / ".gnupg")

    def public_key(self, fingerprint: str) -> PublicKey:
        """Return the key; raises PreflightError where it is not there, or must not be used."""
        tool = self._tool()
        found = [key for key in tool.list_keys(keys=[fingerprint]) if _is(key, fingerprint)]
        if not found:
            raise self._refused(fingerprint, _("there is none"))
        state = found[0]["trust"]
        if state in STATES:
            raise self._refused(fingerprint, STATES[state])
        # The capital letter: it, or one of its subkeys, can encrypt now.
        if "E" not in found[0]["cap"]:
            raise self._refused(fingerprint, _("no part of it can encrypt (any more)"))
        content = tool.export_keys(fingerprint, armor=False)
        if not content:
            raise self._refused(fingerprint, _("it cannot be exported"))
        return PublicKey(
            fingerprint=fingerprint,
            user=next(iter(found[0]["uids"]), ""),
            expires=_expiry(found[0]),
            content=content,
        )

    def expiry(self, fingerprint: str) -> datetime | None:
        """Return when the key stops encrypting, or did; None where it does not, or is not here."""
        found = [key for key in self._tool().list_keys(keys=[fingerprint]) if _is(key, fingerprint)]
        return _expiry(found[0]) if found else None

    def holds_secret_of(self, fingerprints: Iterable[str]) -> bool:
        """Say whether the secret part of one of the keys is here.

        GnuPG keeps each in a file that is named by its keygrip, also where it is on a card. To
        ask gpg would start an agent, and leave it running.
        """
        if not (self.home / "private-keys-v1.d").is_dir():
            return False
        wanted = set(fingerprints)
        grips = [
            grip
            for key in self._tool().list_keys(keys=sorted(wanted))
            if key["fingerprint"] in wanted
            for grip in (key["keygrip"], *(subkey[3] for subkey in key["subkeys"]))
        ]
        return any((self.home / "private-keys-v1.d" / f"{grip}.key").exists() for grip in grips)

    def _tool(self) -> Any:
        if not self.home.is_dir() or not os.access(self.home, os.R_OK | os.X_OK):
            raise PreflightError(
                _("The keyring %(home)s is no folder that can be read."),
                hint=_("Set ENCRYPTION.OPTIONS.home to a GnuPG home that has the public key."),
                home=self.home,
            )
        try:
            return gnupg.GPG(gnupghome=str(self.home), options=[*OPTIONS])
        except OSError as error:
            raise PreflightError(
                _("gpg cannot be run: %(reason)s"),
                hint=_("Install it: sudo apt-get install gnupg"),
                reason=error.strerror or error,
            ) from error

    def _refused(self, fingerprint: str, reason: str) -> PreflightError:
        return PreflightError(
            _("The key %(fingerprint)s in the keyring %(home)s cannot be used: %(reason)s."),
            hint=_("Import a good one (gpg --homedir %(home)s --import FILE), or name another."),
            fingerprint=fingerprint,
            home=self.home,
            reason=reason,
        )


def _is(key: Mapping[str, Any], fingerprint: str) -> bool:
    return bool(key["fingerprint"] == fingerprint)


def _expiry(key: Mapping[str, Any]) -> datetime | None:
    """Return when the key, or the last of its subkeys that encrypt, expires."""
    encrypting = [info for info in key.get("subkey_info", {}).values() if "e" in info["cap"]]
    usable = [info for info in encrypting if info["trust"] not in STATES]
    expired = [info for info in encrypting if info["trust"] == "e"]
    subkeys = [info["expires"] for info in usable or expired]
    last = None if "" in subkeys else max(map(int, subkeys), default=None)
    stamps = [int(stamp) for stamp in (key["expires"], last) if stamp]
    return datetime.fromtimestamp(min(stamps), UTC) if stamps else None
