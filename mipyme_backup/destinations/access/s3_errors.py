"""What the errors of an S3 service and of its client mean: what to do, and whether to try again."""

from __future__ import annotations

from typing import Any

from botocore import exceptions as botocore_errors
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from mipyme_backup.errors import DeletionRefusedError, DestinationError, ObjectMissingError
from mipyme_backup.messages import _
from mipyme_backup.wording import reason_of

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; those with X are MinIO's.
CREDENTIALS = {
    "AuthFailure",
    "CredentialsNotSupported",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
REGION = {
    "301",
    "307",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}
MISSING = {"404", "NoSuchKey", "NoSuchVersion", "NotFound"}
LOCKED = {"InvalidRetentionPeriod", "MethodNotAllowed", "ObjectLocked", "OperationNotPermitted"}
FULL = {
    "QuotaExceeded",
    "StorageCapExceeded",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
}
PASSING = {
    "429",
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "NoSuchUpload",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
OUR_CREDENTIALS = (
    botocore_errors.CredentialRetrievalError,
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.ProfileNotFound,
    botocore_errors.TokenRetrievalError,
)


def code_of(error: BaseException) -> str:
    """Return the service's code of an error, "" where it is none of a service."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def is_missing(error: BaseException) -> bool:
    return code_of(error) in MISSING


def translated(
    error: Exception, storage: Any, *, verb: str, place: str, deleting: bool = False
) -> DestinationError:
    """Return what `error`, met while we wanted to `verb` `place`, is to the one who asked.

    `deleting` makes a refusal a `DeletionRefusedError`, as long as the credentials themselves
    are good.
    """
    code, status = code_of(error), _status_of(error)
    kind: type[DestinationError] = DestinationError
    permanent = True
    if isinstance(error, OUR_CREDENTIALS) or code in CREDENTIALS:
        hint = _("Look at the credentials of this storage in STORAGES: are they whole, and valid?")
    elif code == "400":  # the answer to HEAD has no body to say more
        hint = _(
            "Look at the credentials of this storage in STORAGES, whether they are still valid,"
            " and at its region_name."
        )
    elif code == "RequestTimeTooSkewed":
        hint = _("The clock of this machine is wrong: set it, and keep it right with NTP.")
    elif code == "NoSuchBucket":
        hint = _("Make the bucket, or look at bucket_name and endpoint_url in STORAGES.")
    elif code in REGION or status in {301, 307}:
        hint = _("The bucket lies in another region: set region_name (and endpoint_url) for it.")
    elif code in MISSING:
        kind, hint = ObjectMissingError, _("Use another copy of this backup.")
    elif code == "InvalidObjectState":
        hint = _("The object is in an archive: have the service restore it first, then try again.")
    elif code in FULL or status == 507:
        hint = _("The service has no room left for this bucket: raise its limit, or prune.")
    elif deleting and (status == 403 or code in LOCKED or "WORM" in str(error)):
        kind = DeletionRefusedError
        hint = _("A lock or the rights of the credentials keep it. That is no fault if so planned.")
    elif status == 403:
        hint = _(
            "Allow these credentials to put, get and list in this bucket; docs/howto/offsite.md"
            " shows how."
        )
    elif code in PASSING or status >= 500 or status == 429 or _is_of_the_way(error):
        permanent, hint = False, _("Look at the network, the service's address and its status.")
    else:
        hint = _("Look at the options of this storage in STORAGES.")
    return kind(
        _("Cannot %(verb)s %(place)s: %(reason)s"),
        hint=hint,
        permanent=permanent,
        verb=verb,
        place=place,
        reason=_said(error, storage),
    )


def _status_of(error: BaseException) -> int:
    answer = getattr(error, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_of_the_way(error: Exception) -> bool:
    """Say whether a connection failed: to reach the service, or in the middle of an answer.

    A checksum that does not fit is no such thing: other bytes are stored, and stay so.
    """
    if isinstance(error, botocore_errors.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return isinstance(
        error,
        botocore_errors.HTTPClientError
        | botocore_errors.ConnectionError
        | botocore_errors.IncompleteReadError
        | ResponseParserError
        | HTTPError
        | AttributeError
        | ConnectionError
        | TimeoutError,
    )


def _said(error: Exception, storage: Any) -> str:
    code = code_of(error)
    if not code:
        return reason_of(error, storage)
    message = str(error.response["Error"].get("Message", ""))  # type: ignore[attr-defined]
    return reason_of(f"{code}: {message}" if message not in {"", code} else code, storage)
