"""Every encryption keeps the contract, with the real program."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipyme_backup.encryption import GPG, Encryption
from mipyme_backup.testing import EncryptionContract


def passphrase_file(path: Path, secret: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n")
    return path


@pytest.mark.usefixtures("gpg")
class TestGPG(EncryptionContract):
    @pytest.fixture
    def encryption(self, tmp_path: Path) -> Encryption:
        return GPG(passphrase_file=passphrase_file(tmp_path / "ours", "correct horse"))

    @pytest.fixture
    def stranger(self, tmp_path: Path) -> Encryption:
        return GPG(passphrase_file=passphrase_file(tmp_path / "theirs", "battery staple"))
