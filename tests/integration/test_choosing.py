"""Choosing by an id: what matches nothing is told from what is there and damaged."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from mipyme_backup import api

ASKING = [("restore", "--no-input"), ("restore", "--plan"), ("verify_backups",), ("pin_backup",)]


def refused(command: str, *args: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and the error that `--json` prints."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(command, *args, "--json", stdout=out, stderr=io.StringIO())
    error: dict[str, Any] = json.loads(out.getvalue())["error"]
    return caught.value.returncode, error


@pytest.mark.parametrize("asked", ASKING)
def test_what_matches_nothing_ends_with_4(asked: tuple[str, ...], backups: Path) -> None:
    api.backup(only=["media"])

    status, error = refused(*asked, "0123456789abcdefdead")

    assert (status, error["code"]) == (4, "no_backup")
    assert "cannot be read" not in error["hint"]


@pytest.mark.parametrize("asked", ASKING)
def test_what_cannot_be_read_may_be_the_one(asked: tuple[str, ...], backups: Path) -> None:
    made = api.backup(only=["media"])
    (backups / made.manifest.name / "manifest.json").write_bytes(b"{")

    status, error = refused(*asked, made.manifest.id[:8])

    assert (status, error["code"]) == (4, "no_backup")
    assert "1 that cannot be read" in error["hint"] and made.manifest.name in error["hint"]


@pytest.mark.parametrize("asked", [("restore", "--no-input"), ("pin_backup",)])
def test_what_is_named_and_damaged_ends_with_6(asked: tuple[str, ...], backups: Path) -> None:
    made = api.backup(only=["media"])
    (backups / made.manifest.name / "manifest.json").write_bytes(b"{")

    status, error = refused(*asked, made.manifest.name)

    assert (status, error["code"]) == (6, "damaged")
