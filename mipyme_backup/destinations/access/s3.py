"""S3 and what speaks as it does, by the client of a django-storages S3Storage."""

from __future__ import annotations

import contextlib
import functools
import posixpath
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from s3transfer.constants import ALLOWED_DOWNLOAD_ARGS
from s3transfer.utils import ChunksizeAdjuster
from urllib3.exceptions import HTTPError

from mipyme_backup.destinations.access import checksums
from mipyme_backup.destinations.access.base import PROBE, Access
from mipyme_backup.destinations.access.s3_connection import harden
from mipyme_backup.destinations.access.s3_errors import code_of, is_missing, translated
from mipyme_backup.destinations.listing import Entry, Layout
from mipyme_backup.destinations.throttle import Throttle
from mipyme_backup.errors import DeletionRefusedError, DestinationError, ObjectMissingError
from mipyme_backup.messages import _
from mipyme_backup.process import Reader
from mipyme_backup.wording import place_with

PART_SIZE = 16 * 2**20
THREADS = 3
LARGEST = 2**63 - 1


class S3Access(Access):
    """Objects of a bucket below the storage's `location`.

    An upload is invisible until it is whole. Where the bucket keeps versions, a deletion is one
    of every version that comes to light: a delete marker would hide the object and free nothing.
    """

    def prepare(self) -> None:
        if getattr(self.storage, "gzip", False):
            raise DestinationError(
                _("The storage %(alias)r compresses what it saves: its bytes would not be ours."),
                hint=_("Take gzip out of its OPTIONS (or AWS_IS_GZIPPED out of the settings)."),
                alias=self.alias,
            )
        if not self.storage.bucket_name:
            raise DestinationError(
                _("The storage %(alias)r names no bucket."),
                hint=_("Set bucket_name in its OPTIONS."),
                alias=self.alias,
            )

    def put(self, name: str, file: Path, throttle: Throttle) -> None:
        if file.stat().st_size >= PART_SIZE:
            # An upload in parts that broke off, and could not be aborted, goes on being paid for.
            with contextlib.suppress(DeletionRefusedError):
                self.sweep(name)
        config = TransferConfig(
            multipart_threshold=PART_SIZE,
            multipart_chunksize=PART_SIZE,
            max_concurrency=THREADS,
            # Python waits for the threads of this library before it ends, however long they hang.
            use_threads=file.stat().st_size >= PART_SIZE,
            # The other client, written in C, keeps to its own limits of memory.
            preferred_transfer_client="classic",
        )
        with self._errors(_("write to"), name):
            self._client.upload_file(
                str(file),
                self._bucket,
                self._key(name),
                ExtraArgs=self._write_options(name),
                Callback=throttle.take,
                Config=config,
            )

    def vouches_for(self, name: str, file: Path) -> bool:
        head = self._head(name, ChecksumMode="ENABLED")
        if head is None:
            self._check_bucket()
            raise ObjectMissingError(
                _("%(place)s does not exist."),
                hint=_("Use another copy of this backup."),
                place=self._place(name),
            )
        size = file.stat().st_size
        if head["ContentLength"] == size:
            attested = head.get("ChecksumSHA256")
            if not attested:
                return False
            expected = checksums.whole(file)
            if _is_of_parts(head):
                part_size = self._part_size(size)
                expected = checksums.composite(file, part_size)
            # Not every service says the number of parts that AWS puts behind the checksum.
            if attested.partition("-")[0] == expected.partition("-")[0]:
                return True
            if _is_of_parts(head) and not self._was_cut(name, part_size, size):
                return False
        raise DestinationError(
            _("%(place)s has other bytes than were sent."),
            hint=_("Look at what else writes to this bucket; the next backup stores them anew."),
            place=self._place(name),
        )

    def open(self, name: str) -> Reader:
        with self._errors(_("read"), name):
            answer = self._client.get_object(**self._object(name))
        return _Body(self, name, answer["Body"])

    def size(self, name: str) -> int | None:
        head = self._head(name)
        if head is None:
            self._check_bucket()
            return None
        return int(head["ContentLength"])

    def modified_at(self, name: str) -> datetime | None:
        head = self._head(name)
        return head.get("LastModified") if head else None

    def entries(self, prefix: str) -> Iterator[Entry]:
        pages = self._client.get_paginator("list_objects_v2")
        with self._errors(_("list")):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(prefix)):
                self._check_page(page)
                for found in page.get("Contents", ()):
                    name = found["Key"].removeprefix(self._root)
                    yield Entry(name=name, size=_size(found["Size"]))

    def listing(self, layout: Layout) -> Iterator[Entry]:
        """By our prefixes: what else lies in the bucket is seen in one page of its root alone."""
        for prefix in layout.prefixes:
            yield from self.entries(prefix)
        with self._errors(_("list")):
            page = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._root, Delimiter="/"
            )
            self._check_page(page)
            names = [found["Prefix"] for found in page.get("CommonPrefixes", ())]
            names += [found["Key"] for found in page.get("Contents", ())]
        for name in (key.removeprefix(self._root) for key in names):
            if name and not name.startswith((".", *layout.prefixes)):
                yield Entry(name=name, size=0)

    def _check_page(self, page: Mapping[str, Any]) -> None:
        """Raise DestinationError for an answer without a listing in it, which looks empty.

        A proxy or a login page may give one: the client takes any XML, and none, for a listing.
        """
        if not {"Name", "KeyCount", "IsTruncated"} & page.keys():
            raise DestinationError(
                _("What answers for %(place)s is no listing of S3."),
                hint=_("Look at endpoint_url in STORAGES, and at what stands in between."),
                permanent=False,
                place=self._place(""),
            )

    def delete(self, name: str) -> None:
        seen: set[str | None] = set()
        while (head := self._head(name)) is not None:
            version = head.get("VersionId")
            if version in seen:
                raise DeletionRefusedError(
                    _("%(place)s was deleted, says the service, and is still there."),
                    hint=_("Look at what the service says of this bucket."),
                    place=self._place(name),
                )
            seen.add(version)
            named = {} if version is None else {"VersionId": version}
            with self._errors(_("delete from"), name, deleting=True):
                self._client.delete_object(Bucket=self._bucket, Key=self._key(name), **named)
        if not seen:
            self._check_bucket()

    def sweep(self, prefix: str) -> None:
        pages = self._client.get_paginator("list_multipart_uploads")
        with self._errors(_("delete from"), prefix, deleting=True):
            try:
                unfinished = [
                    upload
                    for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(prefix))
                    for upload in page.get("Uploads", ())
                    # Not every service heeds the prefix, and others may upload to this bucket.
                    if upload["Key"].startswith(self._key(prefix))
                ]
                for upload in unfinished:
                    self._abort(upload["Key"], upload["UploadId"])
            except ClientError as error:
                # Some services know no such list; others say this where it is empty.
                if code_of(error) not in {"501", "NotImplemented", "NoSuchUpload"}:
                    raise

    def describe(self) -> str:
        names = ("endpoint_url", "region_name")
        options = {name: getattr(self.storage, name, None) for name in names}
        return place_with(self._place(""), options)

    @functools.cached_property
    def _client(self) -> Any:
        # Botocore itself gives up a connection after 60 s of silence, where client_config sets
        # nothing else, and so do we after two minutes of a crawl. The client is made once: the
        # storage would make one for each thread.
        with self._errors(_("connect to")):
            client = self.storage.connection.meta.client
            harden(client)
            return client

    @property
    def _bucket(self) -> str:
        return str(self.storage.bucket_name)

    @functools.cached_property
    def _root(self) -> str:
        location = posixpath.normpath(self.storage.location).strip("/")
        return "" if location == "." else f"{location}/"

    def _key(self, name: str) -> str:
        return self._root + name

    def _place(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def _object(self, name: str) -> dict[str, Any]:
        """Return what names the object in a request, with the customer's key where there is one."""
        options = self.storage.get_object_parameters(self._key(name))
        known = {key: value for key, value in options.items() if key in ALLOWED_DOWNLOAD_ARGS}
        return {**known, "Bucket": self._bucket, "Key": self._key(name)}

    def _write_options(self, name: str) -> dict[str, Any]:
        options: dict[str, Any] = self.storage._get_write_parameters(self._key(name))
        if self._client.meta.config.request_checksum_calculation != "when_required":
            options.setdefault("ChecksumAlgorithm", "SHA256")
        return options

    def _head(self, name: str, **options: str) -> dict[str, Any] | None:
        """Return what the service says of an object, None where there is none."""
        with self._errors(_("read"), name):
            try:
                answer: dict[str, Any] = self._client.head_object(**self._object(name), **options)
            except ClientError as error:
                if is_missing(error):
                    return None
                raise
            _size(answer["ContentLength"])
            return answer

    def _check_bucket(self) -> None:
        """Raise DestinationError where there is no bucket: HEAD of an object does not tell it."""
        with self._errors(_("list")):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._key(PROBE), MaxKeys=1)

    def _part_size(self, size: int) -> int:
        """Return the size of the parts that an upload of `size` bytes goes in."""
        return int(ChunksizeAdjuster().adjust_chunksize(PART_SIZE, size))

    def _was_cut(self, name: str, part_size: int, size: int) -> bool:
        """Say whether the object was uploaded in parts of this size, as ours are."""
        head = self._head(name, PartNumber=1)  # type: ignore[arg-type]
        return head is not None and head["ContentLength"] == min(part_size, size)

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if code_of(error) not in {"404", "NoSuchUpload"}:
                raise

    @contextlib.contextmanager
    def _errors(self, verb: str, name: str = "", *, deleting: bool = False) -> Iterator[None]:
        try:
            yield
        except (
            # Botocore's own: an error in answer to a GET, under the headers of a checksum.
            AttributeError,
            Boto3Error,
            BotoCoreError,
            ClientError,
            HTTPError,
            # An answer that lacks something, or has a number or a time in it that is none.
            KeyError,
            OSError,
            ResponseParserError,
            TypeError,
            ValueError,
        ) as error:
            # A failed upload hides the service's answer in an error of another kind.
            cause = error.__context__ if isinstance(error, Boto3Error) else error
            raise translated(
                cause if isinstance(cause, Exception) else error,
                self.storage,
                verb=verb,
                place=self._place(name),
                deleting=deleting,
            ) from error


def _size(value: Any) -> int:
    """Return a size in bytes; raises ValueError or TypeError for what is none."""
    size = int(value)
    if not 0 <= size <= LARGEST:
        raise ValueError(f"{value!a:.40} is no size")
    return size


def _is_of_parts(head: Mapping[str, Any]) -> bool:
    """Say whether the checksum is one of the parts' checksums; their number is in the ETag."""
    return head.get("ChecksumType") != "FULL_OBJECT" and "-" in head.get("ETag", "")


class _Body:
    """The bytes of an object as they arrive; an error on the way is a DestinationError."""

    def __init__(self, access: S3Access, name: str, body: Any) -> None:
        self._access = access
        self._name = name
        self._body = body

    def read(self, size: int, /) -> bytes:
        with self._access._errors(_("read"), self._name):
            data: bytes = self._body.read(size)
        return data

    def close(self) -> None:
        self._body.close()
