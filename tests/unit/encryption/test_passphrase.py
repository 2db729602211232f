"""A passphrase file is read only where nobody else could have read or replaced it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mipyme_backup.encryption.passphrase import derive_key, fingerprint, read_secret
from mipyme_backup.errors import EncryptionError

SECRET = b"canary-2b9e correct horse"


def written(path: Path, content: bytes = SECRET + b"\n", mode: int = 0o600) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [SECRET, SECRET + b"\n"])
def test_one_line_is_read_without_its_end(content: bytes, tmp_path: Path) -> None:
    assert read_secret(written(tmp_path / "key", content)) == SECRET


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_private_file_is_read(mode: int, tmp_path: Path) -> None:
    assert read_secret(written(tmp_path / "key", mode=mode)) == SECRET


@pytest.mark.parametrize("content", [b"x" * 4096, b"x" * 4095 + b"\n", b"y", "ñ €".encode()])
def test_any_line_up_to_the_limit_is_read(content: bytes, tmp_path: Path) -> None:
    assert read_secret(written(tmp_path / "key", content)) == content.removesuffix(b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\r\n",
        b"two\nlines\n",
        b"blank line after\n\n",
        b"\nline before",
        b"windows\r\n",
        b"null\0byte",
        b"tab\there",
        b"escape\x1b",
        b"x" * 4097,
        b"x" * 1_000_000,
    ],
)
def test_what_is_not_one_line_is_refused_and_not_shown(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "key", content)

    with pytest.raises(EncryptionError) as caught:
        read_secret(path)

    text = f"{caught.value} {caught.value.hint}"
    assert str(path) in text
    assert not content.strip() or content.strip().decode() not in text.replace(str(path), "")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601, 0o620, 0o777, 0o610])
def test_a_file_that_others_can_use_is_refused_with_the_remedy(mode: int, tmp_path: Path) -> None:
    path = written(tmp_path / "key", mode=mode)

    with pytest.raises(EncryptionError) as caught:
        read_secret(path)

    assert str(caught.value.hint) == f"Run: chmod 600 {path}"


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(written(tmp_path / "key"))

    with pytest.raises(EncryptionError, match="link") as caught:
        read_secret(link)

    assert "not a link" in str(caught.value.hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "key")
    os.chown(path, 65534, 65534)

    with pytest.raises(EncryptionError, match="of ours"):
        read_secret(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_of_root_that_we_may_not_read_is_no_traceback(tmp_path: Path) -> None:
    path = written(tmp_path / "key")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(EncryptionError, match="Permission denied"):
            read_secret(path)
    finally:
        os.seteuid(0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncryptionError, match=str(tmp_path / "missing")):
        read_secret(tmp_path / "missing")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncryptionError, match="not a regular file"):
        read_secret(tmp_path)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(EncryptionError, match="not a regular file"):
        read_secret(tmp_path / "pipe")


def test_the_key_is_scrypt_as_it_is_documented() -> None:
    salt = b"0123456789abcdef"

    key = derive_key(SECRET, salt)

    assert key == hashlib.scrypt(SECRET, salt=salt, n=32768, r=8, p=1, dklen=32, maxmem=2**26)


def test_a_fingerprint_is_stable_and_gives_nothing_away() -> None:
    salt = b"mipyme_backup key fingerprint, version 1"
    key = hashlib.scrypt(SECRET, salt=salt, n=32768, r=8, p=1, dklen=32, maxmem=2**26)

    assert fingerprint(SECRET) == key.hex()[:16]
    assert fingerprint(SECRET) != fingerprint(SECRET + b" ")
