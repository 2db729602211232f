"""SFTP, by a django-storages SFTPStorage's options: temporary name, size checked, renamed."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
from paramiko.sftp import CMD_CLOSE, CMD_OPENDIR, CMD_READDIR
from paramiko.sftp_attr import SFTPAttributes

from mipyme_backup.destinations.access.base import Access, walk
from mipyme_backup.destinations.access.ssh import SSH_PORT, Connection
from mipyme_backup.destinations.listing import Entry, Layout, leads_to
from mipyme_backup.destinations.throttle import Throttle
from mipyme_backup.errors import DestinationError
from mipyme_backup.messages import _
from mipyme_backup.process import Reader
from mipyme_backup.wording import place_with

TEMPORARY = re.compile(r"\.mipyme_backup-[0-9a-f]{16}\.part")
"""The end of a temporary name; before it stands that of the object."""

REQUEST = 32 * 1024
"""Bytes that every server takes, and gives, in one request."""

LARGEST = 2**63 - 1

READ_AHEAD = 64
"""Requests that are on their way at a time while an object is read: 2 MiB."""


class SFTPAccess(Access):
    """Files below the storage's `root_path`, 0600 in folders of 0700 where it sets no modes."""

    def __init__(self, storage: Any, alias: str) -> None:
        super().__init__(storage, alias)
        self._connection = Connection(storage)

    def prepare(self) -> None:
        with self._connection.errors(_("prepare")):
            self._make_folder(self.storage.root_path)

    def put(self, name: str, file: Path, throttle: Throttle) -> None:
        temporary = f"{name}.mipyme_backup-{secrets.token_hex(8)}.part"
        with self._connection.errors(_("write to"), name):
            self._make_folder(posixpath.dirname(self._path(name)))
        try:
            with contextlib.ExitStack() as opened, self._connection.errors(_("write to"), name):
                self._write(temporary, file, throttle, opened)
                self._rename(self._path(temporary), self._path(name))
        except BaseException:
            with contextlib.suppress(DestinationError), self._connection.errors(_("write to")):
                self._connection.sftp.remove(self._path(temporary))
            raise

    def open(self, name: str) -> Reader:
        with self._connection.errors(_("read"), name, reading=True):
            if self._size(name) is None:
                raise FileNotFoundError
            return _Prefetched(self._connection, name, self._connection.sftp.open(self._path(name)))

    def size(self, name: str) -> int | None:
        with self._connection.errors(_("read"), name, reading=True):
            return self._size(name)

    def modified_at(self, name: str) -> datetime | None:
        with self._connection.errors(_("read"), name, reading=True):
            seconds = self._connection.sftp.stat(self._path(name)).st_mtime
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def entries(self, prefix: str) -> Iterator[Entry]:
        return (entry for entry in self._files(prefix) if not TEMPORARY.search(entry.name))

    def listing(self, layout: Layout) -> Iterator[Entry]:
        with self._connection.errors(_("list")):
            yield from (
                entry
                for entry in walk(self._listed, layout.leads)
                if not TEMPORARY.search(entry.name)
            )

    def delete(self, name: str) -> None:
        with self._connection.errors(_("delete from"), name, deleting=True):
            if self._size(name) is not None:
                self._connection.sftp.remove(self._path(name))
        self._remove_empty(posixpath.dirname(name))

    def sweep(self, prefix: str) -> None:
        for entry in [*self._files(prefix)]:
            if TEMPORARY.search(entry.name):
                self.delete(entry.name)

    def describe(self) -> str:
        storage = self.storage
        user, port = storage.params.get("username"), storage.params.get("port")
        host = f"{user}@{storage.host}" if user else storage.host
        root = storage.root_path
        # As OpenSSH and curl write it, a path that begins at the home folder begins with /~/.
        path = root if root.startswith("/") else f"/~/{root}"
        files = {
            "key_filename": storage.params.get("key_filename"),
            "known_host_file": storage.known_host_file,
        }
        return place_with(f"sftp://{host}:{port or SSH_PORT}{path}", files)

    def _files(self, prefix: str) -> Iterator[Entry]:
        with self._connection.errors(_("list")):
            found = walk(self._listed, partial(leads_to, prefix))
            yield from (
                entry
                for entry in found
                if entry.name.startswith(prefix) and _can_be_named(entry.name)
            )

    def _listed(self, folder: str) -> tuple[list[str], list[Entry]]:
        above = f"{folder}/" if folder else ""
        folders, files = [], []
        for filename, found in _read_folder(self._connection.sftp, self._path(folder) or "."):
            name = above + filename
            # What begins with a dot at the root is no object, and a link is nothing of ours.
            if stat.S_ISDIR(found.st_mode or 0) and not name.startswith("."):
                folders.append(name)
            elif stat.S_ISREG(found.st_mode or 0):
                files.append(Entry(name=name, size=_checked_size(found)))
        return folders, files

    def _path(self, name: str) -> str:
        return posixpath.join(self.storage.root_path, name) if name else self.storage.root_path

    def _size(self, name: str) -> int | None:
        return _size_of_file(self._connection.sftp, self._path(name))

    def _write(
        self, name: str, file: Path, throttle: Throttle, opened: contextlib.ExitStack
    ) -> None:
        sftp, path = self._connection.sftp, self._path(name)
        with throttle.open(file) as content:
            target = sftp.open(path, "wx", 0)  # what is buffered cannot be let go
            opened.callback(_let_go, target)
            self._make_private(sftp, path)
            target.set_pipelined(True)
            while piece := content.read(REQUEST):
                target.write(piece)
            target.close()
        held, size = sftp.stat(path).st_size, file.stat().st_size
        if held != size:
            raise DestinationError(
                _("The host %(host)s holds %(held)s of the %(size)s bytes that were sent."),
                hint=_("Look whether its disk or our quota there is full."),
                permanent=False,
                host=self.storage.host,
                held=held,
                size=size,
            )

    def _make_private(self, sftp: Any, path: str) -> None:
        """Set mode and owner before there is a byte in the file."""
        storage = self.storage
        try:
            sftp.chmod(path, 0o600 if storage.file_mode is None else storage.file_mode)
        except OSError:
            # A server that knows no modes is no reason to go without a backup: what is asked for
            # in the settings is held to, what is only our custom is not.
            if storage.file_mode is not None:
                raise
        if storage.uid is not None or storage.gid is not None:
            status = sftp.stat(path)
            sftp.chown(
                path,
                status.st_uid if storage.uid is None else storage.uid,
                status.st_gid if storage.gid is None else storage.gid,
            )

    def _rename(self, path: str, target: str) -> None:
        sftp = self._connection.sftp
        try:
            sftp.posix_rename(path, target)
        except OSError as error:
            if error.errno is not None:
                raise
            # The server lacks this extension of OpenSSH; its own rename replaces nothing.
            with contextlib.suppress(FileNotFoundError):
                sftp.remove(target)
            sftp.rename(path, target)

    def _make_folder(self, path: str) -> None:
        sftp = self._connection.sftp
        if path in {"", "/", "."}:
            return
        try:
            sftp.stat(path)
        except FileNotFoundError:
            self._make_folder(posixpath.dirname(path))
            sftp.mkdir(path, 0o700 if self.storage.dir_mode is None else self.storage.dir_mode)

    def _remove_empty(self, folder: str) -> None:
        """Remove the folder and those above it, as far as they are empty and not our root."""
        while folder:
            with self._connection.errors(_("delete from"), folder):
                try:
                    self._connection.sftp.rmdir(self._path(folder))
                except OSError:
                    return
            folder = posixpath.dirname(folder)


