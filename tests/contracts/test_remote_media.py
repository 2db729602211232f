"""Media on S3, on SFTP and on any other storage keeps the contracts of sources and targets."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

from mipyme_backup.errors import DamagedError, PreflightError, SourceError
from mipyme_backup.sources.base import Source, View
from mipyme_backup.sources.media.remote import objects_in
from mipyme_backup.sources.media.remote.objects import OWN, Found, Objects, Opened
from mipyme_backup.sources.media.remote.sftp import SFTPObjects
from mipyme_backup.testing import Restoring, SourceContract, TargetContract
from tests import services
from tests.sshd import SSHServer, missing, running_sshd
from tests.unit.sources.media_trees import Saved, collect, media_source, restored, target_of, texts

S3 = "storages.backends.s3.S3Storage"
SFTP = "storages.backends.sftpstorage.SFTPStorage"
MEMORY = "django.core.files.storage.InMemoryStorage"
NEW = {
    "same": b"same",
    "new\nline": b"1",
    "photos/one": b"new" * 900_000,
    "photos/twin": b"new",
    "twin": b"new",
}
OLD = {"same": b"same", "photos/one": b"old", "goes/a": b"gone", "photos/twin": b"older", "a": b""}


def use(settings: Any, backend: str, options: Mapping[str, Any]) -> None:
    """Let STORAGES call a storage ``media``."""
    entry = {"BACKEND": backend, "OPTIONS": dict(options)}
    settings.STORAGES = {**settings.STORAGES, "media": entry}


def live() -> dict[str, bytes]:
    objects = objects_in("media")
    return {
        found.name: b"".join(objects.chunks(found.name))
        for found in objects.media()
        if found.reason is None
    }


def ours() -> list[str]:
    storage = storages["media"]
    return [name for name in storage.listdir("")[0] if name.startswith(OWN)]


def become(files: Mapping[str, bytes]) -> None:
    """Let the storage hold these files, and no others."""
    now = live()
    for name in now:
        if now[name] != files.get(name):
            storages["media"].delete(name)
    for name, content in files.items():
        if content != now.get(name):
            assert storages["media"].save(name, ContentFile(content)) == name


class _Source(SourceContract):
    def what_stays(self, name: str, data: bytes, facts: Mapping[str, Any]) -> Any:
        return name, {key: value for key, value in facts.items() if key != "packs"}

    @pytest.fixture
    def source(self, storage: None) -> Source:
        become(OLD)
        return media_source(storage="media", pack_size=5000)

    @pytest.fixture
    def view(self) -> View:
        return View()

    def test_what_did_not_change_is_not_read_again(
        self, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        media = media_source(storage="media")
        first = aged(collect(media))
        read: list[Found] = []
        opened = type(objects_in("media")).open

        def noting(objects: Objects, found: Found) -> Opened:
            read.append(found)
            return opened(objects, found)

        monkeypatch.setattr(type(objects_in("media")), "open", noting)

        second = collect(media, first)

        assert read == []
        assert second.new_packs == []
        assert lines(second) == lines(first)


class _Target(TargetContract):
    @pytest.fixture
    def restoring(self, storage: None) -> Restoring:
        become(NEW)
        source = media_source(storage="media")
        saved = collect(source)
        become(OLD)
        return Restoring(
            make=lambda: target_of(source, "ab12"),
            again=lambda state: source.restored_target(state, elsewhere=False),
            live=live,
            artifacts=saved.artifacts(),
            facts=saved.facts,
        )

    def test_what_is_restored_is_what_was_saved(self, restoring: Restoring) -> None:
        target = self._loaded(restoring)

        target.swap()

        assert live() == NEW
        target.undo()
        assert live() == OLD
        target.remove_replaced()
        assert ours() == []


@pytest.fixture
def s3_storage(settings: Any, s3_server: services.S3Server) -> None:
    use(settings, S3, s3_server.options(location=f"of/{secrets.token_hex(6)}"))


@pytest.fixture
def sftp_storage(settings: Any, sftp_server: services.SFTPServer, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "known_hosts").write_text(sftp_server.known_host)
    root = secrets.token_hex(6)
    use(settings, SFTP, sftp_server.options(tmp_path / "known_hosts", root_path=root))
    storage: Any = storages["media"]
    storage.sftp.mkdir(root)  # rclone does not see at once what comes another way
    yield
    storage.close()


@pytest.fixture(scope="module")
def sshd() -> Iterator[SSHServer]:
    if reason := missing():
        pytest.skip(reason)
    with running_sshd() as server:
        yield server


@pytest.fixture
def openssh_storage(settings: Any, sshd: SSHServer, tmp_path: Path) -> Iterator[Path]:
    """The folder of a storage on an SFTP server with folders, links and modes of its own."""
    params = {
        "port": sshd.port,
        "username": sshd.user,
        "key_filename": str(sshd.identity_file),
        "allow_agent": False,
        "look_for_keys": False,
    }
    options = {"host": sshd.host, "root_path": str(tmp_path / "media"), "params": params}
    use(settings, SFTP, options | {"known_host_file": str(sshd.known_hosts_file)})
    (tmp_path / "media").mkdir()
    yield tmp_path / "media"
    storages["media"].close()  # type: ignore[attr-defined]


@pytest.fixture
def memory_storage(settings: Any) -> None:
    use(settings, MEMORY, {})


class TestSourceOnS3(_Source):
    @pytest.fixture
    def storage(self, s3_storage: None) -> None:
        return


class TestTargetOnS3(_Target):
    @pytest.fixture
    def storage(self, s3_storage: None) -> None:
        return


class TestSourceOnSFTP(_Source):
    @pytest.fixture
    def storage(self, sftp_storage: None) -> None:
        return


class TestTargetOnSFTP(_Target):
    @pytest.fixture
    def storage(self, sftp_storage: None) -> None:
        return


class TestTargetOnOpenSSH(_Target):
    @pytest.fixture
    def storage(self, openssh_storage: Path) -> None:
        return


class TestSourceOnAnyOther(_Source):
    @pytest.fixture
    def storage(self, memory_storage: None) -> None:
        return


class TestTargetOnAnyOther(_Target):
    @pytest.fixture
    def storage(self, memory_storage: None) -> None:
        return


# S3


@pytest.fixture
def moto_storage(settings: Any, moto_server: services.S3Server) -> str:
    location = secrets.token_hex(6)
    use(settings, S3, moto_server.options(location=location))
    return location


@pytest.fixture
def requests(moto_storage: str) -> Counter[str]:
    """Counts the requests that the storage's client sends, by their operation."""
    counted: Counter[str] = Counter()

    def count(event_name: str, **_kwargs: Any) -> None:
        counted[event_name.rpartition(".")[2]] += 1

    client = storages["media"].connection.meta.client  # type: ignore[attr-defined]
    client.meta.events.register("before-send.s3", count)
    return counted


