"""A pod that starts again with `fsGroup`: nothing of the state is lost, and nothing is hidden."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group

from mipyme_backup import api
from mipyme_backup.policy.finding import Finding
from tests import pod
from tests.integration.test_state_in_containers import interrupted_restore, restored_since


@pytest.fixture
def group() -> Iterator[int]:
    with pod.of_group() as group:
        yield group


@pytest.fixture
def state(backups: Path) -> Path:
    return backups.with_name("state")


def findings() -> list[Finding]:
    return [finding for finding in api.status().findings if finding.id.startswith("state_")]


def test_a_restore_can_be_undone_after_the_pod_has_started_again(state: Path, group: int) -> None:
    restored_since()
    pod.restart(state, group)

    api.undo_restore()

    assert Group.objects.filter(name="since").exists()
    assert not [*state.rglob("*.ignored-*")]


def test_an_interrupted_restore_is_ended_after_the_pod_has_started_again(
    state: Path, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_restore(monkeypatch)
    pod.restart(state, group)

    made = api.backup()

    (record,) = [json.loads(file.read_text()) for file in (state / "restores").glob("*.json")]
    assert record["phase"] == "done"
    assert not any("ignored" in text for text in made.manifest.warnings)
    assert findings() == []


def test_what_a_run_sets_aside_is_told_until_it_is_removed(state: Path) -> None:
    restored_since()
    for name in ("restores", "work"):
        (state / name).chmod(0o777)

    told = " ".join(api.backup().manifest.warnings)
    aside = {path.name.partition(".")[0]: path for path in state.glob("*.ignored-*")}

    assert {*aside} == {"restores", "work"}
    assert all(str(path) in told for path in aside.values())
    assert str(aside["work"]) in " ".join(api.backup().manifest.warnings)
    levels = {
        name: f.level
        for f in findings()
        for name, path in aside.items()
        if str(path) in str(f.message)
    }
    assert levels == {"restores": "critical", "work": "warning"}

    for path in aside.values():
        shutil.rmtree(path)

    assert findings() == []


def test_the_folder_of_the_restores_is_critical_as_its_records_are(state: Path) -> None:
    restored_since()
    (state / "restores").chmod(0o777)

    (found,) = findings()

    assert found.level == "critical"
