"""Prune on S3, and on services that keep what was to be deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from mipyme_backup import api
from mipyme_backup.models import Copy
from tests import services
from tests.integration.pruning import History, actions, assert_all_good, error_of, history

__all__ = ["history"]
DESTINATION = "mipyme_backup.destinations.StorageDestination"
S3 = "storages.backends.s3.S3Storage"


def use_s3(history: History, server: services.S3Server, **options: Any) -> None:
    """Make S3 the only destination; its daily backups are kept for 30 days."""
    alias = {"BACKEND": S3, "OPTIONS": server.options(**options)}
    history.settings.STORAGES = {**history.settings.STORAGES, "s3": alias}
    place = {
        "BACKEND": DESTINATION,
        "OPTIONS": {"storage": "s3"},
        "RETENTION": {"daily": 30, "minimum_good": 1},
    }
    history.configure(DESTINATIONS={"s3": place})


def test_old_backups_and_their_packs_go_from_s3(history: History) -> None:
    history.begin(95, 90, 80, 3, 1)
    with services.s3() as server:
        assert server.folder is not None
        for name in history.tree():  # its clock would refuse what is signed in the past
            (server.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(history.folder / name, server.folder / name)
        use_s3(history, server)
        api.backups(sync=True)

        first = api.prune()
        history.wait(73)
        second = api.prune()

        assert not first.failed and not second.failed
        assert history.held(server.folder) == {3, 1}
        assert history.packs(server.folder) == history.needed_packs(3, 1)
        assert second.destinations[0].freed > 0
        assert_all_good()


def test_service_that_is_gone_is_a_failure_and_nothing_changes(history: History) -> None:
    with services.s3() as server:
        use_s3(history, server)
        history.take(0)
    history.places["s3"]["RETRY_FOR"] = 0

    result = api.prune()

    assert result.failed
    assert "Cannot list" in error_of(result, "s3")
    assert set(Copy.objects.values_list("status", flat=True)) == {"complete"}


@pytest.fixture(scope="module")
def moto() -> Iterator[services.S3Server]:
    with services.moto_s3() as server:
        client = server.client()
        client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 400}}
        client.put_object_lock_configuration(
            Bucket="locked",
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
        )
        client.create_bucket(Bucket="append-only")
        statement = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            "Resource": "arn:aws:s3:::append-only/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        client.put_bucket_policy(Bucket="append-only", Policy=policy)
        yield server


@pytest.mark.parametrize("bucket", ["locked", "append-only"])
def test_what_the_service_keeps_is_told_and_is_no_failure(
    history: History, moto: services.S3Server, bucket: str
) -> None:
    use_s3(history, moto, bucket_name=bucket)
    history.take(90, 1)
    objects = moto.client().list_object_versions(Bucket=bucket)["Versions"]

    results = [api.prune()]
    history.wait(100)
    results.append(api.prune())

    for result in results:
        assert not result.failed
        assert actions(result, "s3") == {
            history.name(90): "locked",
            history.name(1): "keep",
        }
        assert result.destinations[0].freed == 0
    listing = moto.client().list_object_versions(Bucket=bucket)
    assert {(o["Key"], o["VersionId"]) for o in listing["Versions"]} == {
        (o["Key"], o["VersionId"]) for o in objects
    }
    assert "DeleteMarkers" not in listing
    assert set(Copy.objects.values_list("status", flat=True)) == {"complete"}
    assert_all_good()


def test_a_pin_is_taken_away_where_nothing_may_be_deleted(
    history: History, moto: services.S3Server
) -> None:
    use_s3(history, moto, bucket_name="append-only", location="pins")
    history.take(1)
    api.pin(identifier=history.name(1))
    (while_pinned,) = api.backups(destination="s3")

    removed = api.pin(identifier=history.name(1), pinned=False)

    assert while_pinned.to_dict()["pinned"]
    assert not removed.failed
    assert not api.backups(destination="s3")[0].to_dict()["pinned"]


def test_two_at_once_are_one(history: History) -> None:
    history.begin(90, 80, 3, 2, 1)
    connections.close_all()
    held_read, held_write = os.pipe()
    end_read, end_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with api.build_project().lock("prune"):
                os.write(held_write, b"x")
                os.read(end_read, 1)
        finally:
            os._exit(0)
    os.read(held_read, 1)
    try:
        with pytest.raises(CommandError) as caught:
            call_command("prune_backups")
    finally:
        os.write(end_write, b"x")
        os.waitpid(child, 0)
        for descriptor in (held_read, held_write, end_read, end_write):
            os.close(descriptor)

    assert caught.value.returncode == 5
    assert f"prune (process {child}" in str(caught.value)
    assert history.held() == {90, 80, 3, 2, 1}
    call_command("prune_backups", verbosity=0)
    assert history.held() == {3, 2, 1}
