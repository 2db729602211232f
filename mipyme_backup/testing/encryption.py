"""The contract of encryption."""

from __future__ import annotations

import re
from pathlib import Path

from mipyme_backup.encryption import Encryption
from mipyme_backup.errors import BackupError, KeyMissingError, SourceError
from mipyme_backup.process import CHUNK
from mipyme_backup.testing.readers import BytesReader, raising, read_whole


class EncryptionContract:
    """What every encryption holds to; give the fixtures ``encryption`` and ``stranger``."""

    plain = b"a telling plain text, " * 4000

    def _encrypted(self, encryption: Encryption, data: bytes) -> bytes:
        return read_whole(encryption.encrypt(BytesReader(data)))

    def _decrypted(self, encryption: Encryption, data: bytes) -> bytes:
        key = encryption.key_fingerprint
        return read_whole(encryption.decrypt(BytesReader(data), key))

    def test_preflight_passes(self, encryption: Encryption) -> None:
        encryption.preflight()

    def test_what_was_encrypted_is_decrypted(self, encryption: Encryption) -> None:
        for data in (b"", b"x", self.plain, bytes(CHUNK), bytes(range(256)) * 12_000):
            assert self._decrypted(encryption, self._encrypted(encryption, data)) == data

    def test_nothing_of_the_plain_text_shows(self, encryption: Encryption) -> None:
        assert b"telling" not in self._encrypted(encryption, self.plain)

    def test_a_reading_is_bounded(self, encryption: Encryption) -> None:
        reader = encryption.encrypt(BytesReader(self.plain))
        try:
            assert 0 < len(reader.read(10)) <= 10
        finally:
            reader.close()
            reader.close()

    def test_the_fingerprint_is_stable_and_the_keys_own(
        self, encryption: Encryption, stranger: Encryption
    ) -> None:
        before = encryption.key_fingerprint
        self._encrypted(encryption, b"content")

        assert before == encryption.key_fingerprint != stranger.key_fingerprint
        assert re.fullmatch(r"[0-9A-Za-z:.-]{8,}", before)

    def test_the_present_key_authenticates_first(self, encryption: Encryption) -> None:
        secrets = encryption.authentication_secrets()

        assert encryption.proves_author == (encryption.key_fingerprint in secrets)
        assert not secrets or next(iter(secrets)) == encryption.key_fingerprint
        assert all(len(secret) >= 1 for secret in secrets.values())
        assert all(secret.hex()[:16] != key for key, secret in secrets.items())

    def test_what_this_host_reads_again_is_read_by_the_key_too(
        self, encryption: Encryption, workdir: Path
    ) -> None:
        encryption.host_secret_file = workdir / "host_secret"
        data = read_whole(encryption.encrypt(BytesReader(self.plain), readable_here=True))
        key = encryption.key_fingerprint

        for readable_here in (True, False):
            reader = encryption.decrypt(BytesReader(data), key, readable_here=readable_here)
            assert read_whole(reader) == self.plain

    def test_it_says_which_keys_are_at_hand(
        self, encryption: Encryption, stranger: Encryption
    ) -> None:
        assert encryption.opens(encryption.key_fingerprint)
        assert not encryption.opens(stranger.key_fingerprint)
        assert not encryption.opens("0123456789abcdef")

    def test_a_key_that_is_not_at_hand_is_named(
        self, encryption: Encryption, stranger: Encryption
    ) -> None:
        data = self._encrypted(stranger, self.plain)

        with raising(KeyMissingError):
            read_whole(encryption.decrypt(BytesReader(data), stranger.key_fingerprint))

    def test_what_another_key_encrypted_is_refused(
        self, encryption: Encryption, stranger: Encryption
    ) -> None:
        with raising(BackupError):
            self._decrypted(encryption, self._encrypted(stranger, self.plain))

    def test_what_was_never_encrypted_is_refused(self, encryption: Encryption) -> None:
        for data in (b"", b"plain", self.plain):
            with raising(BackupError):
                self._decrypted(encryption, data)

    def test_a_flipped_bit_is_found_wherever_it_is(self, encryption: Encryption) -> None:
        data = self._encrypted(encryption, self.plain)
        step = max(1, len(data) // 16)
        for position in {*range(0, len(data), step), len(data) - 1}:
            flipped = bytearray(data)
            flipped[position] ^= 0x10
            with raising(BackupError):
                self._decrypted(encryption, bytes(flipped))

    def test_a_missing_end_is_found(self, encryption: Encryption) -> None:
        data = self._encrypted(encryption, self.plain)
        for length in (1, 20, len(data) // 2, len(data) - 1):
            with raising(BackupError):
                self._decrypted(encryption, data[:length])

    def test_the_error_of_what_feeds_it_is_the_one_raised(self, encryption: Encryption) -> None:
        broken = SourceError("the source broke")
        for make in (
            encryption.encrypt,
            lambda reader: encryption.decrypt(reader, encryption.key_fingerprint),
        ):
            upstream = BytesReader(self.plain, error=broken)
            with raising(SourceError) as raised:
                read_whole(make(upstream))

            assert raised.error is broken
            assert upstream.closed
