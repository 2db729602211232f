"""OpenPGP encryption by GnuPG: AES-256, binary, to a passphrase or to public keys."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from mipyme_backup.encryption import program
from mipyme_backup.encryption.base import Encryption
from mipyme_backup.encryption.keyring import (
    FINGERPRINT,
    Keyring,
    PublicKey,
    checked_fingerprint,
)
from mipyme_backup.encryption.passphrase import fingerprint, read_secret
from mipyme_backup.errors import ConfigurationError, EncryptionError, KeyMissingError, StateError
from mipyme_backup.messages import Message, _
from mipyme_backup.private_files import make_folder, replace_file
from mipyme_backup.process import Reader
from mipyme_backup.state import State, set_aside

logger = logging.getLogger("mipyme_backup")

JOINT = "."
"""Between the fingerprints of several recipients, where one name is needed for all."""
WARN_BEFORE = timedelta(days=30)


class GPG(Encryption):
    """Encrypts to the passphrase in `passphrase_file`, or to the public keys `recipients`.

    Recipients are whole fingerprints of keys in the keyring `home`; each of them opens every
    backup. `old_passphrase_files` still open what they once closed, in either mode, and so does
    a secret key in `home`.
    """

    suffix = ".gpg"

    def __init__(
        self,
        *,
        passphrase_file: str | Path | None = None,
        old_passphrase_files: Sequence[str | Path] = (),
        recipients: Sequence[str] = (),
        home: str | Path | None = None,
    ) -> None:
        if (passphrase_file is None) == (not recipients):
            raise ConfigurationError(
                _("ENCRYPTION.OPTIONS needs either passphrase_file or recipients."),
                hint=_("Old passphrases beside recipients go into old_passphrase_files."),
            )
        if isinstance(recipients, str):
            raise ConfigurationError(_("ENCRYPTION.OPTIONS.recipients must be a list."))
        self._recipients = sorted({checked_fingerprint(text) for text in recipients})
        self._present = Path(passphrase_file) if passphrase_file is not None else None
        self._old = [Path(file) for file in old_passphrase_files]
        self._keyring = Keyring(home)
        self.proves_author = not self._recipients
        self.method = "gpg-public-key-aes256" if self._recipients else "gpg-symmetric-aes256"

    @cached_property
    def _secrets(self) -> dict[str, bytes]:
        files = [*([self._present] if self._present else []), *self._old]
        found = [read_secret(file) for file in files]
        return {fingerprint(secret): secret for secret in found}

    @property
    def key_fingerprint(self) -> str:
        return JOINT.join(self._recipients) or next(iter(self._secrets))

    def authentication_secrets(self) -> dict[str, bytes]:
        return dict(self._secrets)

    def preflight(self) -> list[Message]:
        program.preflight()
        self._secrets  # noqa: B018 - reads the passphrase files, and raises what is wrong
        text = _("The key %(key)s expires on %(date)s: no backup can be made after that.")
        return [
            Message(text, {"key": key.fingerprint, "date": f"{key.expires:%Y-%m-%d}"})
            for key in self._public_keys
            if key.expires is not None and key.expires < datetime.now(UTC) + WARN_BEFORE
        ]

    def opens(self, key_fingerprint: str) -> bool:
        if key_fingerprint in self._secrets:
            return True
        keys = _public_fingerprints(key_fingerprint)
        return bool(keys) and self._keyring.holds_secret_of(keys)

    def expires_at(self) -> datetime | None:
        found = [self._keyring.expiry(fingerprint) for fingerprint in self._recipients]
        return min(filter(None, found), default=None)

    def encrypt(self, upstream: Reader, *, readable_here: bool = False) -> Reader:
        with _closing_on_error(upstream):
            if self._recipients:
                secret = self._host_secret(make=True) if readable_here else None
                recipients = [key.content for key in self._public_keys]
            else:
                secret, recipients = self._secrets[self.key_fingerprint], []
        return program.encrypting(upstream, secret=secret, recipients=recipients)

    def decrypt(
        self, upstream: Reader, key_fingerprint: str, *, readable_here: bool = False
    ) -> Reader:
        with _closing_on_error(upstream):
            secret = self._secrets.get(key_fingerprint)
            public = _public_fingerprints(key_fingerprint)
            by_keyring = bool(public) and self._keyring.holds_secret_of(public)
            if secret is None and not by_keyring and public and readable_here:
                secret = self._host_secret(make=False)
            if secret is None and not by_keyring:
                raise _key_missing(key_fingerprint, public=bool(public))
        if secret is not None:
            return program.decrypting(upstream, secret=secret)
        return program.decrypting_by_keyring(upstream, self._keyring.home)

    @cached_property
    def _public_keys(self) -> list[PublicKey]:
        return [self._keyring.public_key(fingerprint) for fingerprint in self._recipients]

    def _host_secret(self, *, make: bool) -> bytes | None:
        """Return what this host opens its own media index with, made once; None without a place."""
        file = self.host_secret_file
        if file is None:
            return None
        with contextlib.suppress(StateError, OSError):
            State(file.parent).make_private(file.name)
        if make and os.path.lexists(file) and not _is_readable(file):
            logger.warning("%s is not this user's own: it is set aside, and another is made.", file)
            set_aside(file)
        if make and not file.exists():
            make_folder(file.parent)
            replace_file(file, f"{secrets.token_urlsafe(32)}\n".encode())
        return read_secret(file) if file.exists() else None


def _is_readable(file: Path) -> bool:
    try:
        return bool(read_secret(file))
    except EncryptionError:
        return False


@contextlib.contextmanager
def _closing_on_error(reader: Reader) -> Iterator[None]:
    """Close a reader that was given away, where nobody came to take it over."""
    try:
        yield
    except BaseException:
        reader.close()
        raise


def _public_fingerprints(key_fingerprint: str) -> list[str]:
    """Return the fingerprints of the recipients; empty where the name is that of a passphrase."""
    parts = key_fingerprint.split(JOINT)
    return parts if all(FINGERPRINT.fullmatch(part) for part in parts) else []


def _key_missing(key_fingerprint: str, *, public: bool) -> EncryptionError:
    if public:
        return KeyMissingError(
            _("No secret key at hand opens this backup: it was encrypted to %(key)s."),
            hint=_(
                "Where that is on purpose, restore on the machine that has it; else import it into"
                " the keyring that ENCRYPTION names as home."
            ),
            key=key_fingerprint,
        )
    return KeyMissingError(
        _("No passphrase at hand opens this backup: it was made with key %(key)s."),
        hint=_("Name the file of that passphrase in passphrase_file or old_passphrase_files."),
        key=key_fingerprint,
    )