def aged(saved: Saved) -> Saved:
    """Return a backup as it was made some time after its files were written."""
    index = b"".join(json.dumps(line).encode() + b"\n" for line in lines(saved))
    return Saved(index=index, packs=saved.packs)


def lines(saved: Saved) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in saved.index.splitlines()]
    return [{key: line[key] for key in line if key != "recheck"} for line in found]


def test_an_incremental_backup_sends_no_request_for_an_object_that_did_not_change(
    requests: Counter[str],
) -> None:
    for number in range(30):
        storages["media"].save(f"{number}/file", ContentFile(b"%d" % number))
    first = collect(media_source(storage="media"))
    storages["media"].save("fresh", ContentFile(b"fresh"))
    requests.clear()

    second = collect(media_source(storage="media"), aged(first))

    assert requests == {"ListObjectsV2": 1, "GetObject": 1}
    assert second.facts["new_files"] == 1
    assert second.facts["files"] == 31


def test_a_first_backup_reads_ahead_and_gets_each_object_once(
    requests: Counter[str], tmp_path: Path
) -> None:
    files = {f"{number % 7}/{number:03}": b"%d" % number * number for number in range(100)}
    files["large"] = b"0123456789" * 300_000
    become(files)
    requests.clear()
    threads = threading.active_count()

    saved = collect(media_source(storage="media"))

    assert requests == {"ListObjectsV2": 1, "GetObject": 101}
    assert texts(restored(saved, tmp_path / "out")) == files
    assert threading.active_count() == threads


