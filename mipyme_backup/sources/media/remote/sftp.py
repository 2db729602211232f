"""SFTP, by the session of a django-storages SFTPStorage: listed with attributes, and renamed."""

from __future__ import annotations

import contextlib
import posixpath
import stat
from collections.abc import Iterator
from typing import Any

from mipyme_backup.messages import Message, _
from mipyme_backup.sources.media.left_out import Reason
from mipyme_backup.sources.media.names import MAX_DEPTH
from mipyme_backup.sources.media.remote.objects import OWN, Content, Found, Objects

REQUEST = 32 * 1024
"""Bytes that every server takes, and gives, in one request."""

READ_AHEAD = 64
"""Requests that are on their way at a time while a file is read: 2 MiB."""

STALL_SECONDS = 60
"""Without an answer for so long the server counts as gone, where the storage sets no limit."""


class SFTPObjects(Objects):
    """Files below the storage's `root_path`, with the modes and the owner that it gives."""

    def media(self) -> Iterator[Found]:
        return self._walk("", depth=0)

    def below(self, prefix: str) -> Iterator[Found]:
        with contextlib.suppress(FileNotFoundError):
            yield from self._walk(prefix.rstrip("/"), depth=0)

    def stat(self, name: str) -> Found | None:
        try:
            status = self._sftp.lstat(self._path(name))
        except FileNotFoundError:
            return None
        return _found(name, status)

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._sftp.open(self._path(name), "rb") as file:
            size = int(file.stat().st_size)
            for start in range(0, size, READ_AHEAD * REQUEST):
                end = min(start + READ_AHEAD * REQUEST, size)
                starts = range(start, end, REQUEST)
                for data in file.readv([(at, min(REQUEST, end - at)) for at in starts]):
                    if not data:
                        raise EOFError(_("the file ended before its size"))
                    yield data

    def put(self, name: str, content: Content, *, like: str = "") -> None:
        self._make_folder(posixpath.dirname(name))
        path, size = self._path(name), 0
        with self._sftp.open(path, "w", 0) as file:
            file.set_pipelined(True)
            while data := content.read(REQUEST):
                file.write(data)
                size += len(data)
        storage = self.storage
        if storage.file_mode is not None:
            self._sftp.chmod(path, storage.file_mode)
        if storage.uid or storage.gid:
            storage._chown(path, uid=storage.uid, gid=storage.gid)
        held = self._sftp.stat(path).st_size
        if held != size:
            text = _("it holds %(held)d of the %(size)d bytes that were sent")
            raise OSError(Message(text, {"held": held, "size": size}))

    def copy(self, name: str, to: str, *, size: int, like: str = "") -> None:
        self.put(to, Content(self.chunks(name), size))

    def set_aside(self, name: str, to: str, *, expected: Found | None) -> None:
        self.require(name, expected)
        self._rename(name, to)

    def move(self, name: str, to: str, *, size: int) -> None:
        self._clear_folder(self._path(to))
        self._rename(name, to)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._sftp.remove(self._path(name))

    def remove_below(self, prefix: str) -> None:
        super().remove_below(prefix)
        self._clear_folder(self._path(prefix.rstrip("/")))

    def require_listable(self) -> None:
        self._sftp.listdir_attr(self._path(""))

    @property
    def _sftp(self) -> Any:
        session = self.storage.sftp
        channel = session.get_channel()
        if channel.gettimeout() is None:
            channel.settimeout(STALL_SECONDS)
        return session

    def _path(self, name: str) -> str:
        root: str = self.storage.root_path
        path: str = self.storage._remote_path(name) if name else root.rstrip("/") or root
        return path or "."

    def _walk(self, folder: str, *, depth: int) -> Iterator[Found]:
        above = f"{folder}/" if folder else ""
        try:
            listed = self._sftp.listdir_attr(self._path(folder))
        except FileNotFoundError:
            if not depth:
                raise
            return  # it vanished since its parent was listed
        for status in listed:
            name = above + status.filename
            if not folder and name.startswith(OWN):
                continue
            if not stat.S_ISDIR(status.st_mode or 0):
                yield _found(name, status)
            elif depth >= MAX_DEPTH:
                yield Found(name, reason=Reason.TOO_DEEP)
            else:
                yield from self._walk(name, depth=depth + 1)

    def _rename(self, name: str, to: str) -> None:
        self._make_folder(posixpath.dirname(to))
        path, target = self._path(name), self._path(to)
        try:
            self._sftp.posix_rename(path, target)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno is not None:
                raise
            # The server lacks this extension of OpenSSH; its own rename replaces nothing.
            with contextlib.suppress(FileNotFoundError):
                self._sftp.remove(target)
            self._sftp.rename(path, target)

    def _make_folder(self, folder: str) -> None:
        if self.storage._path_exists(self._path(folder)):
            return
        top = folder.partition("/")[0]
        if top.startswith(OWN) and not self.storage._path_exists(self._path(top)):
            self.storage._mkdir(self._path(top))
            with contextlib.suppress(OSError):  # not every server knows modes
                self._sftp.chmod(self._path(top), 0o700)
        if folder != top or not top.startswith(OWN):
            self.storage._mkdir(self._path(folder))

    def _clear_folder(self, path: str) -> None:
        """Remove a folder with the folders in it, as far as there are no files; else nothing."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(self._sftp.lstat(path).st_mode or 0):
                return
            for status in self._sftp.listdir_attr(path):
                if stat.S_ISDIR(status.st_mode or 0):
                    self._clear_folder(f"{path}/{status.filename}")
            with contextlib.suppress(OSError):
                self._sftp.rmdir(path)


def _found(name: str, status: Any) -> Found:
    mode = status.st_mode or stat.S_IFREG
    if stat.S_ISLNK(mode):
        return Found(name, reason=Reason.UNFOLLOWED)
    if not stat.S_ISREG(mode):
        return Found(name, reason=Reason.SPECIAL)
    return Found(name, int(status.st_size or 0), int(status.st_mtime or 0) * 10**9)
