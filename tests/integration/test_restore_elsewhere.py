"""A restore of a database and media to new places: where one fails, both are taken back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection

from mipyme_backup import api
from mipyme_backup.errors import BackupError
from mipyme_backup.messages import Message


class Meddler:
    """Progress that does something to the folder of the new database at one step."""

    def __init__(self, step: str, meddle: Callable[[Path], None], folder: Path) -> None:
        self._step = step
        self._meddle = meddle
        self._folder = folder

    def step(self, message: Message, total: int | None = None) -> None:
        if str(message).startswith(self._step):
            self._meddle(self._folder)

    def advance(self, size: int) -> None:
        pass


def lose_rows(folder: Path) -> None:
    (side,) = folder.glob("*restor*")
    with closing(sqlite3.connect(side)) as database:
        database.execute("DELETE FROM auth_group")
        database.commit()


def take_the_name(folder: Path) -> None:
    (folder / "new.sqlite3").mkdir()


@pytest.mark.parametrize(
    ("step", "meddle"),
    [("Checking what was loaded", lose_rows), ("Cutting over", take_the_name)],
    ids=["check", "swap"],
)
def test_a_failure_of_the_database_takes_the_media_back_and_it_can_be_tried_again(
    backups: Path, tmp_path: Path, step: str, meddle: Callable[[Path], None]
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only an SQLite database is restored to a file")
    api.backup()
    folder, file = tmp_path / "out", tmp_path / "databases" / "new.sqlite3"
    file.parent.mkdir()

    with pytest.raises(BackupError):
        api.restore(
            latest=True,
            to_media=folder,
            to_database=str(file),
            progress=Meddler(step, meddle, file.parent),
        )

    assert os.listdir(folder) == []
    if file.is_dir():
        file.rmdir()
    api.restore(latest=True, to_media=folder, to_database=str(file))
    assert os.listdir(folder) == ["picture"]
    assert (folder / "picture").read_text() == "before"
    assert file.stat().st_size