def _read_folder(sftp: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each name in a folder with its attributes: `listdir_attr` of any bytes in a name.

    That method takes a name that is not UTF-8 for an error, and anyone may write one.
    """
    _kind, opened = sftp._request(CMD_OPENDIR, os.fsencode(path))
    handle = opened.get_binary()
    try:
        while True:
            try:
                _kind, answer = sftp._request(CMD_READDIR, handle)
            except EOFError:
                return
            for _turn in range(answer.get_int()):
                name = os.fsdecode(answer.get_string())
                answer.get_string()  # the same as `ls -l` writes it
                attributes = SFTPAttributes._from_msg(answer)
                if name not in {".", ".."}:
                    yield name, attributes
    finally:
        sftp._request(CMD_CLOSE, handle)


def _can_be_named(name: str) -> bool:
    """Say whether paramiko can ask for the name: one that is not UTF-8 is none of ours."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _let_go(file: Any) -> None:
    """Close a file without waiting for answers that will not come."""
    file.set_pipelined(False)
    with contextlib.suppress(Exception):
        file.close()


def _quiet(file: Any) -> Any:
    """Keep the thread that sends the requests from printing a traceback when the line is cut.

    The one who waits for the answers is told.
    """
    send = file._prefetch_thread

    def send_quietly(*args: Any) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            send(*args)

    file._prefetch_thread = send_quietly
    return file


def _size_of_file(sftp: Any, path: str) -> int | None:
    """Return the size of a regular file in bytes, None where there is none."""
    try:
        status = sftp.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        # Some servers say only "Failure" of what lies below a file.
        if type(error) is not OSError or error.errno is not None or not _below_file(sftp, path):
            raise
        return None
    return _checked_size(status) if stat.S_ISREG(status.st_mode or 0) else None


def _checked_size(status: Any) -> int:
    """Return the size in bytes; raises SFTPError where the server tells none that can be."""
    if status.st_size is None or not 0 <= status.st_size <= LARGEST:
        raise paramiko.SFTPError(f"the server tells no size of a file, but {status.st_size}")
    return int(status.st_size)


def _below_file(sftp: Any, path: str) -> bool:
    above = posixpath.dirname(path)
    return above not in {"", "/"} and (
        _size_of_file(sftp, above) is not None or _below_file(sftp, above)
    )


class _Prefetched:
    """An open file, read in windows of requests that are sent before the first is answered."""

    def __init__(self, connection: Connection, name: str, file: Any) -> None:
        self._connection = connection
        self._name = name
        self._file = _quiet(file)
        self._size = _checked_size(file.stat())
        self._offset = 0
        self._arriving: Iterator[bytes] = iter(())
        self._piece = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        if not self._piece:
            with self._connection.errors(_("read"), self._name, reading=True):
                self._piece = memoryview(self._next())
        taken = bytes(self._piece[:size])
        self._piece = self._piece[size:]
        self._offset += len(taken)
        return taken

    def close(self) -> None:
        # A connection that is gone has closed its files.
        with contextlib.suppress(Exception):
            self._file.close()

    def _next(self) -> bytes:
        if self._offset >= self._size:
            return b""
        piece = next(self._arriving, None)
        if piece is None:
            end = min(self._offset + READ_AHEAD * REQUEST, self._size)
            starts = range(self._offset, end, REQUEST)
            self._arriving = self._file.readv([(at, min(REQUEST, end - at)) for at in starts])
            piece = next(self._arriving)
        if not piece:
            raise EOFError(_("the file ended before its size"))
        return piece
