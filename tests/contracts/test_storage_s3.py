"""What is special to S3: parts, checksums, locks, rights, and the way there."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mipyme_backup.destinations import StorageDestination
from mipyme_backup.errors import DeletionRefusedError, DestinationError
from mipyme_backup.testing import read_whole
from tests import services
from tests.proxy import Fault, Proxy, proxy

BACKEND = "storages.backends.s3.S3Storage"
IMPATIENT = {"connect_timeout": 5, "read_timeout": 3, "retries": {"total_max_attempts": 1}}
Offsite = Callable[..., StorageDestination]


@pytest.fixture
def location() -> str:
    return f"in/{secrets.token_hex(6)}"


@pytest.fixture
def offsite(settings: Any, location: str) -> Offsite:
    """Makes a destination of a server, with these options of the storage."""

    def made(server: services.S3Server, **options: Any) -> StorageDestination:
        entry = {"BACKEND": BACKEND, "OPTIONS": server.options(location=location) | options}
        settings.STORAGES = {**settings.STORAGES, "offsite": entry}
        return StorageDestination(storage="offsite")

    return made


@pytest.fixture
def s3_proxy(s3_server: services.S3Server) -> Iterator[Proxy]:
    with proxy(s3_server.port) as running:
        yield running


@pytest.fixture
def impatient(
    offsite: Offsite, s3_server: services.S3Server, s3_proxy: Proxy
) -> StorageDestination:
    """A destination beyond the proxy, whose client gives up soon and tries once."""
    return offsite(
        s3_server,
        endpoint_url=f"http://127.0.0.1:{s3_proxy.port}",
        client_config=Config(s3={"addressing_style": "path"}, **IMPATIENT),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "spooled"
    file.write_bytes(b"content")
    return file


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of three parts."""
    file = tmp_path / "large"
    file.write_bytes(secrets.token_bytes(2**20) * 33)
    return file


def test_parts_make_a_whole_that_the_service_vouches_for(
    offsite: Offsite, moto_server: services.S3Server, large: Path
) -> None:
    destination = offsite(moto_server)
    destination.put("backup/large", large)

    digest = hashlib.sha256()
    reader = destination.open("backup/large")
    while piece := reader.read(2**20):
        digest.update(piece)

    assert digest.digest() == hashlib.sha256(large.read_bytes()).digest()
    assert destination.vouches_for("backup/large", large)


def test_the_service_vouches_for_an_object_in_one_piece(
    offsite: Offsite, moto_server: services.S3Server, file: Path, location: str
) -> None:
    destination = offsite(moto_server)
    destination.put("backup/object", file)
    assert destination.vouches_for("backup/object", file)

    moto_server.client().put_object(
        Bucket="backups",
        Key=f"{location}/backup/object",
        Body=b"CONTENT",
        ChecksumAlgorithm="SHA256",
    )

    with pytest.raises(DestinationError, match="other bytes"):
        destination.vouches_for("backup/object", file)


def test_without_checksums_nobody_vouches(
    offsite: Offsite, moto_server: services.S3Server, file: Path
) -> None:
    frugal = Config(
        request_checksum_calculation="when_required", response_checksum_validation="when_required"
    )
    destination = offsite(moto_server, client_config=frugal)
    destination.put("backup/object", file)

    assert not destination.vouches_for("backup/object", file)
    assert read_whole(destination.open("backup/object")) == b"content"


def test_nobody_vouches_for_parts_of_another_size(
    offsite: Offsite, moto_server: services.S3Server, large: Path, location: str
) -> None:
    moto_server.client().upload_file(
        str(large),
        "backups",
        f"{location}/backup/large",
        ExtraArgs={"ChecksumAlgorithm": "SHA256"},
        Config=TransferConfig(multipart_chunksize=12 * 2**20),
    )

    assert not offsite(moto_server).vouches_for("backup/large", large)


def test_a_listing_goes_over_every_page(offsite: Offsite, location: str) -> None:
    with services.s3() as server:  # a new one: it keeps in mind what its folders held
        assert server.folder is not None
        names = [f"backup/volume.{number:05d}" for number in range(1001)]
        (server.folder / location / "backup").mkdir(parents=True)
        for name in names:
            (server.folder / location / name).touch()

        assert [entry.name for entry in offsite(server).entries("backup/")] == names


