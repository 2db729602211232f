"""Manifests that somebody planted at a destination: what they cost, and what they can do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup import api, manifest
from mipyme_backup.authentication import MARKER, salt_of
from mipyme_backup.encryption import passphrase
from mipyme_backup.errors import BackupError, NotCheckedError
from mipyme_backup.manifest import MAX_BYTES
from mipyme_backup.operations import manifest_keys
from mipyme_backup.operations.choosing import choose
from mipyme_backup.operations.manifest_keys import PERIOD_SECONDS, STRANGERS, Ration
from mipyme_backup.parts import build_project

GENEROUS = 60.0


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The salts of the scrypts that are computed from here on, as in a new process."""
    salts: list[bytes] = []
    real = hashlib.scrypt

    def counted(secret: bytes, *, salt: bytes, **options: Any) -> bytes:
        salts.append(salt)
        return real(secret, salt=salt, **options)

    passphrase._derived.cache_clear()
    monkeypatch.setattr(manifest_keys, "_strangers", Ration())
    monkeypatch.setattr(hashlib, "scrypt", counted)
    yield salts
    passphrase._derived.cache_clear()


def plant(backups: Path, made: api.BackupResult, number: int, **changes: Any) -> str:
    """Plant a manifest of another name, with a digest that the attacker cannot know."""
    body, _marker, tail = (
        (backups / made.manifest.name / "manifest.json").read_bytes().rpartition(MARKER)
    )
    name = f"manual_20200101T{number:06d}Z"
    document = {**json.loads(body + b"\n}"), "name": name}
    ending = {**json.loads(tail.removesuffix(b"\n}\n")), "digest": secrets.token_hex(32)}
    document["project"] = changes.get("project", document["project"])
    ending["salt"] = changes.get("salt", ending["salt"])
    (backups / name).mkdir(mode=0o700)
    (backups / name / "manifest.json").write_bytes(
        json.dumps(document, indent=1).encode().removesuffix(b"\n}")
        + MARKER
        + json.dumps(ending).encode()
        + b"\n}\n"
    )
    return name


def unreadable(status: api.Status) -> int:
    return len(status.facts.destinations[0].unreadable)


def test_salts_of_their_own_cost_no_scrypt(backups: Path, derived: list[bytes]) -> None:
    made = api.backup()
    for number in range(100):
        plant(backups, made, number, salt=secrets.token_hex(16))
    passphrase._derived.cache_clear()
    derived.clear()

    again = api.backup()
    status = api.status(timeout=GENEROUS)
    api.verify(identifiers=[again.manifest.id])

    assert again.status == "complete"
    assert len(derived) == len(set(derived)) == 2  # the key's own name, and the manifests'
    assert unreadable(status) == 100


def test_other_projects_are_rationed_and_what_was_not_checked_stays(
    backups: Path, derived: list[bytes]
) -> None:
    made = api.backup()
    names = [
        plant(backups, made, number, project=f"p{number}", salt=salt_of(f"p{number}").hex())
        for number in range(100)
    ]
    passphrase._derived.cache_clear()
    derived.clear()

    again = api.backup()
    status = api.status(timeout=GENEROUS)
    pruned = api.prune()

    assert len(derived) == len(set(derived)) == 2 + STRANGERS
    assert again.status == "complete" and status.facts.newest_good() is not None
    assert unreadable(status) == 100
    assert not pruned.failed
    assert all((backups / name / "manifest.json").exists() for name in names)
    with pytest.raises(NotCheckedError, match="not checked"):
        choose(build_project(), identifier=names[-1])


def test_a_backup_of_another_project_with_our_key_is_known_for_one(
    backups: Path, settings: Any, derived: list[bytes]
) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "PROJECT": "other"}
    other = api.backup()
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "PROJECT": "ours"}
    api.backup()

    status = api.status(timeout=GENEROUS)

    assert unreadable(status) == 0
    with pytest.raises(BackupError, match="is of the project other"):
        choose(build_project(), identifier=other.manifest.name)


def test_a_manifest_too_large_is_not_read(backups: Path) -> None:
    made = api.backup()
    copy = backups / "manual_20200101T000000Z"
    shutil.copytree(backups / made.manifest.name, copy)
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(10 * 2**40)  # sparse: ten terabytes of zeros

    status = api.status(timeout=GENEROUS)

    assert unreadable(status) == 1
    assert str(MAX_BYTES) in str(status.facts.destinations[0].unreadable_reason)


def test_more_projects_than_the_ration_with_one_key_are_all_known(
    backups: Path, settings: Any, derived: list[bytes]
) -> None:
    """Keys that prove to authenticate what lies there were made by a holder of the secret."""
    for number in range(STRANGERS + 3):
        settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "PROJECT": f"project{number}"}
        api.backup()

    assert unreadable(api.status(timeout=GENEROUS)) == 0


def test_what_was_not_checked_is_told_with_its_own_hint(
    backups: Path, derived: list[bytes]
) -> None:
    made = api.backup()
    for number in range(STRANGERS + 3):
        plant(backups, made, number, project=f"p{number}", salt=salt_of(f"p{number}").hex())
    manifest_keys._strangers = Ration()
    for number in range(STRANGERS):
        manifest_keys._strangers(b"another", bytes([number]))

    findings = {finding.id: finding for finding in api.status(timeout=GENEROUS).findings}

    assert "every ten minutes" in str(findings["unreadable:local"].hint)


@pytest.mark.parametrize("number", [2**53 - 1, 2**53 + 1, 2**62 - 1])
def test_a_planted_number_leaves_room_for_ours(backups: Path, settings: Any, number: int) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ENCRYPTION": None}
    made = api.backup().manifest
    name = "manual_20200101T000000Z"
    planted = dataclasses.replace(made, id="0123456789abcdef", name=name, sequence=number)
    (backups / name).mkdir(mode=0o700)
    data = manifest.dump(planted, key=None, derive_key=passphrase.derive_key)
    (backups / name / "manifest.json").write_bytes(data)

    for _turn in range(2):
        again = api.backup()

    assert again.manifest.sequence == made.sequence + 2
    (checked,) = api.verify(identifiers=[again.manifest.id])
    assert not checked.problems


class TestRation:
    def test_more_is_derived_when_the_period_is_over(self, derived: list[bytes]) -> None:
        now = [0.0]
        ration = Ration(clock=lambda: now[0])
        salts = [bytes([number]) for number in range(STRANGERS + 2)]
        for salt in salts[:STRANGERS]:
            ration(b"secret", salt)

        for salt in salts[STRANGERS:]:
            with pytest.raises(NotCheckedError):
                ration(b"secret", salt)
        known = ration(b"secret", salts[0])
        now[0] = PERIOD_SECONDS + 1

        assert ration(b"secret", salts[-1]) != known
        assert derived == [*salts[:STRANGERS], salts[-1]]
