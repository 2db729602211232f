"""What the process of a drill is told, and what it tells: plain JSON. Imports no Django."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mipyme_backup.messages import Message, _

MOST_PROBLEMS = 20
LONGEST_PROBLEM = 1000


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a drill: how many `seconds` it took, and every problem that it found."""

    name: str
    seconds: float
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "ok": self.ok,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, kw_only=True)
class Database:
    """How an entry of ``DATABASES`` becomes the throwaway one: what to set, what to take out."""

    values: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    without_options: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Files:
    """What was restored of a source of files lies in `folder`.

    `aliases`, `fields` and `in_context` are those of `sources.base.StoredIn`. `hashes` is an
    SQLite file that says what each file must be.
    """

    folder: str
    hashes: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    in_context: Sequence[str] = ()

    def folder_of(self, inner: str) -> str:
        """Return the folder of a storage that lies in the folder `inner` of this one."""
        return os.path.normpath(os.path.join(self.folder, inner))


@dataclass(frozen=True, kw_only=True)
class Job:
    """The drill's process in full.

    `settings` is the project's settings module. Of `databases` (by alias) those that are None
    hold nothing of the backup, and cannot be reached. `folder` is private and empty; `files` are
    what was restored of storages. `assertions` are dotted paths.
    """

    settings: str
    databases: Mapping[str, Database | None]
    folder: str
    files: Sequence[Files] = ()
    assertions: Sequence[str] = ()

    def dump(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), default=str).encode()

    @classmethod
    def load(cls, data: bytes) -> Job:
        values = json.loads(data)
        values["databases"] = {
            alias: None if entry is None else Database(**entry)
            for alias, entry in values["databases"].items()
        }
        values["files"] = [Files(**entry) for entry in values["files"]]
        return cls(**values)


def listed(problems: Sequence[str]) -> tuple[str, ...]:
    """Return the problems, each at a readable length, and of very many the first and a count."""
    shown = [problem[:LONGEST_PROBLEM] for problem in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        count = len(problems) - MOST_PROBLEMS
        shown.append(str(Message(_("… and %(count)d more"), {"count": count})))
    return tuple(shown)