def test_a_file_that_is_gone_when_it_is_read_ahead_is_a_warning(
    moto_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become({f"{number:02}": b"%d" % number for number in range(20)})
    media = type(objects_in("media")).media

    def listed(objects: Objects) -> list[Found]:
        found = [*media(objects)]
        storages["media"].delete("15")
        return found

    monkeypatch.setattr(type(objects_in("media")), "media", listed)

    saved = collect(media_source(storage="media"))

    assert saved.warnings == ["1 media files vanished while they were read: 15"]
    assert saved.facts["files"] == 19


def test_odd_keys_come_back_or_are_named(
    moto_storage: str, moto_server: services.S3Server, tmp_path: Path
) -> None:
    client = moto_server.client()
    good = {"-o", "é", "e\u0301", "back\\slash", "a b+c%20&<>", "x" * 1011}
    bad = {"a//b", "dir/with content/", "double"}
    assert len(f"{moto_storage}/{'x' * 1011}") == 1024
    for name in good | bad | {"double/below"}:
        client.put_object(Bucket="backups", Key=f"{moto_storage}/{name}", Body=name.encode())
    for marker in ("", "folder/", "double/"):
        client.put_object(Bucket="backups", Key=f"{moto_storage}/{marker}")
    before = keys(moto_server, moto_storage)
    source = media_source(storage="media")

    saved = collect(source)

    short = {name: name.encode() for name in (good | {"double/below"}) if len(name) < 256}
    (warning,) = saved.warnings
    assert warning.startswith("3 objects have names that no file can have")
    index = {json.loads(line)["path"] for line in saved.index.splitlines()}
    assert index == good | {"double/below"}
    for name in good:
        client.delete_object(Bucket="backups", Key=f"{moto_storage}/{name}")
    target = target_of(source, "id")
    target.plan()
    target.load(saved.artifacts())
    target.swap()
    target.remove_replaced()
    assert keys(moto_server, moto_storage) == before
    storages["media"].bucket.Object(f"{moto_storage}/{'x' * 1011}").delete()  # type: ignore[attr-defined]
    assert texts(restored(collect(source), tmp_path / "out")) == short


def keys(server: services.S3Server, location: str) -> dict[str, int]:
    pages = server.client().get_paginator("list_objects_v2")
    return {
        found["Key"]: found["Size"]
        for page in pages.paginate(Bucket="backups", Prefix=f"{location}/")
        for found in page["Contents"]
    }


def test_what_belongs_to_an_object_is_kept_and_ours_are_private(
    settings: Any, moto_server: services.S3Server
) -> None:
    options = {"location": "public", "default_acl": "public-read"}
    options["object_parameters"] = {"CacheControl": "max-age=60"}  # type: ignore[assignment]
    use(settings, S3, moto_server.options(**options))
    client = moto_server.client()
    for name in ("one.jpg", "two.css"):
        storages["media"].save(name, ContentFile(b"new"))
    source = media_source(storage="media")
    saved = collect(source)
    storages["media"].delete("one.jpg")
    storages["media"].save("two.css", ContentFile(b"old and longer"))

    target = target_of(source, "id")
    target.load(saved.artifacts())

    side = "public/.mipyme_backup_restoring_id/files/0/1"
    assert not is_public(client, side)
    target.swap()
    for name, kind in (("one.jpg", "image/jpeg"), ("two.css", "text/css")):
        head = client.head_object(Bucket="backups", Key=f"public/{name}")
        assert (head["ContentType"], head["CacheControl"]) == (kind, "max-age=60")
        assert is_public(client, f"public/{name}")
    assert not is_public(client, "public/.mipyme_backup_before_id/files/0/2")
    target.undo()
    assert is_public(client, "public/two.css")
    target.remove_replaced()


def test_a_large_object_goes_in_parts(
    moto_storage: str, monkeypatch: pytest.MonkeyPatch, requests: Counter[str]
) -> None:
    module = "mipyme_backup.sources.media.remote.s3"
    monkeypatch.setattr(f"{module}.SMALL_PUT", 1000)
    monkeypatch.setattr(f"{module}.LARGEST_COPY", 1000)
    monkeypatch.setattr(f"{module}.PART_SIZE", 5 * 2**20)
    content = secrets.token_bytes(9 * 2**20)
    for name in ("large.jpg", "twin.png"):
        storages["media"].save(name, ContentFile(content))
    source = media_source(storage="media")
    saved = collect(source)
    become({})
    requests.clear()

    target = target_of(source, "id")
    target.load(saved.artifacts())
    target.swap()

    assert live() == {"large.jpg": content, "twin.png": content}
    client = storages["media"].connection.meta.client  # type: ignore[attr-defined]
    head = client.head_object(Bucket="backups", Key=f"{moto_storage}/twin.png")
    assert head["ContentType"] == "image/png"
    assert requests["UploadPart"] == 2
    assert requests["UploadPartCopy"] > 2
    with_other_hash = {
        pack: data.replace(content, secrets.token_bytes(len(content)))
        for pack, data in saved.packs.items()
    }
    become({})
    with pytest.raises(DamagedError):
        target_of(source, "other").load(Saved(saved.index, with_other_hash).artifacts())
    assert not [*objects_in("media").below(f"{OWN}restoring_other/")]


def is_public(client: Any, key: str) -> bool:
    grants = client.get_object_acl(Bucket="backups", Key=key)["Grants"]
    return any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)


