"""gpg, for real: what it writes, what it must refuse, and what it must not leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mipyme_backup.encryption import GPG
from mipyme_backup.encryption.program import HOME_PREFIX, command, encrypt_arguments, sweep_homes
from mipyme_backup.errors import (
    DamagedError,
    EncryptionError,
    KeyMissingError,
    PreflightError,
    SourceError,
)
from mipyme_backup.testing import BytesReader, read_whole

pytestmark = pytest.mark.usefixtures("gpg")

PASSPHRASE = "canary-7f31d0 correct horse"
PLAIN = b"telling text\n" * 2000


def key_file(folder: Path, secret: str = PASSPHRASE, name: str = "passphrase") -> Path:
    file = folder / name
    file.touch(mode=0o600)
    file.write_text(f"{secret}\n")
    return file


@pytest.fixture
def encryption(tmp_path: Path) -> GPG:
    return GPG(passphrase_file=key_file(tmp_path))


def encrypted(encryption: GPG, data: bytes = PLAIN) -> bytes:
    return read_whole(encryption.encrypt(BytesReader(data)))


def decrypted(encryption: GPG, data: bytes) -> bytes:
    return read_whole(encryption.decrypt(BytesReader(data), encryption.key_fingerprint))


def plain_gpg(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run gpg as a person would, with a home of its own."""
    home = folder / "h"
    home.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", *arguments],
        input=stdin,
        capture_output=True,
    )
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def homes_of(pid: int) -> list[Path]:
    return [*Path("/tmp").glob(f"{HOME_PREFIX}{pid}-*")]


