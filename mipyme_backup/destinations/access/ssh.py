"""A connection to an SFTP server whose host key is known, and what its errors mean."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

from mipyme_backup.errors import DeletionRefusedError, DestinationError, ObjectMissingError
from mipyme_backup.messages import _
from mipyme_backup.wording import reason_of

SSH_PORT: int = paramiko.config.SSH_PORT
STALL_SECONDS = 60
KEEPALIVE_SECONDS = 15
LOGGER = "mipyme_backup.ssh"

# What matters of it is raised; paramiko logs tracebacks of what a server does.
logging.getLogger(LOGGER).setLevel(logging.CRITICAL + 1)

BROKEN_OFF = re.compile(r"timeout|EOF|shut down")
"""Paramiko's words for a connection that was lost while we were about to log in."""

REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


class Connection:
    """The SFTP session of a django-storages SFTPStorage, opened when it is first needed.

    The storage itself would trust any host that it does not know. Here the host must have shown
    a key of the storage's `known_host_file`, or of ``~/.ssh/known_hosts``, before a word of the
    credentials is sent. An error that leaves the session in doubt ends it; the next call opens
    another.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._client: paramiko.SSHClient | None = None
        self._session: Any = None
        self.patience: float = storage.params.get("timeout") or STALL_SECONDS
        """Seconds without an answer after which the server counts as gone."""

    @property
    def sftp(self) -> Any:
        """The session; connects where there is none. Raises paramiko's errors."""
        if self._session is None or not self._alive():
            self.close()
            self._connect()
        return self._session

    def close(self) -> None:
        client, self._client, self._session = self._client, None, None
        if client is not None:
            client.close()

    @contextlib.contextmanager
    def errors(
        self, verb: str, name: str = "", *, reading: bool = False, deleting: bool = False
    ) -> Iterator[None]:
        """Turn what paramiko raises into a DestinationError.

        `reading` makes a missing file an ObjectMissingError, `deleting` a refusal a
        DeletionRefusedError.
        """
        place = f"sftp://{self._storage.host}/{name}"
        try:
            yield
        except DestinationError:
            self.close()
            raise
        except FileNotFoundError as error:
            raise (ObjectMissingError if reading else DestinationError)(
                _("%(place)s does not exist."),
                hint=_("Use another copy of this backup.")
                if reading
                else _("Look at root_path in STORAGES; the first backup makes the folder."),
                place=place,
            ) from error
        except (paramiko.SSHException, paramiko.SFTPError, OSError, EOFError) as error:
            permanent, hint = self._meaning(error)
            refused = isinstance(error, OSError) and error.errno in REFUSED
            if not refused:
                self.close()
            raise (DeletionRefusedError if deleting and refused else DestinationError)(
                _("Cannot %(verb)s %(place)s: %(reason)s"),
                hint=hint,
                permanent=permanent,
                verb=verb,
                place=place,
                reason=reason_of(error, self._storage),
            ) from error

    def _connect(self) -> None:
        known_hosts = Path(self._storage.known_host_file or "~/.ssh/known_hosts").expanduser()
        client = paramiko.SSHClient()
        client.set_log_channel(LOGGER)
        if known_hosts.exists():
            client.load_host_keys(str(known_hosts))
        client.set_missing_host_key_policy(_Refusing(known_hosts))
        self._client = client
        patience = dict.fromkeys(
            ("timeout", "banner_timeout", "auth_timeout", "channel_timeout"), self.patience
        )
        client.connect(self._storage.host, **{**patience, **self._storage.params})
        transport = client.get_transport()
        assert transport is not None
        transport.set_keepalive(KEEPALIVE_SECONDS)
        # Paramiko waits for ever for the answers to what begins the session.
        watch = threading.Timer(self.patience, client.close)
        watch.start()
        try:
            self._session = client.open_sftp()
        finally:
            watch.cancel()
        self._session.get_channel().settimeout(self.patience)

    def _alive(self) -> bool:
        transport = self._client.get_transport() if self._client else None
        return (
            transport is not None
            and transport.is_active()
            and not self._session.get_channel().closed
        )

    def _meaning(self, error: Exception) -> tuple[bool, str]:
        """Return whether `error` is permanent, and what to do about it."""
        if isinstance(error, paramiko.BadHostKeyException):
            return True, _(
                "The host shows another key than the one that was noted for it. Somebody may be"
                " in between: ask its administrator. Where the key was really changed, replace it"
                " in the file of known hosts."
            )
        if isinstance(error, paramiko.AuthenticationException) and not BROKEN_OFF.search(
            str(error)
        ):
            return True, _("Look at username, password and key in params of this storage.")
        if isinstance(error, IncompatiblePeer):
            return True, _("The host speaks only methods that are given up as unsafe: update it.")
        if isinstance(error, OSError) and error.errno in REFUSED:
            return True, _("Look at the owner and permissions of the folder on the host.")
        if isinstance(error, OSError) and error.errno is None and self._answers(error):
            return True, _(
                "SFTP does not tell why. Mostly the disk or the quota there is full; else look at"
                " the permissions of the folder."
            )
        return False, _("Look at the network, and whether the host is up.")

    def _answers(self, error: OSError) -> bool:
        """Say whether the error is an answer of the server, and not one of the connection."""
        return (
            not isinstance(error, TimeoutError | ConnectionError | NoValidConnectionsError)
            and str(error) != "Socket is closed"  # paramiko's own words
            and self._session is not None
            and self._alive()
        )


class _Refusing:
    """What paramiko asks about a host that is not known."""

    def __init__(self, known_hosts: Path) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(self, client: object, hostname: str, key: Any) -> None:
        host, _bracket, port = hostname.strip("[").partition("]:")
        raise DestinationError(
            _(
                "The host %(host)s is not known: there is no key of it in %(file)s. The one it"
                " shows is %(kind)s %(fingerprint)s."
            ),
            hint=_(
                "Run ssh-keyscan -p %(port)s %(host)s, compare the fingerprint with the one that"
                " the host's administrator gives you, and only then add the line to that file."
            ),
            host=host,
            port=port or SSH_PORT,
            file=self._known_hosts,
            kind=key.get_name(),
            fingerprint=key.fingerprint,
        )