def test_unfinished_uploads_of_ours_are_swept(
    offsite: Offsite, moto_server: services.S3Server, location: str
) -> None:
    client = moto_server.client()
    for key in (f"{location}/app/1", f"{location}/app/2", f"{location}/other", "app/1"):
        client.create_multipart_upload(Bucket="backups", Key=key)
    others = {f"{location}/other", "app/1"}

    offsite(moto_server).sweep("app/")

    left = client.list_multipart_uploads(Bucket="backups")["Uploads"]
    assert {
        upload["Key"] for upload in left if "app" in upload["Key"] or location in upload["Key"]
    } == others
    for upload in left:
        client.abort_multipart_upload(
            Bucket="backups", Key=upload["Key"], UploadId=upload["UploadId"]
        )


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_fail_for_good_and_stay_secret(
    offsite: Offsite, s3_server: services.S3Server, file: Path, wrong: str
) -> None:
    secret = secrets.token_urlsafe(30)
    destination = offsite(s3_server, **{wrong: secret})

    for call in (
        destination.check,
        lambda: destination.put("a", file),
        lambda: list(destination.entries()),
        lambda: destination.open("a"),
        lambda: destination.delete("a"),
    ):
        with pytest.raises(DestinationError) as caught:
            call()
        assert caught.value.permanent
        assert type(caught.value) is DestinationError
        assert secret not in f"{caught.value}" and s3_server.secret_key not in f"{caught.value}"


def test_a_bucket_that_is_missing_is_no_empty_one(
    offsite: Offsite, s3_server: services.S3Server, file: Path
) -> None:
    destination = offsite(s3_server, bucket_name="no-such-bucket")

    for call in (
        destination.check,
        lambda: destination.put("a", file),
        lambda: destination.size("a"),
        lambda: destination.vouches_for("a", file),
        lambda: destination.delete("a"),
        lambda: list(destination.entries()),
        lambda: destination.sweep(""),
    ):
        with pytest.raises(DestinationError, match="NoSuchBucket") as caught:
            call()
        assert caught.value.permanent
        assert "bucket_name" in str(caught.value.hint)


@pytest.mark.parametrize("bytes_changed", ["gzip", "bucket_name"])
def test_options_that_rule_out_backups_are_told(
    offsite: Offsite, s3_server: services.S3Server, bytes_changed: str
) -> None:
    options = {"gzip": True} if bytes_changed == "gzip" else {"bucket_name": None}

    with pytest.raises(DestinationError) as caught:
        offsite(s3_server, **options).check()

    assert bytes_changed in str(caught.value.hint)


def test_credentials_that_may_only_add_are_enough(
    offsite: Offsite, moto_server: services.S3Server, file: Path, location: str
) -> None:
    client = moto_server.client()
    client.create_bucket(Bucket="append-only")
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:DeleteObject"],
        "Resource": "arn:aws:s3:::append-only/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client.put_bucket_policy(Bucket="append-only", Policy=policy)
    destination = offsite(moto_server, bucket_name="append-only")

    destination.check()
    destination.check()
    destination.put("backup/object", file)

    assert destination.may_delete is False
    assert [entry.name for entry in destination.entries()] == ["backup/object"]
    with pytest.raises(DeletionRefusedError):
        destination.delete("backup/object")
    assert destination.size("backup/object") == 7