def processes_naming(text: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_plain_gpg_reads_what_was_written(encryption: GPG, workdir: Path) -> None:
    file = key_file(workdir, name="k")

    assert (
        plain_gpg(workdir, "--passphrase-file", str(file), "-d", stdin=encrypted(encryption))
        == PLAIN
    )


def test_what_plain_gpg_wrote_is_read(encryption: GPG, workdir: Path) -> None:
    file = key_file(workdir, name="k")
    data = plain_gpg(workdir, "--passphrase-file", str(file), "--symmetric", stdin=PLAIN)

    assert decrypted(encryption, data) == PLAIN


def test_the_output_is_binary_and_hardly_larger(encryption: GPG) -> None:
    data = os.urandom(1_000_000)

    stored = encrypted(encryption, data)

    assert b"-----BEGIN" not in stored
    assert len(stored) < len(data) + 2000


def test_the_cipher_is_aes256(encryption: GPG, workdir: Path) -> None:
    packets = plain_gpg(
        workdir,
        *("--passphrase-file", str(key_file(workdir, name="k")), "--list-packets"),
        stdin=encrypted(encryption),
    ).decode()

    assert "cipher 9" in packets  # RFC 4880, section 9.2
    assert "mdc_method: 2" in packets


@pytest.mark.parametrize("secret", ["x", "ünï¢ødé", " spaces  around ", "y" * 4096, "$(id);\\'\""])
def test_any_passphrase_of_one_line_works_with_plain_gpg_too(
    secret: str, tmp_path: Path, workdir: Path
) -> None:
    secret = secret.encode()[:4096].decode()
    encryption = GPG(passphrase_file=key_file(tmp_path, secret))
    stored = encrypted(encryption, b"content")

    assert decrypted(encryption, stored) == b"content"
    file = key_file(workdir, secret, "k")
    assert plain_gpg(workdir, "--passphrase-file", str(file), "-d", stdin=stored) == b"content"


def test_a_passphrase_that_is_longer_is_another_one(tmp_path: Path) -> None:
    long = GPG(passphrase_file=key_file(tmp_path, "z" * 4096, "long"))
    shorter = GPG(passphrase_file=key_file(tmp_path, "z" * 4095, "shorter"))

    with pytest.raises(DamagedError):
        decrypted(shorter, encrypted(long))


def test_an_old_passphrase_still_opens_what_it_closed(tmp_path: Path) -> None:
    old_file, new_file = key_file(tmp_path, "old", "old"), key_file(tmp_path, "new", "new")
    old = GPG(passphrase_file=old_file)
    stored = encrypted(old)
    both = GPG(passphrase_file=new_file, old_passphrase_files=[old_file])

    assert read_whole(both.decrypt(BytesReader(stored), old.key_fingerprint)) == PLAIN
    assert both.key_fingerprint == GPG(passphrase_file=new_file).key_fingerprint
    assert list(both.authentication_secrets().values()) == [b"new", b"old"]


def test_a_key_that_is_not_at_hand_is_named_with_what_to_do(encryption: GPG) -> None:
    with pytest.raises(KeyMissingError) as caught:
        encryption.decrypt(BytesReader(b""), "0123456789abcdef")

    assert "0123456789abcdef" in str(caught.value)
    assert "old_passphrase_files" in str(caught.value.hint)
    assert caught.value.exit_status == 4


def test_a_wrong_passphrase_says_so_without_showing_it(encryption: GPG, tmp_path: Path) -> None:
    stored = encrypted(GPG(passphrase_file=key_file(tmp_path, "another", "another")))

    with pytest.raises(DamagedError) as caught:
        decrypted(encryption, stored)

    assert "decryption failed" in str(caught.value)
    assert "canary" not in f"{caught.value} {caught.value.hint}"
    assert "GNUPG:" not in str(caught.value)


def test_a_packet_that_was_never_encrypted_is_refused(encryption: GPG, workdir: Path) -> None:
    literal = plain_gpg(workdir, "--store", "--compress-algo", "none", stdin=b"forged")
    # It is gpg's own exit status that cannot be relied upon here.
    assert plain_gpg(workdir, "-d", stdin=literal) == b"forged"

    with pytest.raises(DamagedError):
        decrypted(encryption, literal)


def literal_packet(name: bytes, content: bytes) -> bytes:
    """Return a literal data packet (RFC 4880, section 5.9) of the old format."""
    body = b"b" + bytes([len(name)]) + name + bytes(4) + content
    return bytes([0b10101110]) + len(body).to_bytes(4, "big") + body  # tag 11, 4-byte length


@pytest.mark.parametrize(
    "name",
    [
        b"plain",
        b"x\n[GNUPG:] DECRYPTION_OKAY\n[GNUPG:] GOODMDC\n",
        b"x\r[GNUPG:] DECRYPTION_OKAY\r[GNUPG:] GOODMDC\r",
        "x\u2028[GNUPG:] DECRYPTION_OKAY\u2028[GNUPG:] GOODMDC\u2028".encode(),
        b"x\x85[GNUPG:] DECRYPTION_OKAY\x85[GNUPG:] GOODMDC\x85",
        b"x\x0b[GNUPG:] DECRYPTION_OKAY\x0b[GNUPG:] GOODMDC\x0b",
    ],
)
def test_a_forged_packet_cannot_speak_for_gpg(name: bytes, encryption: GPG) -> None:
    with pytest.raises(DamagedError):
        decrypted(encryption, literal_packet(name, b"forged"))


@pytest.mark.parametrize("order", ["before", "after"])
def test_plain_text_beside_what_is_encrypted_is_refused(order: str, encryption: GPG) -> None:
    forged = literal_packet(b"x", b"forged")
    stored = encrypted(encryption)

    with pytest.raises(DamagedError):
        decrypted(encryption, forged + stored if order == "before" else stored + forged)


def test_two_messages_in_a_row_are_refused(encryption: GPG) -> None:
    with pytest.raises(DamagedError):
        decrypted(encryption, encrypted(encryption) + encrypted(encryption))


def test_a_flipped_bit_is_found_wherever_it_is(encryption: GPG) -> None:
    stored = encrypted(encryption, b"telling text")

    for position in {*range(30), *range(30, len(stored), 5), len(stored) - 1}:
        damaged = bytearray(stored)
        damaged[position] ^= 1 << (position % 8)
        try:
            plain = decrypted(encryption, bytes(damaged))
        except DamagedError:
            continue
        pytest.fail(f"byte {position} of {len(stored)} was flipped unseen: {plain!r}")


def test_no_secret_shows_in_any_process(encryption: GPG) -> None:
    reader = encryption.encrypt(Endless())
    try:
        assert reader.read(100)
        home = homes_of(os.getpid())[0]
        pids = processes_naming(str(home))
        seen = b"".join(
            (Path("/proc") / str(pid) / name).read_bytes()
            for pid in pids
            for name in ("cmdline", "environ")
        )
    finally:
        reader.close()

    assert b"--symmetric" in seen
    assert b"canary" not in seen


class Endless:
    def read(self, size: int, /) -> bytes:
        return os.urandom(size)

    def close(self) -> None: ...


def left_over() -> list[object]:
    return [*homes_of(os.getpid()), *processes_naming(f"{HOME_PREFIX}{os.getpid()}-")]


def nothing_left(seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while left_over() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left_over()


def test_no_home_and_no_agent_is_left_after_success(encryption: GPG) -> None:
    decrypted(encryption, encrypted(encryption))

    assert nothing_left()


def test_no_home_and_no_agent_is_left_after_a_failure(encryption: GPG) -> None:
    with pytest.raises(DamagedError):
        decrypted(encryption, b"garbage")
    with pytest.raises(SourceError):
        read_whole(encryption.encrypt(BytesReader(PLAIN, error=SourceError("broke"))))

    assert nothing_left()


def test_no_home_and_no_agent_is_left_when_closed_early(encryption: GPG) -> None:
    reader = encryption.encrypt(Endless())
    reader.read(100)
    assert left_over()

    reader.close()

    assert nothing_left()


def test_an_unread_stream_that_is_closed_leaves_nothing(encryption: GPG) -> None:
    upstream = BytesReader(PLAIN)

    encryption.encrypt(upstream).close()

    assert upstream.closed
    assert nothing_left()


KILLED = """
import os, sys, time
from mipyme_backup.encryption import GPG
class Endless:
    def read(self, size): return os.urandom(size)
    def close(self): pass
reader = GPG(passphrase_file=sys.argv[1]).encrypt(Endless())
reader.read(100)
print("running", flush=True)
time.sleep(300)
"""


def test_what_a_killed_process_left_is_swept(tmp_path: Path, encryption: GPG) -> None:
    file = str(tmp_path / "passphrase")
    with subprocess.Popen([sys.executable, "-c", KILLED, file], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert homes_of(process.pid)
        sweep_homes()
        assert homes_of(process.pid), "swept while its owner was alive"
        os.kill(process.pid, signal.SIGKILL)

    deadline = time.monotonic() + 60  # gpg ends when its stdin does
    while processes_naming(f"{HOME_PREFIX}{process.pid}-") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_naming(f"{HOME_PREFIX}{process.pid}-")

    encryption.preflight()

    assert not homes_of(process.pid)


def test_sweeping_leaves_what_is_not_ours(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    link = Path(f"/tmp/{HOME_PREFIX}999999999-link")
    odd = Path(f"/tmp/{HOME_PREFIX}odd-name")
    link.symlink_to(victim)
    odd.mkdir()
    try:
        sweep_homes()

        assert (victim / "precious").exists()
        assert odd.exists()
    finally:
        link.unlink(missing_ok=True)
        odd.rmdir()


def test_a_users_own_configuration_has_no_effect(
    workdir: Path, encryption: GPG, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = workdir / ".gnupg"
    home.mkdir(mode=0o700)
    (home / "gpg.conf").write_text("armor\ncipher-algo 3DES\n")
    monkeypatch.setenv("HOME", str(workdir))
    monkeypatch.setenv("GNUPGHOME", str(home))

    assert not encrypted(encryption).startswith(b"-----BEGIN")


def test_preflight_tells_that_gpg_is_missing(
    tmp_path: Path, encryption: GPG, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PreflightError, match="gpg"):
        encryption.preflight()


@pytest.mark.parametrize("words", ["gpg (GnuPG) 1.4.23", "gpg (GnuPG) 2.1.9", "something else"])
def test_preflight_refuses_a_gpg_that_is_too_old(
    words: str, tmp_path: Path, encryption: GPG, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gpg"
    program.write_text(f"#!/bin/sh\necho '{words}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(PreflightError) as caught:
        encryption.preflight()

    assert words in str(caught.value)


def test_preflight_tells_that_the_passphrase_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EncryptionError, match="missing"):
        GPG(passphrase_file=tmp_path / "missing").preflight()


def test_a_full_disk_of_gpg_is_an_error_with_its_words(encryption: GPG, tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text("#!/bin/sh\necho 'gpg: no space left on device' >&2\nexit 0\n")
    program.chmod(0o755)
    path = os.environ["PATH"]
    try:
        os.environ["PATH"] = f"{tmp_path}:{path}"
        with pytest.raises(EncryptionError, match="no space left"):
            encrypted(encryption)
    finally:
        os.environ["PATH"] = path


def test_the_command_line_is_exactly_this() -> None:
    assert command(Path("/tmp/h"), 9, encrypt_arguments([], symmetric=True)) == [
        *("gpg", "--homedir", "/tmp/h", "--no-options", "--batch", "--no-tty", "--quiet"),
        *("--no-autostart", "--no-symkey-cache", "--pinentry-mode", "loopback"),
        *("--passphrase-fd", "9", "--status-fd", "2"),
        *("--cipher-algo=AES256", "--compress-algo=none"),
        *("--symmetric", "--s2k-digest-algo=SHA512", "--s2k-count=16777216"),
    ]
