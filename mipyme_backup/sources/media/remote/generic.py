"""Any storage, by the public interface of Django's Storage alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.core.files.base import File
from django.utils.timezone import is_naive, make_aware

from mipyme_backup.messages import Message, _
from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.left_out import Reason
from mipyme_backup.sources.media.names import MAX_DEPTH
from mipyme_backup.sources.media.remote.objects import OWN, Content, Found, Objects, spooled

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OF_THE_NAME = (ImproperlyConfigured, PermissionError, SuspiciousOperation, ValueError)
"""What is raised because of one file; anything else may be the storage's trouble."""


class GenericObjects(Objects):
    """List, open, save and delete, and believe none of it: storages rename what they save, and
    say nothing of a delete that failed.

    Where the storage does not write over a file, replacing it is to delete it first. A copy goes
    through this machine.
    """

    def media(self) -> Iterator[Found]:
        yield from self._walk("", depth=0)

    def below(self, prefix: str) -> Iterator[Found]:
        try:
            yield from self._walk(prefix.rstrip("/"), depth=0)
        except (FileNotFoundError, NotADirectoryError):
            return

    def stat(self, name: str) -> Found | None:
        if not self.storage.exists(name):
            return None
        try:
            return Found(name, int(self.storage.size(name)), self._mtime_ns(name))
        except FileNotFoundError:
            return None

    def chunks(self, name: str) -> Iterator[bytes]:
        if not self.storage.exists(name):  # some open what is missing, and fail later
            raise FileNotFoundError(name)
        with self.storage.open(name, "rb") as file:
            while data := file.read(CHUNK):
                yield data

    def accepts(self, name: str) -> bool:
        # Django takes a backslash for a slash.
        return super().accepts(name) and "\\" not in name

    def put(self, name: str, content: Content, *, like: str = "") -> None:
        if self.storage.exists(name) and self.storage.get_available_name(name) != name:
            self.delete(name)
        with spooled(content) as file:
            saved = self.storage.save(name, File(file, name=name))
        if saved != name:
            self.storage.delete(saved)
            text = _("it saves %(name)s under another name, %(saved)s")
            raise OSError(Message(text, {"name": name, "saved": saved}))
        held = int(self.storage.size(name))
        if held != content.size:
            text = _("it holds %(held)s of the %(size)d bytes of %(name)s")
            raise OSError(Message(text, {"held": held, "size": content.size, "name": name}))

    def copy(self, name: str, to: str, *, size: int, like: str = "") -> None:
        self.put(to, Content(self.chunks(name), size))

    def set_aside(self, name: str, to: str, *, expected: Found | None) -> None:
        self.copy(name, to, size=self.require(name, expected).size)

    def move(self, name: str, to: str, *, size: int) -> None:
        self.copy(name, to, size=size)
        self.delete(name)

    def delete(self, name: str) -> None:
        try:
            if not self.storage.exists(name):
                return
            self.storage.delete(name)
        except FileNotFoundError:
            return
        if self.storage.exists(name):
            text = _("it keeps %(name)s, which was to be deleted")
            raise PermissionError(Message(text, {"name": name}))

    def remove_below(self, prefix: str) -> None:
        super().remove_below(prefix)
        with contextlib.suppress(Exception):  # whatever says that it has no folders
            self._remove_folders(prefix.rstrip("/"))

    def require_listable(self) -> None:
        self.storage.listdir("")

    def _remove_folders(self, folder: str) -> None:
        folders, files = self.storage.listdir(folder)
        for name in folders:
            self._remove_folders(f"{folder}/{name}")
        if not files:
            self.storage.delete(folder)

    def _walk(self, folder: str, *, depth: int) -> Iterator[Found]:
        try:
            folders, files = self.storage.listdir(folder)
        except FileNotFoundError:
            if not depth:
                raise
            return  # it vanished since its parent was listed
        above = f"{folder}/" if folder else ""
        ours = () if folder else (OWN,)
        for file in files:
            # Some show the folder itself as a file without a name.
            if file not in ("", ".", "./") and not (above + file).startswith(ours):
                yield self._found(above + file)
        for name in folders:
            below = above + name.rstrip("/")
            if below.startswith(ours) or name in (".", "./"):
                continue
            if not below.removeprefix(above):
                yield Found(f"{above}/", reason=Reason.NAME)  # nobody can ask for it
            elif depth >= MAX_DEPTH:
                yield Found(below, reason=Reason.TOO_DEEP)
            else:
                yield from self._walk(below, depth=depth + 1)

    def _found(self, name: str) -> Found:
        try:
            return Found(name, int(self.storage.size(name)), self._mtime_ns(name))
        except (FileNotFoundError, NotADirectoryError):
            return Found(name, reason=Reason.VANISHED)
        except OF_THE_NAME:
            return Found(name, reason=Reason.UNREADABLE)

    def _mtime_ns(self, name: str) -> int | None:
        try:
            moment: Any = self.storage.get_modified_time(name)
        except NotImplementedError:
            return None
        return nanoseconds(moment)


def nanoseconds(moment: datetime) -> int:
    """Return the nanoseconds since 1970 of a time, which is in the current zone if it is naive."""
    aware = make_aware(moment) if is_naive(moment) else moment
    return (aware - EPOCH) // timedelta(microseconds=1) * 1000
