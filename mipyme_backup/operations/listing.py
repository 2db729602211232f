"""A row for each backup that is found: for ``list_backups`` where the catalog cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipyme_backup.policy.left_out import unreadable_count
from mipyme_backup.results import Found, described


def rows_of(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the backups as JSON values, newest first, each with all of its copies."""
    rows: dict[str, dict[str, Any]] = {}
    for item in found:
        if item.manifest is None:
            row = rows.setdefault(item.name, _unreadable(item))
        else:
            status = "partial" if unreadable_count(item.manifest.facts) else "complete"
            described_row = {**described(item.manifest, item.sha256), "status": status}
            row = rows.setdefault(
                item.manifest.id, {**described_row, "pinned": False, "copies": []}
            )
        row["pinned"] = row["pinned"] or item.pinned
        row["copies"].append(
            {
                "destination": item.destination,
                "status": "damaged" if item.error else "complete",
                "error": str(item.error) if item.error else None,
            }
        )
    return sorted(rows.values(), key=lambda row: row["started_at"] or "", reverse=True)


def _unreadable(item: Found) -> dict[str, Any]:
    nothing = dict.fromkeys(("id", "kind", "label", "started_at", "finished_at", "sha256"), "")
    return {
        **nothing,
        "name": item.name,
        "status": "failed",
        "pinned": False,
        "raw_size": 0,
        "stored_size": 0,
        "host": "",
        "databases": {},
        "sources": [],
        "warnings": [str(item.error)],
        "copies": [],
    }
