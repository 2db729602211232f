"""What encryption is to the rest: a stage of the stream, and a secret that authenticates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path

from mipyme_backup.messages import Message
from mipyme_backup.process import Reader


class Encryption(ABC):
    """Turns a stream into its encrypted form and back.

    `suffix` is what encrypted file names end in, `method` how manifests call it.
    `key_fingerprint` names the present key without giving it away; decryption picks the key
    that a manifest names by it. `proves_author` is False where whoever knows the key may
    encrypt, so that a signing key is needed. `host_secret_file` is where this host may keep a
    secret of its own, for what it has to read again; None where it may not.
    """

    suffix: str
    method: str
    proves_author = True
    host_secret_file: Path | None = None

    @property
    @abstractmethod
    def key_fingerprint(self) -> str:
        """Stable name of the key that `encrypt` uses."""

    @abstractmethod
    def preflight(self) -> list[Message]:
        """Return what is doubtful; raise PreflightError or EncryptionError for what forbids it."""

    @abstractmethod
    def opens(self, key_fingerprint: str) -> bool:
        """Say whether a key at hand decrypts what was encrypted with `key_fingerprint`."""

    def expires_at(self) -> datetime | None:
        """Return when `encrypt` will stop working, or did; None where it will not.

        Raises PreflightError where the key cannot be looked at.
        """
        return None

    @abstractmethod
    def encrypt(self, upstream: Reader, *, readable_here: bool = False) -> Reader:
        """Return the encrypted stream of `upstream`.

        What is `readable_here` is decrypted by this host even where its key only encrypts.
        """

    @abstractmethod
    def decrypt(
        self, upstream: Reader, key_fingerprint: str, *, readable_here: bool = False
    ) -> Reader:
        """Return the plain stream; raise KeyMissingError where no key at hand fits.

        `readable_here` is what `encrypt` was told.
        """

    @abstractmethod
    def authentication_secrets(self) -> dict[str, bytes]:
        """Return the secrets that may authenticate a manifest, by fingerprint; newest first."""
