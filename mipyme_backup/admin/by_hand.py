"""What to run on the server in place of a button."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

WORDS: Mapping[str, tuple[str, ...]] = {
    "backup": ("backup",),
    "complete": ("backup", "--complete"),
    "verify": ("verify_backups",),
    "drill": ("restore_drill",),
    "pin": ("pin_backup",),
    "unpin": ("pin_backup", "--remove"),
    "plan": ("restore", "--plan"),
    "restore": ("restore",),
}
NEWEST = {"verify": "--latest"}
"""What names the newest backup, where a command does not take it by itself."""


def command(verb: str, backup_id: str = "", options: Mapping[str, Any] | None = None) -> str:
    """Return the command that does what a task with these `options` would."""
    named = backup_id or NEWEST.get(verb)
    words = ["python", "manage.py", *WORDS[verb], *([named] if named else [])]
    for name, value in (options or {}).items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value:
            words.append(f"--{name}={value}")  # in one word, whatever the value begins with
    return shlex.join(words)
