"""A storage for tests that lives in memory, and fails or dies as it is told."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import time_machine
from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import Storage, storages
from django.test import override_settings

from mipyme_backup.sources.media import RemoteMediaTarget
from mipyme_backup.sources.media.files import FileSource
from mipyme_backup.sources.media.remote.generic import GenericObjects
from mipyme_backup.sources.media.remote.objects import OWN, Found
from tests.unit.sources.media_trees import media_source

LONG_AGO = datetime(2020, 5, 17, 12, 0, tzinfo=UTC)


class Death(BaseException):
    """What a kill is to the code: nothing of it runs afterwards."""


class MortalStorage(Storage):
    """Counts the calls that reach it, and dies at the one with the number `dies_at`.

    With `torn`, a save that dies has written one half. `fails` is asked before each call, with its
    verb and name, and may raise. `files` are content and time by name.
    """

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, datetime]] = {}
        self.fails: Callable[[str, str], None] = lambda verb, name: None
        self.revive()

    def revive(self, dies_at: int | None = None, *, torn: bool = False) -> None:
        self.calls: list[tuple[str, str]] = []
        self.dies_at, self.torn = dies_at, torn

    def exists(self, name: str) -> bool:
        self._called("exists", name)
        return name in self.files

    def size(self, name: str) -> int:
        self._called("size", name)
        return len(self._file(name)[0])

    def get_modified_time(self, name: str) -> datetime:
        self._called("get_modified_time", name)
        return self._file(name)[1]

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        self._called("listdir", path)
        above = f"{path}/" if path else ""
        below = [name.removeprefix(above) for name in self.files if name.startswith(above)]
        if path and not below:
            raise FileNotFoundError(path)
        folders = {name.partition("/")[0] for name in below if "/" in name}
        return [*folders], [name for name in below if "/" not in name]

    def delete(self, name: str) -> None:
        self._called("delete", name)
        self.files.pop(name, None)

    def rename(self, name: str, to: str) -> None:
        self._called("rename", name)
        self.files[to] = self._file(name)
        del self.files[name]

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        self._called("open", name)
        return File(io.BytesIO(self._file(name)[0]), name=name)

    def _save(self, name: str, content: File[bytes]) -> str:
        data, now = content.read(), datetime.now(UTC)
        try:
            self._called("save", name)
        except Death:
            if self.torn:
                self.files[name] = (data[: len(data) // 2], now)
            raise
        self.files[name] = (data, now)
        return name

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name if name not in self.files else f"{name}_1"

    def _file(self, name: str) -> tuple[bytes, datetime]:
        try:
            return self.files[name]
        except KeyError as error:
            raise FileNotFoundError(name) from error

    def _called(self, verb: str, name: str) -> None:
        self.calls.append((verb, name))
        self.fails(verb, name)
        if self.dies_at == len(self.calls):
            raise Death(f"{verb} {name}")


class RenamingObjects(GenericObjects):
    """Renames, as SFTP does, where others copy."""

    def set_aside(self, name: str, to: str, *, expected: Found | None) -> None:
        self.require(name, expected)
        self.storage.rename(name, to)

    def move(self, name: str, to: str, *, size: int) -> None:
        self.storage.rename(name, to)


@contextlib.contextmanager
def memory(
    backend: str = "tests.unit.sources.remote_storages.MortalStorage",
) -> Iterator[MortalStorage]:
    """Yield a new storage, which STORAGES calls ``memory``."""
    with override_settings(STORAGES={**settings.STORAGES, "memory": {"BACKEND": backend}}):
        yield cast("MortalStorage", storages["memory"])


def fill(storage: Any, files: dict[str, bytes], moment: datetime = LONG_AGO) -> None:
    """Save files that were last changed long ago."""
    with time_machine.travel(moment, tick=False):
        for name, content in files.items():
            storage.delete(name)
            assert storage.save(name, File(io.BytesIO(content))) == name


def held(storage: MortalStorage) -> dict[str, bytes]:
    """Return name and content of the live files."""
    return {name: data for name, (data, _) in storage.files.items() if not name.startswith(OWN)}


def ours(storage: MortalStorage) -> list[str]:
    return sorted(name for name in storage.files if name.startswith(OWN))


def source() -> FileSource:
    return media_source(storage="memory")


def target() -> RemoteMediaTarget:
    return RemoteMediaTarget.prepare(storage="memory", restore_id="id")
