"""What the plan of a restore rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mipyme_backup.sources.postgresql.server import Rights


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the decisions rest on: the server, our role, the backup's facts, the live database.

    `properties` are those that the restored database gets, `live` is None where nothing is
    replaced, `missing` are extensions of the backup that our role can neither create nor take
    over from template1.
    """

    major: int
    rights: Rights
    facts: Mapping[str, Any]
    properties: Mapping[str, Any]
    name: str
    side: str
    before: str
    live: str | None
    missing: frozenset[str]
    from_template1: frozenset[str]
