"""Symmetric OpenPGP encryption by GnuPG: AES-256, binary, passphrase by descriptor.

gpg runs in a private home of a short path, and without an agent: with the passphrase by
descriptor it would need one only to measure how often to hash it, and that is stated here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from mipyme_backup.encryption.base import Encryption
from mipyme_backup.encryption.passphrase import fingerprint, read_secret
from mipyme_backup.errors import (
    DamagedError,
    EncryptionError,
    KeyMissingError,
    PreflightError,
)
from mipyme_backup.messages import _
from mipyme_backup.process import Child, Reader, run, secret_pipe

HOME_PREFIX = "mipyme-gpg-"
OLDEST_VERSION = (2, 2)


class GPG(Encryption):
    """Encrypts to a passphrase; `old_passphrase_files` still open what they once closed."""

    suffix = ".gpg"
    method = "gpg-symmetric-aes256"

    def __init__(
        self, *, passphrase_file: str | Path, old_passphrase_files: Sequence[str | Path] = ()
    ) -> None:
        self._files = [Path(file) for file in (passphrase_file, *old_passphrase_files)]

    @cached_property
    def _secrets(self) -> dict[str, bytes]:
        secrets = [read_secret(file) for file in self._files]
        return {fingerprint(secret): secret for secret in secrets}

    @property
    def key_fingerprint(self) -> str:
        return next(iter(self._secrets))

    def authentication_secrets(self) -> dict[str, bytes]:
        return dict(self._secrets)

    def preflight(self) -> None:
        sweep_homes()
        version = run(["gpg", "--version"])
        found = re.search(r"\b(\d+)\.(\d+)\.\d+", version)
        if found is None or tuple(map(int, found.groups())) < OLDEST_VERSION:
            raise PreflightError(
                _("GnuPG 2.2 or newer is needed; gpg says %(version)s"),
                hint=_("Install it: sudo apt-get install gnupg"),
                version=version.partition("\n")[0] or "-",
            )
        self.key_fingerprint  # noqa: B018 - reads the passphrase file, and raises what is wrong

    def encrypt(self, upstream: Reader) -> Reader:
        secret = self._secrets[self.key_fingerprint]
        return _Gpg(encrypt_arguments(), secret, upstream, _check_encrypted)

    def decrypt(self, upstream: Reader, key_fingerprint: str) -> Reader:
        secret = self._secrets.get(key_fingerprint)
        if secret is None:
            raise KeyMissingError(
                _("No passphrase at hand opens this backup: it was made with key %(key)s."),
                hint=_(
                    "Name the file of that passphrase in passphrase_file or old_passphrase_files."
                ),
                key=key_fingerprint,
            )
        return _Gpg(decrypt_arguments(), secret, upstream, _check_decrypted)


def encrypt_arguments() -> list[str]:
    """Return gpg's options to encrypt stdin to stdout; zstd has compressed already.

    The passphrase is hashed (RFC 4880, 3.7.1.3) for about 100 ms, as scrypt is for the manifest.
    """
    return [
        "--symmetric",
        "--cipher-algo=AES256",
        "--compress-algo=none",
        "--s2k-digest-algo=SHA512",
        "--s2k-count=16777216",
    ]


def decrypt_arguments() -> list[str]:
    """Return gpg's options to decrypt stdin to stdout."""
    return ["--decrypt"]


def command(home: Path, passphrase_descriptor: int, arguments: Sequence[str]) -> list[str]:
    """Return the whole argv; status lines go to stderr, beside the messages."""
    return [
        "gpg",
        "--homedir",
        str(home),
        "--no-options",
        "--batch",
        "--no-tty",
        "--quiet",
        "--no-autostart",
        "--no-symkey-cache",
        "--pinentry-mode",
        "loopback",
        "--passphrase-fd",
        str(passphrase_descriptor),
        "--status-fd",
        "2",
        *arguments,
    ]


class _Gpg:
    """A running gpg, its home, and the check of what it reported; all end with it."""

    def __init__(
        self,
        arguments: Sequence[str],
        secret: bytes,
        upstream: Reader,
        check: Callable[[int, str], None],
    ) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(upstream.close)
            home = stack.enter_context(_private_home())
            with secret_pipe(secret) as descriptor:
                self._child = Child(
                    command(home, descriptor, arguments),
                    stdin=upstream,
                    env={"GNUPGHOME": str(home)},
                    pass_fds=[descriptor],
                    on_exit=check,
                )
            stack.callback(self._child.close)
            self._stack = stack.pop_all()

    def read(self, size: int, /) -> bytes:
        return self._child.read(size)

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def _private_home() -> Iterator[Path]:
    try:
        home = tempfile.mkdtemp(prefix=f"{HOME_PREFIX}{os.getpid()}-", dir="/tmp")
    except OSError as error:
        raise PreflightError(
            _("gpg has no place for its home: /tmp cannot be written to: %(reason)s"),
            hint=_("Free some space in /tmp, and let this user write there."),
            reason=error.strerror,
        ) from error
    try:
        yield Path(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def sweep_homes() -> None:
    """Remove the homes of our own processes that died before they could."""
    for home in Path("/tmp").glob(f"{HOME_PREFIX}*"):  # noqa: S108
        with contextlib.suppress(OSError, ValueError):
            owner = int(home.name.removeprefix(HOME_PREFIX).partition("-")[0])
            if home.lstat().st_uid == os.geteuid() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(home, ignore_errors=True)


def _statuses(stderr: str) -> set[str]:
    return {line.split()[1] for line in stderr.split("\n") if line.startswith("[GNUPG:] ")}


def _check_encrypted(status: int, stderr: str) -> None:
    if status != 0 or "END_ENCRYPTION" not in _statuses(stderr):
        raise EncryptionError(_("gpg could not encrypt: %(stderr)s"), stderr=_said(stderr))


def _check_decrypted(status: int, stderr: str) -> None:
    """Exit status 0 proves nothing: gpg gives it to a packet that was never encrypted."""
    statuses = _statuses(stderr)
    if status == 0 and {"DECRYPTION_OKAY", "GOODMDC"} <= statuses:
        return
    raise DamagedError(
        _("gpg could not decrypt: %(stderr)s"),
        hint=_("The stored bytes are damaged, or not what this key encrypted: try another copy."),
        stderr=_said(stderr),
    )


def _said(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if not line.startswith("[GNUPG:]")]
    return " / ".join(lines) or "-"
