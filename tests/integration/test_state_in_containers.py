"""State on the writable layer of a container is lost with it: the records on the volume stay."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.checks import run_checks

from mipyme_backup import api
from mipyme_backup.errors import LockedError
from mipyme_backup.journal import Journal
from mipyme_backup.policy.finding import Finding
from mipyme_backup.state import State
from tests.integration.test_planted_state import DiedError, _die_after_the_swap


@pytest.fixture
def layer(workdir: Path) -> Iterator[Path]:
    """A file system of the kind that a container writes to outside of its volumes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    lower, upper, work, place = (workdir / name for name in ("lower", "upper", "work", "layer"))
    for folder in (lower, upper, work, place):
        folder.mkdir(mode=0o700)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "-o", options, "overlay", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let us mount an overlay")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


class Container:
    """A project of the earlier version, whose state lies in the destination on a volume."""

    def __init__(self, backups: Path, settings: Any, layer: Path) -> None:
        self.former = backups / ".state"
        self.volume = backups.with_name("state")
        self._settings = settings
        self._layer = layer
        self._number = 0
        settings.MIPYME_BACKUP["STATE_DIR"] = self.former

    def replace(self) -> None:
        """Go on in a new container, of the version that keeps its state in `BASE_DIR`."""
        self._number += 1
        self._settings.BASE_DIR = self._layer / str(self._number)
        self._settings.MIPYME_BACKUP.pop("STATE_DIR", None)

    def set_state_dir(self) -> None:
        self._settings.MIPYME_BACKUP["STATE_DIR"] = self.volume

    def records(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.former)): path.read_text()
            for path in self.former.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def container(backups: Path, settings: Any, layer: Path) -> Container:
    return Container(backups, settings, layer)


def placed() -> Finding:
    (found,) = [finding for finding in api.status().findings if finding.id == "state_misplaced"]
    return found


def restored_since() -> None:
    made = api.backup()
    Group.objects.create(name="since")
    api.restore(identifier=made.manifest.id)


def interrupted_restore(patch: pytest.MonkeyPatch) -> None:
    made = api.backup()
    Group.objects.create(name="since")
    with patch.context() as dying:
        _die_after_the_swap(dying)
        with pytest.raises(DiedError):
            api.restore(identifier=made.manifest.id)


def test_the_records_stay_on_the_volume_until_state_dir_is_set(
    container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    restored_since()
    before = container.records()

    container.replace()
    made = api.backup()
    container.replace()
    api.backup()

    assert container.records() == before
    (told,) = {text for text in made.manifest.warnings if str(container.former) in text}
    assert "not used" in told
    assert "Set STATE_DIR in MIPYME_BACKUP to a folder on a volume" in caplog.text

    container.set_state_dir()
    api.undo_restore()

    assert Group.objects.filter(name="since").exists()
    assert not container.former.exists()


def test_an_interrupted_restore_on_the_volume_is_told_and_ended_once_state_dir_is_set(
    container: Container, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted_restore(monkeypatch)
    container.replace()

    made = api.backup()

    told = [text for text in made.manifest.warnings if "is unfinished" in text]
    assert len(told) == 1 and str(container.former) in told[0]
    levels = {str(f.message): f.level for f in api.status().findings if "state" in f.id}
    assert levels[told[0]] == "critical"
    assert placed().level == "critical"

    container.set_state_dir()
    api.backup()
    api.undo_restore()

    assert "The interrupted restore" in caplog.text and "was finished" in caplog.text
    assert Group.objects.filter(name="since").exists()
    assert not any(f.id.startswith("state_") for f in api.status().findings)


def test_a_restore_that_others_could_have_planted_on_the_volume_is_not_told(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_restore(monkeypatch)
    (container.former / "restores").chmod(0o777)
    container.replace()

    told = api.backup().manifest.warnings

    assert not any("is unfinished" in text for text in told)
    assert any(str(container.former) in text for text in told)


def test_an_interrupted_drill_on_the_volume_is_nothing_to_be_alarmed_at(
    container: Container,
) -> None:
    made = api.backup()
    drill = Journal.loading("a" * 16, made.manifest.id, [])
    Journal(State(container.former)).write(drill)
    container.replace()

    told = api.backup().manifest.warnings

    assert not any("is unfinished" in text for text in told)
    assert placed().level == "warning"


@pytest.mark.parametrize("restored", [False, True])
def test_what_the_status_says_of_state_that_is_lost_with_the_container(
    restored: bool, container: Container
) -> None:
    container.replace()
    made = api.backup()
    if restored:
        api.restore(identifier=made.manifest.id)

    found = placed()

    checks = run_checks(include_deployment_checks=True)
    (checked,) = [one for one in checks if one.id == "mipyme_backup.W004"]
    assert checked.hint == str(found.hint)
    assert found.level == ("critical" if restored else "warning")
    assert "is gone with it" in str(found.message)
    assert "volume" in str(found.hint)


def test_state_on_a_volume_is_no_finding(container: Container) -> None:
    container.set_state_dir()
    api.backup()

    assert "state_misplaced" not in {finding.id for finding in api.status().findings}


def test_a_project_with_records_of_its_own_takes_none_of_another_from_the_destination(
    container: Container,
) -> None:
    """Two projects may share a destination, and only one of them kept its state there."""
    container.set_state_dir()
    api.backup()
    shutil.rmtree(container.former, ignore_errors=True)
    (container.volume / "former.json").unlink(missing_ok=True)
    container.former.mkdir(mode=0o700)
    for name in ("sequence", "newest"):
        (container.former / name).touch(mode=0o600)
        (container.former / name).write_text("77")
    before = container.records()

    api.backup()

    assert container.records() == before


def test_a_move_waits_for_a_run_of_the_earlier_version(container: Container) -> None:
    api.backup()
    container.set_state_dir()
    with (container.former / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockedError):
            api.backup()
        assert (container.former / "sequence").exists()

    api.backup()

    assert not container.former.exists()


def test_a_move_that_was_cut_short_is_ended(container: Container) -> None:
    restored_since()
    container.set_state_dir()
    State(container.volume).write("former.json", {"moving_from": str(container.former)})
    (container.former / "sequence").rename(container.volume / "sequence")

    api.undo_restore()

    assert Group.objects.filter(name="since").exists()
    assert not container.former.exists()
