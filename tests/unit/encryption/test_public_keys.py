"""Encryption to public keys: what a host can read, and which keys are refused."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mipyme_backup.encryption import GPG
from mipyme_backup.encryption.program import command, encrypt_arguments, keyring_command
from mipyme_backup.errors import (
    ConfigurationError,
    DamagedError,
    KeyMissingError,
    PreflightError,
)
from mipyme_backup.private_files import unfinished
from mipyme_backup.testing import BytesReader, read_whole
from tests import pod
from tests.keyrings import Ring, home, keyring, public_half

pytestmark = pytest.mark.usefixtures("gpg")

PLAIN = b"telling text\n" * 2000


@pytest.fixture(scope="module")
def ring() -> Iterator[Ring]:
    with keyring("backup") as made:
        yield made


@pytest.fixture(scope="module")
def public(ring: Ring) -> Iterator[Ring]:
    with public_half(ring) as half:
        yield half


@pytest.fixture
def owner(ring: Ring) -> GPG:
    return GPG(recipients=[ring.fingerprint], home=ring.home)


@pytest.fixture
def host(public: Ring, workdir: Path) -> GPG:
    """The encryption of a host that has no secret key."""
    encryption = GPG(recipients=[public.fingerprint], home=public.home)
    encryption.host_secret_file = workdir / "state" / "host_secret"
    return encryption


def encrypted(encryption: GPG, *, readable_here: bool = False) -> bytes:
    return read_whole(encryption.encrypt(BytesReader(PLAIN), readable_here=readable_here))


def decrypted(encryption: GPG, data: bytes, *, readable_here: bool = False) -> bytes:
    key = encryption.key_fingerprint
    return read_whole(encryption.decrypt(BytesReader(data), key, readable_here=readable_here))


def test_the_host_encrypts_what_only_the_owner_decrypts(host: GPG, owner: GPG) -> None:
    assert host.preflight() == []
    stored = encrypted(host)

    assert decrypted(owner, stored) == PLAIN
    assert owner.opens(host.key_fingerprint) and not host.opens(host.key_fingerprint)
    with pytest.raises(KeyMissingError) as caught:
        decrypted(host, stored)
    assert host.key_fingerprint in str(caught.value)
    assert caught.value.exit_status == 4


def test_the_host_reads_again_what_it_keeps_for_itself(host: GPG, owner: GPG) -> None:
    stored = encrypted(host, readable_here=True)

    assert decrypted(host, stored, readable_here=True) == PLAIN
    assert decrypted(owner, stored) == PLAIN
    assert host.host_secret_file is not None
    assert host.host_secret_file.stat().st_mode & 0o777 == 0o600
    assert host.host_secret_file.parent.stat().st_mode & 0o777 == 0o700


def test_a_host_that_lost_its_secret_says_so(host: GPG) -> None:
    stored = encrypted(host, readable_here=True)
    assert host.host_secret_file is not None
    host.host_secret_file.unlink()

    with pytest.raises(KeyMissingError):
        decrypted(host, stored, readable_here=True)

    encrypted(host, readable_here=True)  # makes another one, which does not open it either
    with pytest.raises(DamagedError):
        decrypted(host, stored, readable_here=True)


def test_secret_that_a_full_disk_cut_short_is_made_anew(host: GPG) -> None:
    assert host.host_secret_file is not None
    host.host_secret_file.parent.mkdir(mode=0o700)
    Path(unfinished(host.host_secret_file)).touch(mode=0o600)

    assert decrypted(host, encrypted(host, readable_here=True), readable_here=True) == PLAIN
    assert [*host.host_secret_file.parent.iterdir()] == [host.host_secret_file]


def test_secret_that_a_restarted_pod_opened_to_its_group_is_kept(host: GPG) -> None:
    stored = encrypted(host, readable_here=True)
    assert host.host_secret_file is not None
    with pod.of_group() as group:
        pod.restart(host.host_secret_file.parent, group)

        encrypted(host, readable_here=True)

        assert decrypted(host, stored, readable_here=True) == PLAIN
    assert [*host.host_secret_file.parent.iterdir()] == [host.host_secret_file]
    assert host.host_secret_file.stat().st_mode & 0o777 == 0o600


def test_every_recipient_opens_what_was_encrypted_to_several(ring: Ring, public: Ring) -> None:
    with keyring("second") as second:
        public.run("--import", stdin=second.run("--export", second.fingerprint))
        both = GPG(recipients=[second.fingerprint, ring.fingerprint], home=public.home)
        stored = encrypted(both)

        for holder in (ring, second):
            own = GPG(recipients=[holder.fingerprint], home=holder.home)
            assert own.opens(both.key_fingerprint)
            reader = own.decrypt(BytesReader(stored), both.key_fingerprint)
            assert read_whole(reader) == PLAIN
        other_order = GPG(recipients=[ring.fingerprint, second.fingerprint], home=public.home)
        assert other_order.key_fingerprint == both.key_fingerprint


def test_a_project_that_changed_to_public_keys_still_opens_old_backups(
    public: Ring, ring: Ring, workdir: Path
) -> None:
    file = workdir / "passphrase"
    file.touch(mode=0o600)
    file.write_text("old one\n")
    before = GPG(passphrase_file=file)
    stored = encrypted(before)
    after = GPG(recipients=[public.fingerprint], home=public.home, old_passphrase_files=[file])

    assert read_whole(after.decrypt(BytesReader(stored), before.key_fingerprint)) == PLAIN
    assert before.key_fingerprint in after.authentication_secrets()
    back = GPG(passphrase_file=file, home=ring.home)
    reader = back.decrypt(BytesReader(encrypted(after)), after.key_fingerprint)
    assert read_whole(reader) == PLAIN


def test_plain_gpg_reads_what_was_written(host: GPG, ring: Ring) -> None:
    for readable_here in (False, True):
        stored = encrypted(host, readable_here=readable_here)
        assert ring.run("--decrypt", stdin=stored) == PLAIN


def test_nothing_is_written_to_the_keyring(host: GPG, public: Ring) -> None:
    before = {path: path.stat().st_mtime_ns for path in public.home.rglob("*")}

    host.preflight()
    encrypted(host, readable_here=True)

    assert {path: path.stat().st_mtime_ns for path in public.home.rglob("*")} == before


@pytest.mark.parametrize(
    "text", ["backup@example.com", "DE90EC6B78E69DC5", "0x" + "A" * 40, "A" * 39, "--version", 7]
)
def test_a_recipient_is_a_whole_fingerprint(text: str) -> None:
    with pytest.raises(ConfigurationError, match="fingerprint"):
        GPG(recipients=[text])


def test_spaces_and_small_letters_do_no_harm(ring: Ring) -> None:
    spaced = " ".join(ring.fingerprint[i : i + 4] for i in range(0, 40, 4)).lower()

    assert GPG(recipients=[spaced], home=ring.home).key_fingerprint == ring.fingerprint


def test_either_a_passphrase_or_recipients(tmp_path: Path) -> None:
    for options in ({}, {"passphrase_file": tmp_path, "recipients": ["A" * 40]}):
        with pytest.raises(ConfigurationError, match="either"):
            GPG(**options)  # type: ignore[arg-type]


def refusal(home: Path, fingerprint: str) -> str:
    with pytest.raises(PreflightError) as caught:
        GPG(recipients=[fingerprint], home=home).preflight()
    assert caught.value.hint.text
    return str(caught.value)


def test_a_key_that_is_not_in_the_keyring_is_refused(ring: Ring) -> None:
    assert "there is none" in refusal(ring.home, "A" * 40)


def test_a_keyring_that_is_not_there_is_refused(ring: Ring, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere", ring.fingerprint)
    with home() as empty:
        assert "there is none" in refusal(empty, ring.fingerprint)


def test_an_expired_key_is_refused_before_anything_is_dumped() -> None:
    with keyring("late", expires="seconds=1") as late:
        time.sleep(2)
        assert "expired" in refusal(late.home, late.fingerprint)


def test_a_key_that_expires_soon_is_a_warning() -> None:
    with keyring("soon", expires="5d") as soon:
        (warning,) = GPG(recipients=[soon.fingerprint], home=soon.home).preflight()

        assert "expires on" in str(warning)


def test_a_revoked_key_is_refused() -> None:
    with keyring("revoked") as revoked:
        certificate = revoked.home / "openpgp-revocs.d" / f"{revoked.fingerprint}.rev"
        text = certificate.read_text().replace(":-----BEGIN", "-----BEGIN")
        revoked.run("--import", stdin=text.encode())

        assert "revoked" in refusal(revoked.home, revoked.fingerprint)


def test_a_key_that_only_signs_is_refused() -> None:
    with home() as folder:
        ring = Ring(home=folder, fingerprint="")
        ring.run("--passphrase", "", "--quick-gen-key", "signer", "ed25519", "sign", "never")
        listed = ring.run("--list-keys", "--with-colons").decode()
        fingerprint = next(x for x in listed.splitlines() if x.startswith("fpr")).split(":")[9]

        assert "encrypt" in refusal(folder, fingerprint)


def test_no_agent_is_started_by_a_host_that_only_encrypts(host: GPG, public: Ring) -> None:
    subprocess.run(["gpgconf", "--homedir", public.home, "--kill", "all"])  # that of the import
    host.preflight()
    host.opens(host.key_fingerprint)
    encrypted(host, readable_here=True)

    found = subprocess.run(["pgrep", "-f", str(public.home)], capture_output=True).stdout
    assert found == b""


def test_the_command_lines_are_exactly_these() -> None:
    own = Path("/tmp/h")
    arguments = encrypt_arguments([own / "recipient-0"], symmetric=False)

    assert command(own, None, arguments) == [
        *("gpg", "--homedir", "/tmp/h", "--no-options", "--batch", "--no-tty", "--quiet"),
        *("--no-autostart", "--no-symkey-cache", "--status-fd", "2"),
        *("--cipher-algo=AES256", "--compress-algo=none"),
        *("--encrypt", "--trust-model=always", "--recipient-file=/tmp/h/recipient-0"),
    ]
    assert keyring_command(own) == [
        *("gpg", "--homedir", "/tmp/h", "--no-options", "--batch", "--quiet"),
        *("--status-fd", "2", "--decrypt"),
    ]


def test_the_host_secret_shows_in_no_process(host: GPG) -> None:
    class Endless:
        def read(self, size: int, /) -> bytes:
            return os.urandom(size)

        def close(self) -> None: ...

    reader = host.encrypt(Endless(), readable_here=True)
    try:
        assert reader.read(100)
        assert host.host_secret_file is not None
        secret = host.host_secret_file.read_bytes().strip()
        seen = b"".join(
            (Path("/proc") / pid / name).read_bytes()
            for pid in map(str, children_named("gpg"))
            for name in ("cmdline", "environ")
        )
    finally:
        reader.close()
    assert b"recipient-0" in seen
    assert secret not in seen


def children_named(name: str) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-x", name], capture_output=True, text=True
    )
    return [int(line) for line in found.stdout.split()]


class TestExpiry:
    def test_key_that_never_expires(self, host: GPG) -> None:
        assert host.expires_at() is None

    def test_first_of_several_recipients_counts(self) -> None:
        with keyring("soon", expires="10d") as soon, keyring("later", expires="90d") as later:
            soon.run("--import", stdin=later.run("--export", later.fingerprint))
            both = GPG(recipients=[later.fingerprint, soon.fingerprint], home=soon.home)

            expires = both.expires_at()

        assert expires is not None
        assert abs(expires - datetime.now(UTC) - timedelta(days=10)) < timedelta(hours=1)

    def test_key_that_has_expired(self) -> None:
        with keyring("gone", expires="seconds=1") as gone:
            time.sleep(2)
            expires = GPG(recipients=[gone.fingerprint], home=gone.home).expires_at()

        assert expires is not None
        assert timedelta(0) < datetime.now(UTC) - expires < timedelta(minutes=5)

    def test_part_of_it_that_encrypts_has_expired(self) -> None:
        with keyring("part") as ring:
            ring.run("--quick-set-expire", ring.fingerprint, "seconds=1", "*")
            time.sleep(2)
            expires = GPG(recipients=[ring.fingerprint], home=ring.home).expires_at()

        assert expires is not None and expires < datetime.now(UTC)

    def test_passphrase_does_not_expire(self, workdir: Path) -> None:
        secret = workdir / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("correct horse battery staple\n")

        assert GPG(passphrase_file=secret).expires_at() is None
