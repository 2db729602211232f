"""How bytes are kept from others' eyes."""

from mipyme_backup.encryption.base import Encryption
from mipyme_backup.encryption.gpg import GPG

__all__ = ["GPG", "Encryption"]
