"""What encryption is to the rest: a stage of the stream, and a secret that authenticates."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mipyme_backup.process import Reader


class Encryption(ABC):
    """Turns a stream into its encrypted form and back.

    `suffix` is what encrypted file names end in. `key_fingerprint` names the present key
    without giving it away; decryption picks the key that a manifest names by it.
    """

    suffix: str
    method: str

    @property
    @abstractmethod
    def key_fingerprint(self) -> str:
        """Stable name of the key that `encrypt` uses."""

    @abstractmethod
    def preflight(self) -> None:
        """Raise PreflightError or EncryptionError when encryption would not work now."""

    @abstractmethod
    def encrypt(self, upstream: Reader) -> Reader:
        """Return the encrypted stream of `upstream`."""

    @abstractmethod
    def decrypt(self, upstream: Reader, key_fingerprint: str) -> Reader:
        """Return the plain stream; raise KeyMissingError where no key at hand fits."""

    @abstractmethod
    def authentication_secrets(self) -> dict[str, bytes]:
        """Return the secrets that may authenticate a manifest, by fingerprint; newest first."""
