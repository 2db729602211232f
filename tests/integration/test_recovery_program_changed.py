"""`recover.py` at a destination, which people give their passphrase: changed, it is told."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import mipyme_backup
from mipyme_backup import api
from mipyme_backup.destinations import LocalDestination
from mipyme_backup.errors import DestinationError
from mipyme_backup.operations import recovery_program

GENEROUS = 60.0
OURS = Path(mipyme_backup.__file__).with_name("recover.py").read_bytes()
CHANGED = OURS.replace(b"import json", b"import jsom", 1)


class KeepsProgram(LocalDestination):
    """A folder that lets nobody overwrite what is there."""

    def put(self, name: str, file: Path) -> None:
        if self.size(name) is not None:
            raise DestinationError("it may not be overwritten")
        super().put(name, file)


def found(status: api.Status) -> dict[str, str]:
    return {finding.id: finding.level for finding in status.findings}


def look() -> dict[str, str]:
    return found(api.status(timeout=GENEROUS))


@pytest.mark.parametrize("content", [CHANGED, b"", OURS + b"\n", OURS[:-1]])
def test_a_changed_program_is_told_and_replaced(backups: Path, content: bytes) -> None:
    made = api.backup()
    assert (backups / "recover.py").read_bytes() == OURS
    (backups / "recover.py").write_bytes(content)

    verified = api.verify(identifiers=[made.manifest.id])
    assert look() == {"recovery_program_changed:local": "critical"}
    again = api.backup()

    assert [(one.name, bool(one.problems)) for one in verified] == [
        (made.manifest.name, False),
        ("recover.py", True),
    ]
    assert (backups / "recover.py").read_bytes() == OURS
    assert [w for w in again.manifest.warnings if "recover.py" in w and "replaced" in w]
    assert again.status == "complete"
    assert look() == {}
    assert not [w for w in api.backup().manifest.warnings if "recover.py" in w]


def test_what_is_huge_is_not_read(backups: Path) -> None:
    api.backup()
    with (backups / "recover.py").open("r+b") as file:
        file.truncate(10 * 2**40)

    assert look() == {"recovery_program_changed:local": "critical"}
    assert api.backup().status == "complete"
    assert (backups / "recover.py").read_bytes() == OURS


def test_a_link_in_its_place_is_replaced_and_what_it_leads_to_is_left(
    backups: Path, tmp_path: Path
) -> None:
    api.backup()
    other = tmp_path / "theirs"
    other.write_text("theirs")
    (backups / "recover.py").unlink()
    (backups / "recover.py").symlink_to(other)

    api.backup()

    assert not (backups / "recover.py").is_symlink()
    assert (backups / "recover.py").read_bytes() == OURS
    assert other.read_text() == "theirs"


def test_a_program_that_is_missing_is_put_there_without_a_word(backups: Path) -> None:
    api.backup()
    (backups / "recover.py").unlink()

    assert look() == {}
    made = api.backup()

    assert (backups / "recover.py").read_bytes() == OURS
    assert not [w for w in made.manifest.warnings if "recover.py" in w]


def test_where_nothing_may_be_overwritten_it_is_a_finding_and_no_failure(
    backups: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place = {"BACKEND": f"{__name__}.KeepsProgram", "OPTIONS": {"location": backups}}
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "DESTINATIONS": {"local": place}}
    api.backup()
    (backups / "recover.py").write_bytes(CHANGED)

    with caplog.at_level(logging.WARNING, logger="mipyme_backup"):
        made = api.backup()

    assert made.status == "complete"
    assert "recover.py" in caplog.text
    assert look() == {"recovery_program_changed:local": "critical"}


def test_the_program_of_an_earlier_version_is_no_attack(
    backups: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    earlier = tmp_path / "recover.py"
    earlier.write_bytes(OURS + b"# an earlier version\n")
    with monkeypatch.context() as patch:
        patch.setattr(recovery_program, "_program", lambda: earlier)
        recovery_program.program_sha256.cache_clear()
        api.backup()
    recovery_program.program_sha256.cache_clear()
    assert (backups / "recover.py").read_bytes() != OURS

    assert look() == {}
    made = api.backup()

    assert (backups / "recover.py").read_bytes() == OURS
    assert not [w for w in made.manifest.warnings if "recover.py" in w]


def test_an_unsigned_manifest_vouches_for_no_program(
    backups: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ENCRYPTION": None}
    theirs = tmp_path / "recover.py"
    theirs.write_bytes(CHANGED)
    with monkeypatch.context() as patch:
        patch.setattr(recovery_program, "_program", lambda: theirs)
        recovery_program.program_sha256.cache_clear()
        api.backup()
    recovery_program.program_sha256.cache_clear()

    assert look() == {"recovery_program_changed:local": "warning", "not_encrypted": "warning"}


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_recovery_sheet_says_its_hash(backups: Path, language: str) -> None:
    api.backup()
    sheet = api.recovery_sheet(language=language)

    assert hashlib.sha256(OURS).hexdigest() in sheet
    assert "sha256sum recover.py" in sheet


def test_the_hash_in_the_documentation_is_that_of_this_release() -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "recover.md"
    program = hashlib.sha256(OURS).hexdigest()

    assert f"{program}  recover.py" in page.read_text(), "run: sha256sum mipyme_backup/recover.py"


def test_the_program_can_be_put_on_a_new_destination(tmp_path: Path) -> None:
    destination = LocalDestination(location=tmp_path / "backups")
    destination.check()

    recovery_program.put_recovery_program("new", destination)

    assert (tmp_path / "backups" / "recover.py").read_bytes() == OURS
    shutil.rmtree(tmp_path / "backups")
