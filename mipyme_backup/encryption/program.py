"""A running gpg: a private home of a short path, no agent, secrets by descriptor.

With the passphrase by descriptor gpg would need an agent only to measure how often to hash it,
and that is stated here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
SYMMETRIC = (
    "--symmetric",
    # Hashed (RFC 4880, 3.7.1.3) for about 100 ms, as scrypt is for the manifest.
    "--s2k-digest-algo=SHA512",
    "--s2k-count=16777216",
)
PLAIN_AES256 = ("--cipher-algo=AES256", "--compress-algo=none")
"""zstd has compressed already."""


def preflight() -> None:
    """Remove what died; raises PreflightError where gpg is missing or too old."""
    sweep_homes()
    version = run(["gpg", "--version"])
    found = re.search(r"\b(\d+)\.(\d+)\.\d+", version)
    if found is None or tuple(map(int, found.groups())) < OLDEST_VERSION:
        raise PreflightError(
            _("GnuPG 2.2 or newer is needed; gpg says %(version)s"),
            hint=_("Install it: sudo apt-get install gnupg"),
            version=version.partition("\n")[0] or "-",
        )


def encrypting(
    upstream: Reader, *, secret: bytes | None, recipients: Sequence[bytes] = ()
) -> Reader:
    """Return `upstream` encrypted: what the `secret` or any key of the `recipients` opens.

    A recipient is an exported public key; whether it is the right one, and good, is for the
    caller to know.
    """
    return _Gpg(
        upstream,
        lambda home: encrypt_arguments(_recipient_files(home, recipients), symmetric=bool(secret)),
        secret,
        _check_encrypted,
    )


def decrypting(upstream: Reader, *, secret: bytes) -> Reader:
    """Return what was encrypted with the `secret`."""
    return _Gpg(upstream, lambda _home: ["--decrypt"], secret, _check_decrypted)


def decrypting_by_keyring(upstream: Reader, home: Path) -> Reader:
    """Return what was encrypted to a key whose secret part is in the keyring at `home`.

    Its agent asks for the passphrase of the key, where it has one, on the terminal.
    """
    environment = {"GNUPGHOME": str(home)}
    with contextlib.suppress(OSError):
        environment["GPG_TTY"] = os.ttyname(2)
    return Child(
        keyring_command(home),
        stdin=upstream,
        env=environment,
        on_exit=_check_decrypted_by_keyring,
    )


def encrypt_arguments(recipient_files: Sequence[Path], *, symmetric: bool) -> list[str]:
    """Return gpg's options to encrypt stdin to stdout."""
    arguments = [*PLAIN_AES256, *(SYMMETRIC if symmetric else ())]
    if recipient_files:
        # A key that the settings name by its fingerprint needs no web of trust.
        arguments += ["--encrypt", "--trust-model=always"]
        arguments += [f"--recipient-file={file}" for file in recipient_files]
    return arguments


def command(home: Path, passphrase_descriptor: int | None, arguments: Sequence[str]) -> list[str]:
    """Return the whole argv; status lines go to stderr, beside the messages."""
    passphrase = (
        ["--pinentry-mode", "loopback", "--passphrase-fd", str(passphrase_descriptor)]
        if passphrase_descriptor is not None
        else []
    )
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
        *passphrase,
        "--status-fd",
        "2",
        *arguments,
    ]


def keyring_command(home: Path) -> list[str]:
    """Return the whole argv that decrypts with the keys in a person's own keyring."""
    quiet = ["--no-options", "--batch", "--quiet", "--status-fd", "2"]
    return ["gpg", "--homedir", str(home), *quiet, "--decrypt"]


class _Gpg:
    """A running gpg and its home; both end with it."""

    def __init__(
        self,
        upstream: Reader,
        arguments: Callable[[Path], Sequence[str]],
        secret: bytes | None,
        check: Callable[[int, str], None],
    ) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(upstream.close)
            home = stack.enter_context(_private_home())
            with contextlib.ExitStack() as until_started:
                descriptor = None
                if secret is not None:
                    descriptor = until_started.enter_context(secret_pipe(secret))
                self._child = Child(
                    command(home, descriptor, arguments(home)),
                    stdin=upstream,
                    env={"GNUPGHOME": str(home)},
                    pass_fds=[descriptor] if descriptor is not None else [],
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
        raise _no_place(error) from error
    try:
        yield Path(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _no_place(error: OSError) -> PreflightError:
    return PreflightError(
        _("gpg has no place for its home: /tmp cannot be written to: %(reason)s"),
        hint=_("Free some space in /tmp, and let this user write there."),
        reason=error.strerror,
    )


def _recipient_files(home: Path, recipients: Sequence[bytes]) -> list[Path]:
    files = [home / f"recipient-{number}" for number, _key in enumerate(recipients)]
    for file, key in zip(files, recipients, strict=True):
        try:
            file.write_bytes(key)
        except OSError as error:
            raise _no_place(error) from error
    return files


def sweep_homes() -> None:
    """Remove the homes of our own processes that died before they could."""
    for home in Path("/tmp").glob(f"{HOME_PREFIX}*"):  # noqa: S108
        with contextlib.suppress(OSError, ValueError):
            owner = int(home.name.removeprefix(HOME_PREFIX).partition("-")[0])
            if home.lstat().st_uid == os.geteuid() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(home, ignore_errors=True)


def _statuses(stderr: str) -> set[str]:
    lines = (line.split() for line in stderr.split("\n") if line.startswith("[GNUPG:] "))
    return {words[1] for words in lines if len(words) > 1}


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


def _check_decrypted_by_keyring(status: int, stderr: str) -> None:
    statuses = _statuses(stderr)
    if "ENC_TO" in statuses and "DECRYPTION_KEY" not in statuses:
        raise KeyMissingError(
            _("No secret key that can be used here opens this backup: %(stderr)s"),
            hint=_(
                "The keyring that ENCRYPTION names as home needs it, and its passphrase has to be"
                " typed on a terminal."
            ),
            stderr=_said(stderr),
        )
    _check_decrypted(status, stderr)


def _said(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if not line.startswith("[GNUPG:]")]
    return " / ".join(lines) or "-"