def test_an_object_that_is_replaced_while_it_is_read_is_read_anew(
    moto_storage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mipyme_backup.sources.media.remote.tree.RemoteTree.small_bytes", 10)
    storages["media"].save("large", ContentFile(b"old" * 100_000))
    replaced: list[int] = []
    source = media_source(storage="media")

    def read(reader: Any) -> bytes:
        # The header is out, and the hash of the old content in it.
        data: bytes = reader.read(100)
        if not replaced:
            replaced.append(1)
            storages["media"].save("large", ContentFile(b"new" * 100_000))
        while piece := reader.read(100_000):
            data += piece
        return data

    saved = collect(source, read=read)

    assert texts(restored(saved, tmp_path / "out")) == {"large": b"new" * 100_000}


def test_a_compressed_object_comes_back_compressed(
    settings: Any, moto_server: services.S3Server
) -> None:
    use(settings, S3, moto_server.options(location="gzip", gzip=True))
    storages["media"].save("style.css", ContentFile(b"body {}" * 1000))
    source = media_source(storage="media")
    saved = collect(source)
    storages["media"].delete("style.css")

    target = target_of(source, "id")
    target.load(saved.artifacts())
    target.swap()
    target.remove_replaced()

    answer = moto_server.client().get_object(Bucket="backups", Key="gzip/style.css")
    assert answer["ContentEncoding"] == "gzip"
    assert gzip.decompress(answer["Body"].read()) == b"body {}" * 1000


def test_a_bucket_that_is_missing_or_refuses_is_told_without_secrets(
    settings: Any, moto_server: services.S3Server
) -> None:
    use(settings, S3, moto_server.options(bucket_name="absent"))

    with pytest.raises(PreflightError, match="Cannot list the storage media") as caught:
        list(media_source(storage="media").preflight())

    assert "Make the bucket" in str(caught.value.hint)
    assert moto_server.secret_key not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(SourceError):
        collect(media_source(storage="media"))


def test_a_service_that_is_away_is_no_empty_media(settings: Any) -> None:
    server = services.S3Server(
        url="http://127.0.0.1:9", access_key="k", secret_key="canary-secret", bucket="b"
    )
    use(settings, S3, server.options())

    with pytest.raises(SourceError) as caught:
        collect(media_source(storage="media"))

    assert "canary" not in str(caught.value)


# SFTP


def test_an_old_file_on_sftp_is_not_read_again(sftp_storage: None, tmp_path: Path) -> None:
    become({"folder/new\nline": b"1"})
    storage: Any = storages["media"]
    storage.sftp.mkdir(f"{storage.root_path}/hollow")
    storage.sftp.utime(f"{storage.root_path}/folder/new\nline", (1_500_000_000, 1_500_000_000))

    saved = collect(media_source(storage="media"))

    assert texts(restored(saved, tmp_path / "out")) == {"folder/new\nline": b"1"}
    again = collect(media_source(storage="media"), saved)
    assert again.index == saved.index
    assert again.facts["new_files"] == 0


def test_a_root_that_is_gone_is_no_empty_media_and_is_made_by_a_restore(
    sftp_storage: None,
) -> None:
    become(NEW)
    source = media_source(storage="media")
    saved = collect(source)
    storage: Any = storages["media"]
    storage.sftp.rename(storage.root_path, f"{storage.root_path}_lost")

    with pytest.raises(SourceError):
        collect(source)

    target = target_of(source, "id")
    target.plan()
    assert not target.has_live()
    target.load(saved.artifacts())
    target.swap()
    assert live() == NEW


def test_a_file_comes_where_a_folder_was_and_back(
    sftp_storage: None,
) -> None:
    become({"a": b"file", "b/c/d": b"below"})
    source = media_source(storage="media")
    saved = collect(source)
    other = {"a/x/y": b"below a", "b": b"a file now"}
    for name in ("a", "b/c/d"):
        storages["media"].delete(name)
    storage: Any = storages["media"]
    storage.sftp.rmdir(f"{storage.root_path}/b/c")
    storage.sftp.rmdir(f"{storage.root_path}/b")
    become(other)

    target = target_of(source, "id")
    target.load(saved.artifacts())
    target.swap()

    assert live() == {"a": b"file", "b/c/d": b"below"}
    target.undo()
    assert live() == other


def test_links_and_pipes_on_sftp_are_named_and_left_alone(openssh_storage: Path) -> None:
    become({"file": b"new"})
    (openssh_storage / "link").symlink_to("file")
    (openssh_storage / "outward").symlink_to("/etc")
    os.mkfifo(openssh_storage / "pipe")
    source = media_source(storage="media")
    saved = collect(source)
    become({"file": b"old and longer"})

    assert saved.facts["files"] == 1
    assert saved.warnings == [
        "2 links in the storage are not followed, and left out: link, outward",
        "1 media entries are no files (pipes, sockets, devices): pipe",
    ]
    target = target_of(source, "id")
    target.plan()
    target.load(saved.artifacts())
    assert openssh_storage.joinpath(".mipyme_backup_restoring_id").stat().st_mode & 0o77 == 0
    target.swap()
    target.remove_replaced()
    assert sorted(os.listdir(openssh_storage)) == ["file", "link", "outward", "pipe"]
    assert (openssh_storage / "file").read_bytes() == b"new"


def test_a_file_on_sftp_that_may_not_be_read_is_named(
    openssh_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become({"file": b"1", "other": b"2"})
    chunks = SFTPObjects.chunks

    def refused(objects: SFTPObjects, name: str) -> Iterator[bytes]:
        if name == "file":  # root, who runs the tests, may read anything
            raise PermissionError(13, "Permission denied")
        return chunks(objects, name)

    monkeypatch.setattr(SFTPObjects, "chunks", refused)

    saved = collect(media_source(storage="media"))

    assert saved.warnings == ["1 media files could not be read: file"]
