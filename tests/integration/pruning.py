"""A project with a long history of backups, taken in the past."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from mipyme_backup import api
from mipyme_backup.manifest import Manifest
from mipyme_backup.recover import MANIFEST
from mipyme_backup.results import PruneResult
from tests.integration.conftest import LOCAL
from tests.settings import WORK_DIR

_begun: dict[Path, dict[float, Manifest]] = {}


@dataclass(kw_only=True)
class History:
    """The backups of a project; `folder` is its first destination, `places` its settings.

    Two files are saved: one that stays, in a pack that all backups share, and one that changes,
    in a pack that each has for itself.
    """

    folder: Path
    media: Path
    settings: Any
    taken: dict[float, Manifest] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder.with_name("state")

    @property
    def places(self) -> dict[str, Any]:
        places: dict[str, Any] = self.settings.MIPYME_BACKUP["DESTINATIONS"]
        return places

    def configure(self, **keys: Any) -> None:
        self.settings.MIPYME_BACKUP = {**self.settings.MIPYME_BACKUP, **keys}

    def begin(self, *ages: float) -> None:
        """Take the first backups, which are now so many days old, the oldest first.

        They are the same in each test that asks for these, to be quick.
        """
        kept = WORK_DIR / "histories" / "_".join(map(str, ages))
        if kept not in _begun:
            self.take(*ages)
            for folder in (self.folder, self.state, self.media):
                shutil.copytree(folder, kept / folder.name)
            _begun[kept] = dict(self.taken)
            return
        for folder in (self.folder, self.state, self.media):
            shutil.copytree(kept / folder.name, folder, dirs_exist_ok=True)
        self.taken = dict(_begun[kept])
        api.backups(sync=True)

    def take(self, *ages: float, kind: str = "daily", **options: Any) -> None:
        """Take backups that are now so many days old, the oldest first."""
        for age in sorted(ages, reverse=True):
            (self.media / "changing").write_text(f"{age}")
            with ago(age):
                self.taken[age] = api.backup(kind=kind, **options).manifest

    def name(self, age: float) -> str:
        return self.taken[age].name

    def held(self, folder: Path | None = None) -> set[float]:
        """Return the ages of the backups that a folder holds, by its manifests."""
        root = folder or self.folder
        return {age for age, m in self.taken.items() if (root / m.name / MANIFEST).exists()}

    def packs(self, folder: Path | None = None) -> set[str]:
        return {path.name for path in (folder or self.folder).glob("pool/*") if any(path.iterdir())}

    def needed_packs(self, *ages: float) -> set[str]:
        return {pack.path.split("/")[1] for age in ages for pack in self.taken[age].packs}

    def tree(self, folder: Path | None = None) -> dict[str, bytes]:
        """Return every file of a destination but its own hidden ones."""
        root = folder or self.folder
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.relative_to(root).parts[0].startswith(".")
        }

    def wait(self, hours: float) -> None:
        """Let the noted moments be so much longer ago."""
        file = self.state / "leftovers.json"
        noted = json.loads(file.read_text())
        for values in noted.values():
            for folder, moment in values["since"].items():
                earlier = datetime.fromisoformat(moment) - timedelta(hours=hours)
                values["since"][folder] = earlier.isoformat()
        file.write_text(json.dumps(noted))

    def noted(self) -> dict[str, Any]:
        noted: dict[str, Any] = json.loads((self.state / "leftovers.json").read_text())
        return noted


def ago(days: float) -> time_machine.travel:
    return time_machine.travel(datetime.now(UTC) - timedelta(days=days), tick=True)


def actions(result: PruneResult, destination: str = "local") -> dict[str, str]:
    """Return what became of each backup, by its name."""
    (pruned,) = [one for one in result.destinations if one.destination == destination]
    return {outcome.decision.copy.name: outcome.action for outcome in pruned.outcomes}


def reasons(result: PruneResult) -> dict[str, str]:
    return {
        outcome.decision.copy.name: str(outcome.decision.reason)
        for pruned in result.destinations
        for outcome in pruned.outcomes
    }


def assert_all_good(*, level: Any = "content") -> None:
    """Assert that every backup on every destination verifies."""
    problems = {f"{v.name} on {v.destination}": v.problems for v in api.verify(level=level)}
    assert not any(problems.values()), problems


def error_of(result: PruneResult, destination: str = "local") -> str:
    (pruned,) = [one for one in result.destinations if one.destination == destination]
    return str(pruned.error or "")


@pytest.fixture
def history(backups: Path, settings: Any) -> History:
    """A project without backups; nothing is encrypted, which saves a hundred starts of gpg."""
    media = backups.with_name("media")
    (media / "staying").write_text("in each backup")
    settings.MIPYME_BACKUP = {
        "DESTINATIONS": {"local": {"BACKEND": LOCAL, "OPTIONS": {"location": backups}}},
        "STATE_DIR": backups.with_name("state"),
    }
    return History(folder=backups, media=media, settings=settings)
