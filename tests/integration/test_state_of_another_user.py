"""The status, asked by a user that may not read `STATE_DIR`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from mipyme_backup import api
from mipyme_backup.errors import StateError
from mipyme_backup.state import State

STRANGER = 65534


@contextmanager
def as_stranger() -> Iterator[None]:
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_state_that_another_user_keeps_is_one_finding(mode: int, backups: Path) -> None:
    made = api.backup()
    api.restore(identifier=made.manifest.id)
    state = backups.with_name("state")
    state.chmod(mode)
    backups.parent.chmod(0o755)
    Path(connection.settings_dict["NAME"]).parent.chmod(0o755)
    for path in (backups, *backups.rglob("*"), backups.with_name("passphrase")):
        os.chown(path, STRANGER, -1)

    with as_stranger():
        found = [f for f in api.status().findings if f.id.startswith("state_")]

    (finding,) = found
    assert finding.level == "critical"
    assert str(state) in str(finding.message)
    assert "Run it as the user that runs the backups" in str(finding.hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["restores", "runs", "work"])
def test_folder_that_root_made_in_our_state_is_named(name: str, workdir: Path) -> None:
    """One run by root leaves folders that the user of the backups cannot open."""
    workdir.chmod(0o755)
    state = State(workdir / "state")
    state.make(name)
    os.chown(state.folder, STRANGER, -1)

    with as_stranger():
        for ask in (state.names, state.make):
            with pytest.raises(StateError, match="cannot be read") as caught:
                ask(name)
            assert str(state.folder / name) in str(caught.value)
            assert "owner" in str(caught.value.hint)

    assert state.names_set_aside() == []
