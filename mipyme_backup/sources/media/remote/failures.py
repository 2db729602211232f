"""What the errors of a storage mean to the one who asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mipyme_backup.errors import BackupError
from mipyme_backup.messages import _
from mipyme_backup.sources.media.remote.objects import Objects
from mipyme_backup.wording import reason_of

# What S3 services answer, and what HTTP says where there is no more of an answer.
REFUSED = {"403", "AccessDenied", "AllAccessDisabled", "Forbidden", "UnauthorizedAccess"}
CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
NOWHERE = {"404", "NoSuchBucket", "NotFound"}


def code_of(error: BaseException) -> str:
    """Return a service's code of an error, "" where it is none of a service."""
    answer = getattr(error, "response", None)
    details = answer.get("Error", {}) if isinstance(answer, dict) else {}
    return str(details.get("Code", ""))


def is_refusal(error: BaseException) -> bool:
    """Say whether trying again is in vain, for we may not."""
    return isinstance(error, PermissionError) or code_of(error) in REFUSED


@contextlib.contextmanager
def failures(objects: Objects, verb: str, kind: type[BackupError]) -> Iterator[None]:
    """Turn whatever the storage's library raises while we `verb` it into a `kind`."""
    try:
        yield
    except BackupError:
        raise
    except Exception as error:  # every library has errors of its own
        raise failure(objects, error, verb, kind) from error


def failure(objects: Objects, error: Exception, verb: str, kind: type[BackupError]) -> BackupError:
    """Return what `error`, raised while we wanted to `verb` the storage, is to people."""
    return kind(
        _("Cannot %(verb)s the storage %(alias)s, which keeps the media: %(reason)s"),
        hint=_hint(error),
        verb=verb,
        alias=objects.alias,
        reason=reason_of(error, objects.storage),
    )


def _hint(error: Exception) -> str:
    code = code_of(error)
    if isinstance(error, NotImplementedError):
        return _("Media can be saved from storages that can list, open, write and delete files.")
    if code in CREDENTIALS:
        return _("Look at the credentials of this storage in STORAGES: are they whole, and valid?")
    if is_refusal(error):
        return _(
            "Its credentials must be allowed to list and read, for a restore also to write and"
            " delete."
        )
    if isinstance(error, FileNotFoundError) or code in NOWHERE:
        return _("Make the bucket or the folder, or look at the options of this storage.")
    return _("Look at its options in STORAGES, and whether its service can be reached.")
