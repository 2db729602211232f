"""A key that was changed without keeping the old one: what it made is not gone, and not damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup import api
from mipyme_backup.errors import KeyMissingError
from tests.keyrings import Ring, keyring, public_half

GPG = "mipyme_backup.encryption.GPG"


@pytest.fixture(scope="module")
def ring() -> Iterator[Ring]:
    with keyring("owner") as made:
        yield made


def secret(path: Path) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"the secret of {path.name}, which is long enough\n")
    return path


def to_public_keys(settings: Any, ring: Ring, folder: Path, *old: str) -> None:
    """Go from a passphrase to public keys, with a signing key."""
    options = {"recipients": [ring.fingerprint], "home": str(ring.home)}
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "ENCRYPTION": {"BACKEND": GPG, "OPTIONS": {**options, "old_passphrase_files": [*old]}},
        "SIGNING_KEY_FILE": str(secret(folder / "signing")),
    }


def told() -> dict[str, str]:
    return {one.id: f"{one.message} {one.hint}" for one in api.status().findings}


def test_from_a_passphrase_to_public_keys(
    backups: Path, settings: Any, workdir: Path, ring: Ring
) -> None:
    made = [api.backup().manifest.name, api.backup(kind="pre_deploy").manifest.name]
    to_public_keys(settings, ring, workdir)

    status = told()
    first = api.backup()
    with pytest.raises(KeyMissingError):
        api.restore(identifier=made[0], plan=True)
    after = told()
    to_public_keys(settings, ring, workdir, str(workdir / "passphrase"))

    assert "2 backups on local were made with another key" in status["old_key_needed:local"]
    assert all(name in status["old_key_needed:local"] for name in made)
    assert "old_passphrase_files" in status["old_key_needed:local"]
    assert "unreadable:local" not in status
    said = " ".join([*status.values(), *first.manifest.warnings])
    assert "removed" not in said and "number 0 can be seen" not in said
    (warning,) = first.manifest.warnings
    assert "number 2 was made: it may be one of 2 that need another key" in warning
    assert "old_passphrase_files" in warning
    assert "newest_hidden" not in after and "old_key_needed:local" in after
    assert "old_key_needed:local" not in told()


def test_what_is_damaged_beside_it_is_told_apart(
    backups: Path, settings: Any, workdir: Path, ring: Ring
) -> None:
    api.backup()
    damaged = api.backup(kind="pre_deploy").manifest.name
    (backups / damaged / "manifest.json").write_bytes(b"{")
    to_public_keys(settings, ring, workdir)

    status = told()

    assert "1 backups on local were made with another key" in status["old_key_needed:local"]
    assert damaged in status["unreadable:local"] and damaged not in status["old_key_needed:local"]


def test_encryption_that_was_switched_off(backups: Path, settings: Any) -> None:
    api.backup()
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ENCRYPTION": None}

    assert "Set ENCRYPTION again" in told()["old_key_needed:local"]


def test_newest_that_was_removed_is_still_found_out(
    backups: Path, settings: Any, workdir: Path, ring: Ring
) -> None:
    """Nobody hides a removal by a file that no key opens: the numbers are told all the same."""
    made = [api.backup().manifest.name, api.backup(kind="pre_deploy").manifest.name]
    (backups / made[1] / "manifest.json").unlink()
    to_public_keys(settings, ring, workdir)

    (warning,) = api.backup().manifest.warnings
    assert "number 2 was made: it may be one of 1 that need another key" in warning


def test_signed_ones_can_be_listed_and_not_opened(
    backups: Path, settings: Any, workdir: Path, ring: Ring
) -> None:
    """A signing key that stays authenticates what the passphrase that is gone has closed."""
    signing = {"SIGNING_KEY_FILE": str(secret(workdir / "signing"))}
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, **signing}
    api.backup()
    before = told()
    options = {"passphrase_file": str(secret(workdir / "new"))}
    settings.MIPYME_BACKUP = {
        **settings.MIPYME_BACKUP,
        "ENCRYPTION": {"BACKEND": GPG, "OPTIONS": options},
    }

    assert "old_key_needed:local" not in before
    assert "1 backups on local were made with another key" in told()["old_key_needed:local"]


def test_host_that_only_encrypts_needs_no_key(
    backups: Path, settings: Any, workdir: Path, ring: Ring
) -> None:
    """It cannot open what it makes, and is not asked to."""
    with public_half(ring) as public, keyring("second") as second:
        to_public_keys(settings, public, workdir)
        api.backup()
        with public_half(second) as other:
            encryption = settings.MIPYME_BACKUP["ENCRYPTION"]
            options = {"recipients": [other.fingerprint], "home": str(other.home)}
            settings.MIPYME_BACKUP = {
                **settings.MIPYME_BACKUP,
                "ENCRYPTION": {**encryption, "OPTIONS": options},
            }

            assert "old_key_needed:local" not in told()
