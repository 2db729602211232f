"""S3 and what speaks as it does, by the client of a django-storages S3Storage.

A page of a listing tells size and time of a thousand objects, copies are made by the service, and
an object is replaced in one step.
"""

from __future__ import annotations

import contextlib
import functools
import posixpath
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError
from s3transfer.constants import ALLOWED_DOWNLOAD_ARGS
from s3transfer.manager import TransferManager

from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK
from mipyme_backup.sources.media.remote.failures import code_of
from mipyme_backup.sources.media.remote.generic import nanoseconds
from mipyme_backup.sources.media.remote.objects import OWN, ChangedError, Content, Found, Objects

MAX_KEY_BYTES = 1024
SMALL_PUT = 8 * 2**20
LARGEST_COPY = 5 * 10**9
"""Bytes that one request copies; more goes in parts. AWS allows 5 GiB."""

PART_SIZE = 16 * 2**20
MOST_PARTS = 10_000
MISSING = {"404", "NoSuchKey", "NotFound"}
CHANGED = {"412", "PreconditionFailed"}
GZIP_MAGIC = b"\x1f\x8b"
# What a copy takes over by itself, and what has to be said again.
OF_THE_PLACE = {"ACL", "GrantFullControl", "GrantRead", "GrantReadACP", "GrantWriteACP"}
OF_THE_CONTENT = {
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Metadata",
}
CUSTOMER_KEY = ("SSECustomerAlgorithm", "SSECustomerKey")


