"""What is planted in `STATE_DIR`, or where it lay before, is no order: it is told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection

from mipyme_backup import api

DONE = "2020-01-01T00:00:00+00:00"
PLANTED_AT_ONCE = 20
CANARY = "canary of the victim"


class Ground:
    """A project with a backup and a restore behind it, and things of others that must stay."""

    def __init__(self, backups: Path, chance: random.Random) -> None:
        self.backups = backups
        self.state = backups.with_name("state")
        self.media = backups.with_name("media")
        self.victims = backups.with_name("victims")
        self.chance = chance
        self._make_victims()
        self.made = api.backup()
        api.restore(identifier=self.made.manifest.id)
        (self.entry,) = [
            json.loads(file.read_text()) for file in (self.state / "restores").glob("*.json")
        ]
        self.number = 0

    def _make_victims(self) -> None:
        self.victims.mkdir()
        (self.victims / "folder").mkdir()
        (self.victims / "folder" / "file").write_text(CANARY)
        (self.victims / "before").write_text(CANARY)
        with contextlib.closing(sqlite3.connect(self.victims / "other.sqlite3")) as other, other:
            other.execute("CREATE TABLE precious (text)")
            other.execute("INSERT INTO precious VALUES (?)", [CANARY])

    def outside(self) -> dict[str, str]:
        """Return a digest of everything that no run may touch on a planted order."""
        found = {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for root in (self.victims, self.media)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
        return {**found, "rows": ",".join(sorted(Group.objects.values_list("name", flat=True)))}

    def plant(self) -> str:
        """Lay one thing into the state; return what it is."""
        self.number += 1
        kind = self.chance.choice(
            [self.crafted_entry, self.changed_entry, self.note, self.record, self.odd_thing]
        )
        kind()
        return kind.__name__

    def name(self) -> str:
        return f"{self.chance.getrandbits(64):016x}"

    def crafted_entry(self, *phases: str) -> None:
        restore_id = self.name()
        places = [str(path) for path in (self.victims, *self.victims.rglob("*"), self.media)]
        place, other = self.chance.choice(places), self.chance.choice(places)
        states: list[dict[str, Any]] = [
            {"type": "sqlite", "alias": "default", "live": place, "before": other, "wal": False,
             "engine": "django.db.backends.sqlite3", "time_zone": None, "raw_size": 0,
             "busy_timeout": 0.1, "new_file": self.chance.random() < 0.5},
            {"type": "media", "location": place, "inside": self.chance.random() < 0.5,
             "side": other, "replaced": self.chance.choice(places),
             "to_directory": self.chance.choice([None, place, other])},
            {"type": "postgresql", "alias": "default", "live": "postgres", "side": "victim",
             "before": "victim", "parked": "x", "model": "m", "replaces": True, "facts": {}},
            {"type": "remote_media", "storage": "default", "side": place, "replaced": other},
            {"type": self.chance.choice(["fixtures", "os.system", 7, None])},
        ]  # fmt: skip
        chosen = self.chance.sample(states, self.chance.randint(1, 2))
        phase = self.chance.choice(phases or ["loading", "swapping", "done", "undoing", "undone"])
        entry = {
            "id": restore_id,
            "backup": self.made.manifest.id,
            "phase": phase,
            "elsewhere": self.chance.random() < 0.4,
            "merges": [],
            "targets": [{**state, "restore_id": restore_id} for state in chosen],
            "safety_backup": None,
            "finished_at": DONE if phase in {"done", "undone"} else None,
            "drill": self.chance.random() < 0.3,
        }
        self.put(f"restores/{restore_id}.json", entry)

    def changed_entry(self) -> None:
        """Take the entry of a restore that was made, under another id, with one value changed."""
        restore_id = self.name()
        text = json.dumps(self.entry).replace(self.entry["id"], restore_id)
        entry = json.loads(text)
        entry |= {"finished_at": DONE} if self.chance.random() < 0.5 else {}
        target = self.chance.choice(entry["targets"])
        key = self.chance.choice([*target])
        target[key] = self.chance.choice(
            [
                str(self.victims / "folder"),
                str(self.victims / "before"),
                "../../x",
                7,
                None,
                [],
                True,
            ]
        )
        self.put(f"restores/{restore_id}.json", entry)

    def note(self) -> None:
        manifest = self.made.manifest
        name = self.chance.choice(
            [manifest.name, "manual_20200101T000000Z", "../victims", "", "pool", "monthly/x"]
        )
        packs = [pack.path for pack in manifest.packs] + ["../victims/folder/file", "pool/x/y"]
        note = {
            "name": name,
            "destinations": self.chance.choice([["local"], ["nowhere"], "local", [7]]),
            "packs": self.chance.sample(packs, self.chance.randint(0, len(packs))),
            "committing": self.chance.choice([False, False, True, 7]),
            "committed": self.chance.choice([False, True]),
        }
        self.put(f"runs/{self.name()}.json", note)

    def record(self) -> None:
        name = self.chance.choice(
            ["sequence", "newest", "leftovers.json", "damaged_packs.json", "verified_days.json"]
        )
        values: list[Any] = [
            2**70, -1, "7", None, [], {}, {"local": 7}, {"local": {"deleting": ["../victims"]}},
            {"local": {"since": {"pool": DONE}}}, {"local": [7]}, {"local": "x"}, 1e300,
        ]  # fmt: skip
        self.put(name, self.chance.choice(values))

    def odd_thing(self) -> None:
        name = self.chance.choice(["restores", "runs", "alerts", "schedule"])
        path = self.state / name / f"{self.name()}.json"
        path.parent.mkdir(exist_ok=True, mode=0o700)
        make: list[Callable[[], object]] = [
            lambda: path.symlink_to(self.victims / "before"),
            path.mkdir,
            lambda: os.mkfifo(path),
            lambda: path.write_bytes(self.chance.randbytes(200)),
            lambda: path.write_text("[" * 50_000),
            lambda: self._by_another(path),
            lambda: os.link(self.victims / "folder" / "file", path),
        ]
        self.chance.choice(make)()

    def _by_another(self, path: Path) -> None:
        path.write_text(json.dumps({**self.entry, "id": path.stem}))
        path.chmod(0o666)
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)

    def put(self, name: str, value: Any) -> None:
        file = self.state / name
        file.parent.mkdir(exist_ok=True, mode=0o700)
        file.write_text(json.dumps(value))


@pytest.fixture
def ground(backups: Path, torture_random: random.Random) -> Ground:
    return Ground(backups, torture_random)


def _planted_states_are_no_orders(ground: Ground, rounds: int) -> None:
    before = ground.outside()
    for _round in range(rounds):
        kinds = [ground.plant() for _ in range(PLANTED_AT_ONCE)]

        made = api.backup()

        assert made.status == "complete", kinds
        assert ground.outside() == before, kinds
        told = " ".join(made.manifest.warnings)
        if "crafted_entry" in kinds or "changed_entry" in kinds:
            assert "ignored" in told
        (verified,) = api.verify(identifiers=[made.manifest.id], level="content")
        assert verified.problems == ()
    (first,) = api.verify(identifiers=[ground.made.manifest.id], level="content")
    assert first.problems == ()


def test_planted_states_are_no_orders(ground: Ground) -> None:
    _planted_states_are_no_orders(ground, rounds=3)


@pytest.mark.torture
def test_a_thousand_planted_states_are_no_orders(ground: Ground, torture_rounds: int) -> None:
    _planted_states_are_no_orders(ground, rounds=max(1, torture_rounds // 4))


def test_what_the_status_says_of_planted_state(ground: Ground) -> None:
    ground.crafted_entry("loading", "swapping", "undoing")
    ground.put("newest", 2**80)

    found = {finding.id: finding for finding in api.status().findings}

    ignored = [f for name, f in found.items() if name.startswith("state_ignored")]
    assert {f.level for f in ignored} == {"critical", "warning"}
    assert all("STATE_DIR" in str(finding.hint) for finding in ignored)


def test_a_journal_planted_where_the_state_lay_before_is_not_even_read(
    backups: Path, settings: Any
) -> None:
    """The first field report: a file planted in the destination replaced the live database."""
    settings.BASE_DIR = backups.with_name("project")
    del settings.MIPYME_BACKUP["STATE_DIR"]
    api.backup()
    live = Path(connection.settings_dict["NAME"])
    planted = backups / ".state" / "restores"
    planted.mkdir(parents=True, mode=0o700)
    side = live.with_name(f"{live.name}.restoring_{'a' * 16}")
    with contextlib.closing(sqlite3.connect(side)) as evil, evil:
        evil.execute("CREATE TABLE evil (text)")
    state = {
        "type": "sqlite", "alias": "default", "engine": "django.db.backends.sqlite3",
        "time_zone": None, "live": str(live), "before": f"{live}.before_{'a' * 16}",
        "new_file": False, "restore_id": "a" * 16, "raw_size": 0, "busy_timeout": 1.0, "wal": False,
    }  # fmt: skip
    entry = {
        "id": "a" * 16, "backup": "b" * 16, "phase": "swapping", "elsewhere": False, "merges": [],
        "targets": [state], "safety_backup": None, "finished_at": None,
    }  # fmt: skip
    (planted / f"{'a' * 16}.json").write_text(json.dumps(entry))
    try:
        api.backup()
    finally:
        side.unlink()

    assert Group.objects.filter(name="before").exists()
    assert (planted / f"{'a' * 16}.json").exists()


def test_state_of_the_version_before_is_moved_once_and_its_restore_ends(
    backups: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted restore, whose journal lies in the destination, is brought to its end."""
    settings.BASE_DIR = backups.with_name("project")
    settings.MIPYME_BACKUP["STATE_DIR"] = backups / ".state"
    made = api.backup()
    Group.objects.create(name="since")
    with monkeypatch.context() as patch:
        _die_after_the_swap(patch)
        with pytest.raises(DiedError):
            api.restore(identifier=made.manifest.id)
    newest = (backups / ".state" / "newest").read_text()
    (backups / ".state" / "work" / "4711-x").mkdir(parents=True, mode=0o700, exist_ok=True)
    (backups / ".state" / "work" / "4711-x" / "db.sqlite3").write_text("left by a killed run")
    del settings.MIPYME_BACKUP["STATE_DIR"]

    api.backup()

    state = backups.with_name("project") / ".mipyme_backup"
    assert not Group.objects.filter(name="since").exists()
    (entry,) = [json.loads(file.read_text()) for file in (state / "restores").glob("*.json")]
    assert entry["phase"] == "done"
    assert int((state / "newest").read_text()) > int(newest)
    assert not (backups / ".state").exists()


@pytest.mark.parametrize("writable", ["backups", "backups/.state", "backups/.state/restores"])
def test_state_that_others_may_write_to_is_not_moved(
    writable: str, backups: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.BASE_DIR = backups.with_name("project")
    settings.MIPYME_BACKUP["STATE_DIR"] = backups / ".state"
    api.backup()
    (backups / ".state" / "restores").mkdir(mode=0o700, exist_ok=True)
    (backups / ".state" / "restores" / f"{'a' * 16}.json").write_text("{}")
    (backups.parent / writable).chmod(0o777)
    del settings.MIPYME_BACKUP["STATE_DIR"]

    api.backup()

    assert (backups / ".state" / "restores" / f"{'a' * 16}.json").exists()
    assert "was not moved" in caplog.text


class DiedError(BaseException):
    """In place of a power cut: nothing handles it."""


def _die_after_the_swap(patch: pytest.MonkeyPatch) -> None:
    from mipyme_backup.sources.sqlite import SQLiteTarget

    original = SQLiteTarget.swap

    def swap_and_die(target: Any) -> None:
        original(target)
        raise DiedError

    patch.setattr(SQLiteTarget, "swap", swap_and_die)
