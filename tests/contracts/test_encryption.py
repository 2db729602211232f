"""Every encryption keeps the contract, with the real program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mipyme_backup.encryption import GPG, Encryption
from mipyme_backup.testing import EncryptionContract
from tests.keyrings import Ring, keyring


@pytest.fixture(scope="module")
def rings() -> Iterator[list[Ring]]:
    with keyring("ours") as ours, keyring("theirs") as theirs:
        yield [ours, theirs]


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


@pytest.mark.usefixtures("gpg")
class TestGPGWithPublicKeys(EncryptionContract):
    @pytest.fixture
    def encryption(self, rings: list[Ring]) -> Encryption:
        return GPG(recipients=[rings[0].fingerprint], home=rings[0].home)

    @pytest.fixture
    def stranger(self, rings: list[Ring]) -> Encryption:
        return GPG(recipients=[rings[1].fingerprint], home=rings[1].home)
