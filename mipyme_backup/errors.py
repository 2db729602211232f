"""The whole error tree: one root, and the exit status of each kind.

``str(error)`` is the English sentence; an entry point renders the translated one from
``error.message`` and ``error.hint``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from mipyme_backup.messages import Message, _


class BackupError(Exception):
    """Anything that this product raises on purpose.

    `message` says what failed and where, `hint` the next step; both may hold ``%(name)s``
    placeholders that are filled from the keyword arguments. `permanent` is False where
    trying the same again may work.
    """

    code = "error"
    exit_status = 1
    permanent = True

    def __init__(
        self, message: str, *, hint: str = "", permanent: bool | None = None, **params: object
    ) -> None:
        super().__init__(message)
        self.message = Message(message, params)
        self.hint = Message(hint, params)
        if permanent is not None:
            self.permanent = permanent

    def __str__(self) -> str:
        return str(self.message)


class ConfigurationError(BackupError):
    """The settings are malformed or name what does not exist."""

    code = "configuration"


class PreflightError(BackupError):
    """The machine lacks what the work needs: a tool, space, a permission, a reachable server."""

    code = "preflight"


class RestoreFirstError(PreflightError):
    """The project's tables are not there, and its backups are: to save nothing would hide that."""

    code = "restore_first"


class PoolerError(PreflightError):
    """A pooler stands before the server: what we set in a session would reach its other clients."""

    code = "pooler"


class MemoryShortageError(PreflightError):
    """The memory, or the number of processes and threads, that this run may take is used up."""

    code = "memory"


class UsageError(BackupError):
    """The caller asked for something that has no meaning."""

    code = "usage"
    exit_status = 2


class ProcessError(BackupError):
    """A child process failed; the message carries the tail of its stderr."""

    code = "process"


class KilledError(ProcessError):
    """A child process was ended from outside: that says nothing of what it was given to read."""

    code = "killed"

    permanent = False


class SourceError(BackupError):
    """What is to be saved could not be read."""

    code = "source"


class SourceBusyError(SourceError):
    """Somebody waits behind our locks, or we behind theirs: release everything, try again."""

    code = "source_busy"
    permanent = False


class EncryptionError(BackupError):
    """Encryption or decryption failed."""

    code = "encryption"


class KeyMissingError(EncryptionError):
    """No key at hand opens this backup: there is nothing to restore it with."""

    code = "key_missing"
    exit_status = 4


class NotCheckedError(BackupError):
    """A manifest was not authenticated, as too many of strangers had been before it."""

    code = "not_checked"
    permanent = False


class DestinationError(BackupError):
    """A destination refused, failed or could not be reached."""

    code = "destination"


class ObjectMissingError(DestinationError):
    """The destination does not hold the named object."""

    code = "object_missing"


class DeletionRefusedError(DestinationError):
    """The destination keeps an object, by a lock or because our credentials may only add."""

    code = "deletion_refused"


class AlertError(BackupError):
    """A message to people, or to the service that watches, could not be delivered."""

    code = "alert"


class CatalogError(BackupError):
    """The catalog, and nothing else, could have told what was asked."""

    code = "catalog"
    permanent = False


class RestoreError(BackupError):
    """A restore stopped; live data is as it was."""

    code = "restore"


class OtherOriginError(BackupError):
    """A backup was made of another database, or on another host, than what it would replace."""

    code = "other_origin"


class StateError(BackupError):
    """A record in ``STATE_DIR`` is not this host's own, or does not fit the settings: no order.

    `record` is its name there, "" for the folder itself. `finished` says that it is the record of
    a restore that has ended.
    """

    code = "state"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        permanent: bool | None = None,
        record: str = "",
        finished: bool = False,
        **params: object,
    ) -> None:
        super().__init__(message, hint=hint, permanent=permanent, **params)
        self.record = record
        self.finished = finished


class NoBackupError(BackupError):
    """No backup matches what was asked for."""

    code = "no_backup"
    exit_status = 4


class LockedError(BackupError):
    """Another run holds the lock."""

    code = "locked"
    exit_status = 5


class SlotDoneError(BackupError):
    """The backup that was to be taken for a slot is there already: there is nothing to do."""

    code = "slot_done"


class TooSoonError(BackupError):
    """A message asked for what was done, or is being done, a short time ago: nothing was done."""

    code = "too_soon"


class DamagedError(BackupError):
    """The named backup is damaged, missing or not authentic."""

    code = "damaged"
    exit_status = 6


def reason_of(error: BaseException) -> str:
    """Return why a run ended, in words that may go anywhere.

    An interruption has none of its own, and what a foreign error says may hold a secret.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return _("The run was interrupted.")
    if isinstance(error, BackupError):
        return str(error)
    kind = type(error).__name__
    return f"{kind}: {error.strerror}" if isinstance(error, OSError) and error.strerror else kind


MEMORY_TEXTS = (
    "allocation error",  # zstd
    "can't start new thread",
    "cannot allocate memory",
    "failed to map segment",  # the dynamic loader
    "not enough memory",
    "out of core",  # gpg
    "out of memory",
)


def says_memory(text: str) -> bool:
    """Return whether what a program or a library says is that it got no memory."""
    return any(known in text.lower() for known in MEMORY_TEXTS)


def no_memory(reason: object) -> MemoryShortageError:
    """Return the error of a run that could not get memory, a process or a thread."""
    return MemoryShortageError(
        _("There is not enough memory for this run: %(reason)s"),
        hint=_(
            "Stop other programs, raise the memory limit of this process (ulimit -v, the container"
            " or the service), or set JOBS to 1 in MIPYME_BACKUP; then run the same command again."
        ),
        reason=reason,
    )


def memory_shortage(error: BaseException) -> MemoryShortageError | None:
    """Return what `error` is to people where it, or what led to it, is a lack of memory."""
    for cause in _causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if (
            isinstance(cause, MemoryError)
            or number == errno.ENOMEM
            or (not isinstance(cause, OSError | BackupError) and says_memory(str(cause)))
        ):
            return no_memory(str(cause) or type(cause).__name__)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
