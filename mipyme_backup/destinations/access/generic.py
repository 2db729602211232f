"""Any storage, by the public interface of Django's Storage alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from mipyme_backup.destinations.access.base import Access, walk
from mipyme_backup.destinations.listing import Entry, Layout, leads_to
from mipyme_backup.destinations.throttle import Throttle
from mipyme_backup.errors import DeletionRefusedError, DestinationError, ObjectMissingError
from mipyme_backup.messages import _
from mipyme_backup.process import Reader
from mipyme_backup.wording import place_with, reason_of

FOR_GOOD = (
    AttributeError,
    ImproperlyConfigured,
    NotImplementedError,
    PermissionError,
    SuspiciousOperation,
    TypeError,
    ValueError,
)
"""What will fail the same way again; of any other error of a library that cannot be told."""

SHOWN = ("account_name", "azure_container", "bucket_name", "location")
"""What other storages call the options that tell where they keep things."""

MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)
"""What is raised for a name that is nowhere, or lies below a file, or is a folder's."""


class GenericAccess(Access):
    """Save, open, list and delete, and believe none of it: storages rename what they save, and
    say nothing of a delete that failed.

    To replace an object is to delete it first: a storage has no other word for it.
    """

    def __init__(self, storage: Any, alias: str) -> None:
        super().__init__(storage, alias)
        self.remote = not isinstance(storage, FileSystemStorage)

    def put(self, name: str, file: Path, throttle: Throttle) -> None:
        with self._errors(_("write to"), name):
            if self.storage.exists(name):
                self._make_way(name)
            with throttle.open(file) as content:
                saved = self.storage.save(name, File(content, name=name))
            if saved != name:
                self._take_back(saved)
                raise DestinationError(
                    _("The storage %(alias)r saves %(name)s under another name, %(saved)s."),
                    hint=_("Backups need a storage that keeps names as they are."),
                    alias=self.alias,
                    name=name,
                    saved=saved,
                )
            held, expected = self.storage.size(name), file.stat().st_size
            if held != expected:
                self._take_back(name)
                raise DestinationError(
                    _("The storage %(alias)r holds %(held)s of the %(size)s bytes of %(name)s."),
                    hint=_("It may be full, or change what it saves: look at its options."),
                    permanent=False,
                    alias=self.alias,
                    held=held,
                    size=expected,
                    name=name,
                )

    def open(self, name: str) -> Reader:
        with self._errors(_("read"), name):
            if not self.storage.exists(name):  # some open what is missing, and fail later
                raise FileNotFoundError(name)
            if not self.remote and not Path(self.storage.path(name)).is_file():
                raise FileNotFoundError(name)  # a pipe would be waited for
            return _Opened(self, name, self.storage.open(name, "rb"))

    def size(self, name: str) -> int | None:
        with self._errors(_("read"), name):
            try:
                return int(self.storage.size(name)) if self.storage.exists(name) else None
            except MISSING:
                return None

    def modified_at(self, name: str) -> datetime | None:
        with contextlib.suppress(Exception):  # many storages have no such word
            moment = self.storage.get_modified_time(name)
            return moment if timezone.is_aware(moment) else timezone.make_aware(moment)
        return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        with self._errors(_("list")):
            found = self._walk(partial(leads_to, prefix), lambda name: name.startswith(prefix))
            yield from (entry for entry in found if entry.name.startswith(prefix))

    def listing(self, layout: Layout) -> Iterator[Entry]:
        with self._errors(_("list")):
            yield from self._walk(layout.leads, layout.holds)

    def delete(self, name: str) -> None:
        with self._errors(_("delete from"), name):
            try:
                if not self.storage.exists(name):
                    return
                self.storage.delete(name)
            except FileNotFoundError:
                return
            except PermissionError as error:
                raise self._kept(name) from error
            if self.storage.exists(name):
                raise self._kept(name)

    def describe(self) -> str:
        kind = f"{type(self.storage).__module__}.{type(self.storage).__qualname__}"
        options = {name: getattr(self.storage, name, None) for name in SHOWN}
        return place_with(f"STORAGES[{self.alias!r}] = {kind}", options)

    def _walk(self, leads: Callable[[str], bool], wanted: Callable[[str], bool]) -> Iterator[Entry]:
        return walk(partial(self._listed, wanted), leads)

    def _listed(
        self, wanted: Callable[[str], bool], folder: str
    ) -> tuple[list[str], Iterator[Entry]]:
        folders, files = self._names_in(folder)
        above = f"{folder}/" if folder else ""
        return (
            [f"{above}{name.rstrip('/')}" for name in folders],
            self._sized(wanted, (f"{above}{file}" for file in files)),
        )

    def _names_in(self, folder: str) -> tuple[Iterable[str], Iterable[str]]:
        """Django's own listing of files follows links, and fails at one that leads to itself."""
        if type(self.storage).__dict__.get("listdir") or self.remote:
            folders, files = self.storage.listdir(folder)
            return folders, files
        with os.scandir(self.storage.path(folder)) as scan:
            found = [*scan]
        return (
            [entry.name for entry in found if entry.is_dir(follow_symlinks=False)],
            [entry.name for entry in found if entry.is_file(follow_symlinks=False)],
        )

    def _sized(self, wanted: Callable[[str], bool], names: Iterable[str]) -> Iterator[Entry]:
        """A size may cost a request: only those that are `wanted` are asked for."""
        for name in names:
            with contextlib.suppress(*MISSING):  # it vanished, or is a link that leads nowhere
                yield Entry(name=name, size=int(self.storage.size(name)) if wanted(name) else 0)

    def _make_way(self, name: str) -> None:
        try:
            self.delete(name)
        except DeletionRefusedError:
            # What may not be deleted can be replaced where the storage writes over it.
            if self.storage.get_available_name(name) != name:
                raise

    def _take_back(self, name: str) -> None:
        with contextlib.suppress(DestinationError):
            self.delete(name)

    def _kept(self, name: str) -> DeletionRefusedError:
        return DeletionRefusedError(
            _("The storage %(alias)r keeps %(name)s: it does not let us delete it."),
            hint=_("Where that is not on purpose, look at the rights of its credentials."),
            alias=self.alias,
            name=name,
        )

    @contextlib.contextmanager
    def _errors(self, verb: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except DestinationError:
            raise
        except MISSING as error:
            # While an object is read it is missing; for anything else a folder is.
            raise (ObjectMissingError if verb == "read" else DestinationError)(
                _("The storage %(alias)r has no %(name)s."),
                hint=_("Use another copy of this backup.")
                if verb == "read"
                else _("Look at its options in STORAGES; it may have to be made or mounted."),
                alias=self.alias,
                name=name or _("folder for its objects"),
            ) from error
        except Exception as error:  # whatever the storage's library raises
            raise DestinationError(
                _("Cannot %(verb)s the storage %(alias)r: %(kind)s: %(reason)s"),
                hint=_("Look at its options in STORAGES, and whether its service can be reached."),
                permanent=isinstance(error, FOR_GOOD),
                verb=verb,
                alias=self.alias,
                kind=type(error).__name__,
                reason=reason_of(error, self.storage),
            ) from error


class _Opened:
    """An open file of a storage; an error while reading is a DestinationError."""

    def __init__(self, access: GenericAccess, name: str, file: File[bytes]) -> None:
        self._access = access
        self._name = name
        self._file = file

    def read(self, size: int, /) -> bytes:
        with self._access._errors(_("read"), self._name):
            data: bytes = self._file.read(size)
        return data

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._file.close()