def test_a_locked_object_is_kept_and_stays_in_sight(
    offsite: Offsite, moto_server: services.S3Server, file: Path
) -> None:
    client = moto_server.client()
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    client.put_object_lock_configuration(
        Bucket="locked",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    destination = offsite(moto_server, bucket_name="locked")

    destination.check()
    destination.put("backup/object", file)
    with pytest.raises(DeletionRefusedError):
        destination.delete("backup/object")

    assert destination.may_delete is False
    assert read_whole(destination.open("backup/object")) == b"content"


def test_where_versions_are_kept_all_of_them_are_deleted(
    offsite: Offsite, moto_server: services.S3Server, file: Path
) -> None:
    client = moto_server.client()
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    destination = offsite(moto_server, bucket_name="versioned")
    for _turn in range(3):
        destination.put("backup/object", file)
    destination.put("backup/object.1", file)

    destination.delete("backup/object")
    destination.check()

    left = client.list_object_versions(Bucket="versioned")
    assert [version["Key"].rpartition("/")[2] for version in left["Versions"]] == ["object.1"]
    assert "DeleteMarkers" not in left
    assert destination.may_delete


@pytest.mark.parametrize(
    ("status", "code", "permanent"),
    [
        (503, "SlowDown", False),
        (500, "InternalError", False),
        (429, "TooManyRequests", False),
        (403, "AccessDenied", True),
        (403, "RequestTimeTooSkewed", True),
        (400, "ExpiredToken", True),
        (301, "PermanentRedirect", True),
        (507, "XMinioStorageFull", True),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(
    impatient: StorageDestination,
    s3_proxy: Proxy,
    file: Path,
    status: int,
    code: str,
    permanent: bool,
) -> None:
    s3_proxy.plan(Fault(action="answer", request="^PUT", status=status, code=code, times=9))

    with pytest.raises(DestinationError, match=code) as caught:
        impatient.put("backup/object", file)

    assert caught.value.permanent is permanent
    assert str(caught.value.hint)


def test_a_passing_error_is_tried_again_by_the_client_itself(
    offsite: Offsite, s3_server: services.S3Server, s3_proxy: Proxy, file: Path
) -> None:
    destination = offsite(s3_server, endpoint_url=f"http://127.0.0.1:{s3_proxy.port}")
    s3_proxy.plan(Fault(action="answer", request="^PUT"))

    destination.put("backup/object", file)

    assert destination.size("backup/object") == 7


def test_a_refused_deletion_is_told_by_its_kind(
    impatient: StorageDestination, s3_proxy: Proxy, file: Path
) -> None:
    impatient.put("backup/object", file)
    s3_proxy.plan(
        Fault(action="answer", request="^DELETE", status=403, code="AccessDenied", times=9)
    )

    with pytest.raises(DeletionRefusedError):
        impatient.delete("backup/object")
    impatient.check()

    assert impatient.may_delete is False


@pytest.mark.parametrize("action", ["cut", "stall"])
def test_an_upload_that_breaks_off_leaves_no_object(
    impatient: StorageDestination, s3_proxy: Proxy, large: Path, action: Any
) -> None:
    s3_proxy.plan(Fault(action=action, after=20 * 2**20, times=99))

    with pytest.raises(DestinationError) as caught:
        impatient.put("backup/large", large)
    s3_proxy.plan()

    assert not caught.value.permanent
    assert impatient.size("backup/large") is None
    impatient.put("backup/large", large)
    assert impatient.size("backup/large") == large.stat().st_size


@pytest.mark.parametrize("action", ["cut", "stall"])
def test_a_download_that_breaks_off_never_looks_like_an_end(
    impatient: StorageDestination, s3_proxy: Proxy, large: Path, action: Any
) -> None:
    impatient.put("backup/large", large)
    s3_proxy.plan(Fault(action=action, way="down", after=5 * 2**20))

    with pytest.raises(DestinationError) as caught:
        read_whole(impatient.open("backup/large"))

    assert not caught.value.permanent


def test_a_listing_that_fails_never_looks_empty(
    impatient: StorageDestination, s3_proxy: Proxy
) -> None:
    s3_proxy.plan(Fault(action="answer", request="^GET", times=9))

    with pytest.raises(DestinationError, match="list"):
        list(impatient.entries())


@pytest.mark.parametrize(
    "object_",
    [
        "<Size>7</Size>",
        "<Key>backup/object</Key>",
        "<Key>backup/object</Key><Size>-1</Size>",
        "<Key>backup/object</Key><Size>many</Size>",
        f"<Key>backup/object</Key><Size>{2**63}</Size>",
        "<Key>backup/object</Key><Size>7</Size><LastModified>never</LastModified>",
    ],
)
def test_an_object_without_a_name_or_a_size_is_no_listing(
    impatient: StorageDestination, s3_proxy: Proxy, object_: str
) -> None:
    body = f"<ListBucketResult><Name>b</Name><Contents>{object_}</Contents></ListBucketResult>"
    s3_proxy.plan(Fault(action="answer", request="^GET", status=200, body=body, times=9))

    with pytest.raises(DestinationError, match="list"):
        list(impatient.entries())


def test_an_answer_that_is_cut_off_within_its_head_is_none(
    impatient: StorageDestination, s3_proxy: Proxy, file: Path
) -> None:
    impatient.put("backup/object", file)
    for call in (lambda: impatient.size("backup/object"), lambda: [*impatient.entries()]):
        for after in range(5, 160, 5):
            s3_proxy.plan(Fault(action="cut", way="down", after=after))

            with pytest.raises(DestinationError) as caught:
                call()

            assert not caught.value.permanent


@pytest.mark.parametrize("after", [10, 23, 25, 40])
def test_a_connection_that_is_cut_before_the_body_is_sent_is_no_upload(
    impatient: StorageDestination, s3_proxy: Proxy, file: Path, after: int
) -> None:
    s3_proxy.plan(Fault(action="cut", way="down", after=after))  # 25 are the "100 Continue"

    with pytest.raises(DestinationError) as caught:
        impatient.put("backup/object", file)

    assert not caught.value.permanent
    impatient.put("backup/object", file)


@pytest.mark.parametrize("after", [30, 30_000])
def test_a_byte_a_second_counts_as_a_stall(
    impatient: StorageDestination, s3_proxy: Proxy, large: Path, after: int
) -> None:
    impatient.put("backup/large", large)
    s3_proxy.plan(Fault(action="trickle", way="down", after=after))

    with pytest.raises(DestinationError) as caught:
        read_whole(impatient.open("backup/large"))

    assert not caught.value.permanent


def test_a_slow_line_and_a_slow_reader_are_no_stall(
    impatient: StorageDestination, s3_proxy: Proxy, tmp_path: Path
) -> None:
    file = tmp_path / "some"
    file.write_bytes(secrets.token_bytes(60_000))
    impatient.put("backup/some", file)
    s3_proxy.rate = 30_000

    reader = impatient.open("backup/some")
    first = reader.read(20_000)
    time.sleep(7)

    assert first + read_whole(reader) == file.read_bytes()


@pytest.mark.parametrize("body", ["", "<html><body>Log in</body></html>", "<html><br>Log in"])
def test_an_answer_without_a_listing_never_looks_empty(
    impatient: StorageDestination, s3_proxy: Proxy, body: str
) -> None:
    s3_proxy.plan(Fault(action="answer", request="^GET", status=200, body=body, times=9))

    with pytest.raises(DestinationError) as caught:
        list(impatient.entries())

    assert not caught.value.permanent
    assert "endpoint_url" in str(caught.value.hint) or "address" in str(caught.value.hint)


def test_by_tls_too_a_garbled_or_crawling_answer_is_none(
    offsite: Offsite, file: Path, tmp_path: Path
) -> None:
    certificate, key = _certificate(tmp_path)
    large = tmp_path / "large"
    large.write_bytes(secrets.token_bytes(2_000_000))
    with services.s3("--cert", str(certificate), "--key", str(key)) as server:
        with proxy(server.port) as between:
            url = f"https://127.0.0.1:{between.port}"
            # By TLS the client would put checksums behind the bytes, which rclone does not take.
            config = Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                **IMPATIENT,
            )
            destination = offsite(
                server, endpoint_url=url, client_config=config, verify=str(certificate)
            )
            destination.put("backup/large", large)
            assert read_whole(destination.open("backup/large")) == large.read_bytes()

            for action in ("garble", "trickle", "cut"):
                between.plan(Fault(action=action, way="down", after=1_000_000))
                with pytest.raises(DestinationError) as caught:
                    read_whole(destination.open("backup/large"))
                assert not caught.value.permanent, caught.value
            between.plan()
            assert [entry.name for entry in destination.entries()] == ["backup/large"]


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate for loopback and its key, good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_parts_that_an_upload_left_are_swept_by_the_next(
    offsite: Offsite, moto_server: services.S3Server, large: Path, location: str
) -> None:
    with proxy(moto_server.port) as between:
        config = Config(s3={"addressing_style": "path"}, **IMPATIENT)
        url = f"http://127.0.0.1:{between.port}"
        destination = offsite(moto_server, endpoint_url=url, client_config=config)
        between.plan(
            Fault(action="answer", request="^PUT .*partNumber=2", times=9),
            Fault(action="answer", request="^DELETE", times=9),
        )
        with pytest.raises(DestinationError):
            destination.put("backup/large", large)
        between.plan()
        left = _uploads(moto_server, location)

        destination.put("backup/large", large)

    assert left == [f"{location}/backup/large"]
    assert _uploads(moto_server, location) == []


def _uploads(server: services.S3Server, location: str) -> list[str]:
    found = server.client().list_multipart_uploads(Bucket=server.bucket).get("Uploads", [])
    return [upload["Key"] for upload in found if upload["Key"].startswith(location)]


def test_a_service_that_is_not_there_may_come_back(
    offsite: Offsite, s3_server: services.S3Server
) -> None:
    config = Config(**IMPATIENT)
    destination = offsite(s3_server, endpoint_url="http://127.0.0.1:9", client_config=config)

    with pytest.raises(DestinationError) as caught:
        destination.check()

    assert not caught.value.permanent


def test_silence_of_a_minute_counts_as_a_stall(
    offsite: Offsite, s3_server: services.S3Server
) -> None:
    config = offsite(s3_server)._access._client.meta.config  # type: ignore[attr-defined]

    assert (config.connect_timeout, config.read_timeout) == (60, 60)


def test_probes_at_the_same_time_do_not_fail_each_other(
    offsite: Offsite, s3_server: services.S3Server
) -> None:
    def probe(destination: StorageDestination) -> None:
        for _turn in range(10):
            destination.check()

    with ThreadPoolExecutor(2) as threads:
        probes = [threads.submit(probe, offsite(s3_server)) for _number in range(2)]

    assert [probe.exception() for probe in probes] == [None, None]
