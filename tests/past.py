"""A catalog with a past: rows as runs of long ago would have left them, and looks at them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mipyme_backup.models import Backup, Copy, Drill, Look, Restore, Task
from mipyme_backup.monitoring.last_look import VERSION

PROJECT = "tests"
MIB = 2**20
STEPS = (
    ("fetch_and_load:database:default", 41.2),
    ("counts", 3.1),
    ("check", 2.5),
    ("constraints", 1.0),
    ("login", 0.4),
    ("crud", 0.2),
    ("log", 0.0),
)


def past(
    now: datetime,
    *,
    days: int = 90,
    each_day: int = 1,
    destinations: Sequence[str] = ("local", "offsite"),
    notes: str = "",
) -> None:
    """Write what `days` of `each_day` backups leave, up to an hour before `now`.

    Most went well; each tenth day has a copy that failed, each 23rd a run that did, and each 31st
    has nothing. Beside them there are monthly ones, one before a deployment, drills and a restore.
    """
    chance = random.Random(1)
    rows: list[Backup] = []
    for number in range(days * each_day):
        day = number // each_day
        if day % 31 == 30:
            continue
        started = now - timedelta(hours=1) - timedelta(days=1) / each_day * number
        status = "failed" if day % 23 == 22 else "partial" if day % 10 == 9 else "complete"
        rows.append(_backup(started, "daily", status, len(rows), chance, days - day))
    for month in range(days // 30):
        started = now - timedelta(days=30 * month + 9, hours=2)
        rows.append(_backup(started, "monthly", "complete", len(rows), chance, days - 30 * month))
    if days > 3:
        started = now - timedelta(days=3, hours=5)
        rows.append(_backup(started, "pre_deploy", "complete", len(rows), chance, days))
    rows.sort(key=lambda row: row.started_at)
    for number, row in enumerate(rows):
        row.sequence = number + 1
    Backup.objects.bulk_create(rows)
    Copy.objects.bulk_create(
        Copy(
            backup=row,
            destination=name,
            status="failed" if row.status == "partial" and index else "complete",
            error="The connection was cut." if row.status == "partial" and index else "",
            verified_at=row.finished_at,
        )
        for row in rows
        if row.status != "failed"
        for index, name in enumerate(destinations)
    )
    for month in range(3):
        _drill(now - timedelta(days=30 * month + 2), passed=month != 1, notes=notes)
    Restore.objects.create(
        restore_id=f"{1:016x}",
        backup_id=rows[-1].backup_id,
        backup_name=rows[-1].name,
        status="complete",
        sources=["database:default", "media"],
        safety_backup="safety_before_restore_20260101T000000Z",
        started_at=now - timedelta(days=20),
        finished_at=now - timedelta(days=20) + timedelta(seconds=83),
        downtime_seconds=0.41,
    )


def tasks(now: datetime) -> None:
    """Write tasks that people asked for: one in each state."""
    newest = Backup.objects.filter(status="complete").first()
    assert newest is not None
    common = {"backup_id": newest.backup_id, "backup_name": newest.name, "asked_by": "ana"}
    done = {"started_at": now - timedelta(minutes=9), "finished_at": now - timedelta(minutes=8)}
    rows: list[dict[str, Any]] = [
        {"verb": "pin", "status": "abandoned", "finished_at": now},
        {
            "verb": "verify",
            "status": "failed",
            "error": "offsite: The stored files are damaged: database.default.dump.zst.gpg",
            "hint": "The backup's page has a button that sends a copy again from a good one.",
            **done,
        },
        {
            "verb": "plan",
            "status": "complete",
            "result": {"plan": ["The live data is saved first, as a safety backup."]},
            **done,
        },
        {
            "verb": "drill",
            "status": "running",
            "started_at": now,
            "seen_at": now + timedelta(days=1),  # for as long as the tests go on
            "step": "Loading media from local",
            "step_at": now + timedelta(days=1) - timedelta(seconds=10),
            "done_bytes": 120 * MIB,
            "total_bytes": 400 * MIB,
        },
        {"verb": "backup", "status": "queued", "backup_id": "", "backup_name": ""},
    ]
    Task.objects.bulk_create(
        Task(task_id=f"{number:016x}", asked_at=now - timedelta(minutes=10), **{**common, **row})
        for number, row in enumerate(rows)
    )


def looked(
    at: datetime,
    findings: Sequence[Mapping[str, Any]] = (),
    *,
    newest: Backup | None = None,
    **destinations: Mapping[str, Any],
) -> None:
    """Keep a look at the moment `at`, as `monitoring.last_look` does, that saw this."""
    ended = newest.finished_at if newest else None
    seen = (
        newest
        and ended
        and {
            "id": newest.backup_id,
            "name": newest.name,
            "kind": newest.kind,
            "finished_at": ended.isoformat(),
            "stored_size": newest.stored_size,
            "copies": {},
        }
    )
    facts = {
        "project": PROJECT,
        "at": at.isoformat(),
        "newest_good": seen,
        "predicted_restore_seconds": 1260.0 if newest else None,
        "destinations": {name: {**_PLACE, **facts} for name, facts in destinations.items()},
    }
    document = {"version": VERSION, "findings": [*findings], "facts": facts}
    Look.objects.update_or_create(project=PROJECT, defaults={"at": at, "document": document})


def finding(identifier: str, level: str, text: str, hint: str) -> dict[str, Any]:
    """Return a finding as a look keeps it."""
    return {
        "id": identifier,
        "level": level,
        "message": {"text": text, "params": {}},
        "hint": {"text": hint, "params": {}},
    }


_PLACE = {
    "place": "/var/backups/shop",
    "remote": False,
    "reachable": True,
    "writable": True,
    "may_delete": True,
    "error": None,
    "free_bytes": 180 * 1024 * MIB,
    "total_bytes": 400 * 1024 * MIB,
    "backups": 90,
    "newest_good": None,
}


def _backup(
    started: datetime, kind: str, status: str, number: int, chance: random.Random, age: int
) -> Backup:
    identifier = f"{number + 1:016x}"
    name = f"{'mipyme_backup' if kind == 'daily' else kind}_{started:%Y%m%dT%H%M%SZ}"
    raw = (400 + 2 * age + chance.randrange(9)) * MIB
    manifest = {} if status == "failed" else _manifest(identifier, name, kind, started, raw, age)
    return Backup(
        project=PROJECT,
        backup_id=identifier,
        name=name,
        kind=kind,
        status=status,
        sequence=number + 1,
        slot=started,
        started_at=started,
        finished_at=started + timedelta(seconds=95 + age / 3 + chance.randrange(12)),
        raw_size=0 if status == "failed" else raw,
        stored_size=0 if status == "failed" else raw // 5,
        sha256="" if status == "failed" else f"{number:064x}",
        sources=["database:default", "media"],
        error="The disk is full: /var/backups/shop" if status == "failed" else "",
        manifest=manifest,
    )


def _manifest(
    identifier: str, name: str, kind: str, started: datetime, raw: int, age: int
) -> dict[str, Any]:
    """Return a manifest of some ten kilobytes, as a small shop has it; each is different."""
    tables = {f"shop_table_{number:02d}": 1000 * number + age for number in range(40)}
    return {
        "id": identifier,
        "name": name,
        "kind": kind,
        "project": PROJECT,
        "started_at": str(started),
        "snapshot_at": str(started),
        "finished_at": str(started + timedelta(seconds=95)),
        "sequence": 1,
        "sources": [
            {
                "name": "database:default",
                "artifacts": [_artifact("database.default.dump", f"{name}/database", raw // 2)],
                "facts": {
                    "database.default.dump": {
                        "engine": "postgresql",
                        "version": "16.4",
                        "tables": tables,
                    }
                },
            },
            {
                "name": "media",
                "artifacts": [_artifact("media.index.jsonl", f"{name}/media.index", 4096)],
                "facts": {
                    "media.index.jsonl": {"files": 4000 + age, "bytes": raw // 2, "packs": []}
                },
            },
        ],
        "packs": [_artifact("files.tar", f"pool/{identifier}{n}/files.tar", MIB) for n in range(8)],
        "versions": {"python": "3.12.4", "django": "5.2.1", "mipyme_backup": "0.1.0"},
        "migrations": {
            "default": [f"shop.{n:04d}_{identifier}_something_was_changed" for n in range(80)]
        },
        "host": "shop-1",
        "compression": "zstd",
        "encryption": "gpg-symmetric",
        "key_fingerprint": "5c1d:93ab",
        "warnings": [],
        "format": 1,
    }


def _artifact(name: str, path: str, size: int) -> dict[str, Any]:
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    return {
        "name": name,
        "path": path,
        "raw_size": size,
        "stored_size": size // 5,
        "sha256": sha256,
        "volumes": [{"size": size // 5, "sha256": sha256}],
    }


def _drill(at: datetime, *, passed: bool, notes: str) -> None:
    problems = [] if passed else ["shop_order: 4120 rows, 4121 in the manifest"]
    Drill.objects.create(
        drill_id=f"{int(at.timestamp()):016x}",
        backup_id=f"{1:016x}",
        backup_name=f"mipyme_backup_{at:%Y%m%d}T020000Z",
        destination="local",
        passed=passed,
        started_at=at,
        finished_at=at + timedelta(seconds=55),
        seconds=sum(seconds for _name, seconds in STEPS),
        steps=[
            {
                "name": name,
                "seconds": seconds,
                "ok": passed or name != "counts",
                "problems": problems if name == "counts" else [],
            }
            for name, seconds in STEPS
        ],
        notes=notes,
    )


def now() -> datetime:
    """Return the present, without a fraction of a second."""
    return datetime.now(UTC).replace(microsecond=0)