class S3Objects(Objects):
    """Objects of a bucket below the storage's `location`, as they are stored.

    Ours are private whatever the storage gives its own.
    """

    workers = 8  # botocore keeps ten connections

    def media(self) -> Iterator[Found]:
        return (found for found in self._listed("") if not found.name.startswith(OWN))

    def below(self, prefix: str) -> Iterator[Found]:
        return self._listed(prefix)

    def stat(self, name: str) -> Found | None:
        try:
            head = self._client.head_object(**self._object(name))
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise
        tag = _bare(head["ETag"])
        return Found(name, head["ContentLength"], nanoseconds(head["LastModified"]), tag)

    def chunks(self, name: str) -> Iterator[bytes]:
        return self.open(Found(name)).chunks()

    def open(self, found: Found) -> _Version:
        return _Version(self, found)

    def accepts(self, name: str) -> bool:
        return super().accepts(name) and len(self._key(name).encode()) <= MAX_KEY_BYTES

    def put(self, name: str, content: Content, *, like: str = "") -> None:
        options = self._write_options(like or name, content.head)
        for option in OF_THE_PLACE:
            options.pop(option, None)
        key = self._key(name)
        if content.size <= SMALL_PUT:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=content.read(content.size), **options
            )
            return
        part = max(PART_SIZE, -(-content.size // MOST_PARTS))
        config = TransferConfig(
            multipart_threshold=part,
            multipart_chunksize=part,
            max_concurrency=3,
            preferred_transfer_client="classic",  # the other keeps to limits of its own
        )
        config.max_in_memory_upload_chunks = 3
        # An upload that breaks off is given up, and nothing of it is seen.
        with create_transfer_manager(self._client, config) as manager:
            manager.upload(content, self._bucket, key, options).result()

    def copy(self, name: str, to: str, *, size: int, like: str = "") -> None:
        self._copy(name, to, size, like=like)

    def set_aside(self, name: str, to: str, *, expected: Found | None) -> None:
        if expected is None or not expected.tag:
            expected = self.require(name, expected)
        try:
            self._copy(name, to, expected.size, CopySourceIfMatch=f'"{expected.tag}"')
        except ClientError as error:
            if code_of(error) in CHANGED:
                raise ChangedError(name) from error
            raise

    def move(self, name: str, to: str, *, size: int) -> None:
        self._copy(name, to, size, place=True)
        self.delete(name)

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def require_listable(self) -> None:
        self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._root, MaxKeys=1)

    def _listed(self, prefix: str) -> Iterator[Found]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(prefix)):
            for found in page.get("Contents", ()):
                yield Found(
                    found["Key"].removeprefix(self._root),
                    int(found["Size"]),
                    nanoseconds(found["LastModified"]),
                    _bare(found.get("ETag", "")),
                )

    def get(self, name: str, **conditions: str) -> dict[str, Any]:
        """Return the service's answer with the object; FileNotFoundError where there is none."""
        try:
            answer: dict[str, Any] = self._client.get_object(**self._object(name), **conditions)
        except ClientError as error:
            if code_of(error) in MISSING:
                raise FileNotFoundError(name) from error
            raise
        return answer

    def _copy(
        self,
        name: str,
        to: str,
        size: int,
        *,
        place: bool = False,
        like: str = "",
        **conditions: str,
    ) -> None:
        """Copy with all that belongs to the content; as live objects are, if it goes in `place`.

        With `like`, what belongs to the content is that of an object of this name.
        """
        options = self._write_options(like or (to if place else name))
        in_parts = size > LARGEST_COPY
        kept = {} if like or in_parts else dict.fromkeys(OF_THE_CONTENT)
        extra = {
            option: value
            for option, value in options.items()
            if option in TransferManager.ALLOWED_COPY_ARGS
            and option not in kept
            and (place or option not in OF_THE_PLACE)
        }
        if like:
            extra["MetadataDirective"] = "REPLACE"
        for option in CUSTOMER_KEY:
            if option in extra:
                extra[f"CopySource{option}"] = extra[option]
        extra |= conditions
        place_of = {"Bucket": self._bucket, "Key": self._key(to)}
        source = {"Bucket": self._bucket, "Key": self._key(name)}
        try:
            if in_parts:
                self._client.copy(CopySource=source, ExtraArgs=extra, **place_of)
            else:
                self._client.copy_object(CopySource=source, **place_of, **extra)
        except ClientError as error:
            if code_of(error) in MISSING:
                raise FileNotFoundError(name) from error
            raise

    @functools.cached_property
    def _client(self) -> Any:
        # Made once: the storage would make one for each thread.
        return self.storage.connection.meta.client

    @property
    def _bucket(self) -> str:
        return str(self.storage.bucket_name)

    @functools.cached_property
    def _root(self) -> str:
        location = posixpath.normpath(self.storage.location).strip("/")
        return "" if location == "." else f"{location}/"

    def _key(self, name: str) -> str:
        return self._root + name

    def _object(self, name: str) -> dict[str, Any]:
        """Return what names the object in a request, with the customer's key where there is one."""
        options = self.storage.get_object_parameters(name)
        known = {key: value for key, value in options.items() if key in ALLOWED_DOWNLOAD_ARGS}
        return {**known, "Bucket": self._bucket, "Key": self._key(name)}

    def _write_options(self, name: str, head: bytes = b"") -> dict[str, Any]:
        options: dict[str, Any] = self.storage._get_write_parameters(self._key(name))
        compresses = getattr(self.storage, "gzip", False) and (
            options.get("ContentType") in self.storage.gzip_content_types
        )
        if compresses and head.startswith(GZIP_MAGIC):
            options.setdefault("ContentEncoding", "gzip")  # it was saved compressed
        return options


class _Version:
    """An object as one answer gave it: what is read again is the same, or not at all."""

    def __init__(self, objects: S3Objects, found: Found) -> None:
        self._objects = objects
        self._name = found.name
        self._answer: dict[str, Any] | None = objects.get(found.name)
        self._tag: str = self._answer["ETag"]
        self.size = int(self._answer["ContentLength"])
        moment: datetime = self._answer["LastModified"]
        # Some services list fractions of a second, and leave them out here.
        same = (found.tag, found.size) == (_bare(self._tag), self.size)
        self.mtime_ns = found.mtime_ns if same else nanoseconds(moment)

    def chunks(self) -> Iterator[bytes]:
        answer, self._answer = self._answer, None
        if answer is None:
            answer = self._again()
        with contextlib.closing(answer["Body"]) as body:
            while data := body.read(CHUNK):
                yield data

    def _again(self) -> dict[str, Any]:
        try:
            return self._objects.get(self._name, IfMatch=self._tag)
        except ClientError as error:
            if code_of(error) in CHANGED:
                raise OSError(_("it was replaced since")) from error
            raise

    def stood_still(self) -> bool:
        return True


def _bare(tag: str) -> str:
    """Return an ETag without the quotes that some services leave out here or there."""
    return tag.strip('"')
