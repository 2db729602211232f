"""rsync over ssh, on a server of the tests' own: private, whole or absent, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mipyme_backup.destinations import Entry, RsyncDestination, rsync_command
from mipyme_backup.errors import DeletionRefusedError, DestinationError, ObjectMissingError
from mipyme_backup.testing import read_whole
from tests import sshd
from tests.sshd import SSHServer, running_sshd


@pytest.fixture(scope="module")
def server() -> Iterator[SSHServer]:
    if reason := sshd.missing():
        pytest.skip(reason)
    with running_sshd() as server:
        yield server


@pytest.fixture(scope="module")
def connection(server: SSHServer) -> Iterator[Path]:
    with server.shared_connection(server.identity_file) as control_path:
        yield control_path


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """The destination's folder on the server."""
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def destination(server: SSHServer, location: Path, connection: Path) -> RsyncDestination:
    built = at(server, location)
    built.control_path = str(connection)
    return built


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return spooled(tmp_path / "spooled")


def at(server: SSHServer, path: Path | str, **options: Any) -> RsyncDestination:
    """Return a destination that makes a connection of its own for each call."""
    given: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "path": str(path),
        "identity_file": server.identity_file,
        "known_hosts_file": server.known_hosts_file,
    }
    return RsyncDestination(**(given | options))


def spooled(path: Path, content: bytes = b"content", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def script(server: SSHServer, name: str, text: str) -> Path:
    """Return the key of an account whose every command is answered by this shell script."""
    path = server.folder / name
    path.write_text(text)
    return server.identity(f"/bin/sh {path}")


def test_what_is_made_is_private_and_what_was_there_keeps_its_mode(
    server: SSHServer, connection: Path, tmp_path: Path, location: Path
) -> None:
    location.chmod(0o750)
    for folder in (location, tmp_path / "new" / "below"):
        destination = at(server, folder)
        destination.control_path = str(connection)
        destination.check()
        destination.put("a/b/object", spooled(tmp_path / "open", mode=0o644))

        assert mode_of(folder) == (0o750 if folder == location else 0o700)
        assert [mode_of(folder / name) for name in ("a", "a/b")] == [0o700] * 2
        assert mode_of(folder / "a/b/object") == 0o600
        assert destination.may_delete is True


STRANGE = ["-rf", "a b", "a\nb", "a\\#012b", "x\x1b[0m", "back*", "[ab]", "é", "\udcff", "$(id)"]


def test_strange_names_are_listed_read_and_deleted_as_they_are(
    destination: RsyncDestination, location: Path, file: Path
) -> None:
    names = sorted(f"odd/{name}" for name in STRANGE)
    (location / "odd").mkdir()
    for name in names:
        spooled(location / name, os.fsencode(name))

    assert [entry.name for entry in destination.entries()] == names
    assert [entry.name for entry in destination.entries("odd/-")] == ["odd/-rf"]
    for name in names:
        assert read_whole(destination.open(name)) == os.fsencode(name)
    assert destination.size("odd/a\nb") == 7

    for gone in ("odd/back*", "odd/[ab]", "odd/a\nb", "odd/-rf"):
        (location / "odd" / "backup").touch()
        destination.delete(gone)
        names.remove(gone)
        assert [entry.name for entry in destination.entries()] == sorted([*names, "odd/backup"])


def test_names_that_shells_and_rsync_might_take_for_more_are_only_names(
    destination: RsyncDestination, location: Path, file: Path
) -> None:
    names = ["#comment", ";comment", "-e sh", "a;touch x", "$(touch x)", "+ a", "host:a", "a->b"]
    for name in names:
        destination.put(name, file)

    assert tree(location) == sorted(names)
    assert destination.vouches_for("#comment", file)
    for name in names:
        assert destination.size(name) == 7
        destination.delete(name)
    assert tree(location) == []


def test_no_name_of_an_object_reaches_the_command_line_of_the_server(
    server: SSHServer, location: Path, file: Path
) -> None:
    record = server.folder / "commands"
    key = script(
        server,
        "recording",
        f'echo "$SSH_ORIGINAL_COMMAND" >> {record}\nexec $SSH_ORIGINAL_COMMAND\n',
    )
    destination = at(server, location, identity_file=key)

    destination.put("folder/thing", file)
    read_whole(destination.open("folder/thing"))
    destination.delete("folder/thing")

    commands = record.read_text()
    assert commands.count("rsync --server") == commands.count("\n") == 3
    assert "thing" not in commands


def test_links_and_pipes_are_no_objects(
    destination: RsyncDestination, location: Path, file: Path, tmp_path: Path
) -> None:
    victim = spooled(tmp_path / "victim", b"precious")
    (location / "link").symlink_to(victim)
    (location / "folder").symlink_to(tmp_path)
    os.mkfifo(location / "pipe")

    assert list(destination.entries()) == []
    for name in ("link", "pipe"):
        assert destination.size(name) is None
        with pytest.raises(ObjectMissingError):
            destination.open(name)
    destination.put("link", file)
    destination.put("folder/object", file)
    destination.delete("pipe")

    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "object").exists()
    assert tree(location) == ["folder", "folder/object", "link"]


def test_a_folder_in_the_place_of_an_object_is_left_alone(
    destination: RsyncDestination, location: Path, file: Path
) -> None:
    (location / "odd" / "inside").mkdir(parents=True)

    with pytest.raises(DestinationError, match="folder"):
        destination.delete("odd")
    with pytest.raises(DestinationError):
        destination.put("odd", file)

    assert tree(location) == ["odd", "odd/inside"]


def test_emptied_folders_go_but_not_the_destination(
    destination: RsyncDestination, location: Path, file: Path
) -> None:
    for name in ("monthly/one/object", "monthly/two/object"):
        destination.put(name, file)

    destination.delete("monthly/one/object")
    assert tree(location) == ["monthly", "monthly/two", "monthly/two/object"]
    destination.delete("monthly/two/object")
    assert tree(location) == []


def test_delete_removes_nothing_but_the_object_and_emptied_folders(
    destination: RsyncDestination, location: Path, tmp_path: Path, file: Path
) -> None:
    names = ["a/b/c", "a/b/cc", "a/c", "b/c", "c", "x*/o", "xx/o", "[ab]/o", "a\\*/o", "a\\\\*/o"]
    for name in names:
        destination.put(name, file)
    (tmp_path / "disk").mkdir()
    spooled(tmp_path / "disk" / "c")
    (location / "linked").symlink_to(tmp_path / "disk")
    (location / "empty").mkdir()

    for gone in ("a/b/c", "x*/o", "[ab]/o", "a\\*/o", "linked/c", "nothing/at/all", "c/c"):
        destination.delete(gone)

    left = ["a/b/cc", "a/c", "b/c", "c", "xx/o", "a\\\\*/o"]
    assert [entry.name for entry in destination.entries()] == sorted(left)
    assert (location / "linked" / "c").read_bytes() == b"content"
    assert sorted(path.name for path in location.iterdir()) == sorted(
        ["a", "b", "c", "xx", "a\\\\*", "linked", "empty"]
    )


def test_what_is_hidden_at_the_root_is_neither_listed_nor_touched(
    destination: RsyncDestination, location: Path
) -> None:
    (location / ".ssh").mkdir()
    spooled(location / ".ssh" / "authorized_keys")
    spooled(location / ".profile")
    destination.check()
    destination.sweep("")

    assert list(destination.entries()) == []
    assert tree(location) == [".profile", ".ssh", ".ssh/authorized_keys"]
    with pytest.raises(DestinationError, match="no name"):
        destination.delete(".ssh/authorized_keys")


def test_unfinished_files_are_hidden_and_swept_by_the_name_of_their_object(
    destination: RsyncDestination, location: Path, file: Path
) -> None:
    destination.put("app/object", file)
    destination.put("app/.hidden", file)
    for name in ("app/.object.a1B2c3", "app/.other.a1B2c3", "app2/.object.a1B2c3"):
        (location / name).parent.mkdir(exist_ok=True)
        spooled(location / name)

    assert [e.name for e in destination.entries()] == ["app/.hidden", "app/object"]
    with pytest.raises(DestinationError, match="unfinished"):
        destination.put("app/.object.a1B2c3", file)
    destination.sweep("app/ob")

    assert tree(location) == [
        "app",
        "app/.hidden",
        "app/.other.a1B2c3",
        "app/object",
        "app2",
        "app2/.object.a1B2c3",
    ]


@pytest.mark.parametrize("victim", ["connection", "everything"])
def test_a_put_that_is_cut_leaves_the_old_object_and_nothing_after_a_sweep(
    victim: str, server: SSHServer, location: Path, file: Path, tmp_path: Path
) -> None:
    destination = at(server, location)
    destination.put("backup/object", file)
    destination.bandwidth = 300_000
    large = spooled(tmp_path / "large", os.urandom(3_000_000))
    raised: list[BaseException] = []

    def put() -> None:
        try:
            destination.put("backup/object", large)
        except BaseException as error:
            raised.append(error)

    before = server.session_processes()
    thread = threading.Thread(target=put)
    thread.start()
    wait_for(lambda: any(p.stat().st_size for p in location.glob("backup/.object.*")))
    for pid, program in reversed(server.session_processes().items()):
        # The last one is the one that writes: it goes before it can clean up.
        if pid not in before and (victim == "everything" or program.startswith("sshd")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    thread.join(60)

    (error,) = raised
    assert isinstance(error, DestinationError) and not error.permanent
    assert list(destination.entries()) == [Entry(name="backup/object", size=7)]
    assert read_whole(destination.open("backup/object")) == b"content"
    if victim == "everything":
        assert list(location.glob("backup/.object.*"))
    destination.sweep("backup/")
    wait_for(lambda: tree(location) == ["backup", "backup/object"])


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_a_full_disk_keeps_what_was_there_and_leaves_nothing_half(
    server: SSHServer, connection: Path, small_disk: Path, tmp_path: Path, file: Path
) -> None:
    destination = at(server, small_disk)
    destination.control_path = str(connection)
    destination.put("backup/object", file)

    with pytest.raises(DestinationError, match="No space left") as caught:
        destination.put("backup/object", spooled(tmp_path / "large", bytes(2_000_000)))

    assert "space" in str(caught.value.hint)
    assert caught.value.permanent
    assert read_whole(destination.open("backup/object")) == b"content"
    assert tree(small_disk) == ["backup", "backup/object"]


def test_a_read_only_disk_is_told_and_is_no_refusal_to_delete(
    server: SSHServer, connection: Path, small_disk: Path, file: Path
) -> None:
    destination = at(server, small_disk)
    destination.control_path = str(connection)
    destination.put("object", file)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    for call in (
        destination.check,
        lambda: destination.put("other", file),
        lambda: destination.delete("object"),
    ):
        with pytest.raises(DestinationError, match="Read-only") as caught:
            call()
        assert caught.value.permanent
        assert not isinstance(caught.value, DeletionRefusedError)


def test_a_folder_that_is_gone_never_looks_empty(
    destination: RsyncDestination, location: Path
) -> None:
    location.rmdir()

    for call in (
        lambda: list(destination.entries()),
        lambda: list(destination.entries("backup/")),
        lambda: destination.open("object"),
        lambda: destination.size("object"),
    ):
        with pytest.raises(DestinationError, match="does not exist") as caught:
            call()
        assert not isinstance(caught.value, ObjectMissingError)


def test_it_vouches_by_a_hash_of_the_server(
    destination: RsyncDestination, location: Path, file: Path
) -> None:
    destination.put("backup/object", file)
    assert destination.vouches_for("backup/object", file)

    status = (location / "backup" / "object").stat()
    spooled(location / "backup" / "object", b"Content")
    os.utime(location / "backup" / "object", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DestinationError, match="other bytes"):
        destination.vouches_for("backup/object", file)
    with pytest.raises(ObjectMissingError):
        destination.vouches_for("backup/missing", file)
    assert tree(location) == ["backup", "backup/object"]


def test_it_vouches_for_nothing_where_the_server_has_no_such_hash(
    server: SSHServer, location: Path, file: Path
) -> None:
    key = script(server, "hashless", "echo 'Unknown checksum name: sha1' >&2\nexit 4\n")

    assert not at(server, location, identity_file=key).vouches_for("object", file)


def test_an_older_rsync_that_cannot_sync_is_asked_again_without(
    server: SSHServer, location: Path, file: Path
) -> None:
    text = """case "$SSH_ORIGINAL_COMMAND" in *--fsync*)
    echo "rsync: on remote machine: --fsync: unknown option" >&2; exit 1 ;; esac
    exec $SSH_ORIGINAL_COMMAND"""
    destination = at(server, location, identity_file=script(server, "older", text))

    destination.put("object", file)

    assert destination.size("object") == 7


@pytest.fixture
def rrsync() -> str:
    program = sshd.program("rrsync")
    if program is None:
        pytest.skip("this machine's package rsync brings no rrsync")
    return program


def test_an_account_that_may_only_add(
    server: SSHServer, rrsync: str, location: Path, file: Path, tmp_path: Path
) -> None:
    key = server.identity(f"{rrsync} -no-lock -no-del -no-overwrite {location}")
    destination = at(server, "/")
    spooled(location / "backup.a1B2c3")
    spooled(location / ".backup.a1B2c3")
    with server.shared_connection(key) as control_path:
        destination.control_path = str(control_path)

        destination.check()
        destination.check()
        assert destination.may_delete is False
        destination.put("backup/object", file)
        destination.put("backup/object", file)
        for other in (b"other", b"content, and more"):
            with pytest.raises(DestinationError, match="kept what it had"):
                destination.put("backup/object", spooled(tmp_path / "other", other))
        with pytest.raises(DeletionRefusedError):
            destination.delete("backup/object")
        destination.sweep("")

        assert not destination.vouches_for("backup/object", file)
        assert [entry.name for entry in destination.entries()] == [
            "backup.a1B2c3",
            "backup/object",
        ]
        assert read_whole(destination.open("backup/object")) == b"content"


def test_below_rrsync_there_is_no_way_out(
    server: SSHServer, rrsync: str, location: Path, file: Path, tmp_path: Path
) -> None:
    destination = at(server, tmp_path, identity_file=server.identity(f"{rrsync} {location}"))

    destination.check()
    destination.put("object", file)

    assert (location / tmp_path.relative_to("/") / "object").read_bytes() == b"content"


def test_a_host_key_that_is_not_known_is_refused(
    server: SSHServer, location: Path, tmp_path: Path
) -> None:
    (tmp_path / "known_hosts").touch()

    with pytest.raises(DestinationError, match="host key is not known") as caught:
        at(server, location, known_hosts_file=tmp_path / "known_hosts").check()

    assert f"ssh-keyscan -p {server.port} 127.0.0.1" in str(caught.value.hint)
    assert caught.value.permanent
    assert (tmp_path / "known_hosts").read_text() == ""


def test_a_host_key_that_has_changed_is_refused(
    server: SSHServer, location: Path, tmp_path: Path, file: Path
) -> None:
    sshd.make_key(tmp_path / "other")
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(sshd.known_hosts_line(server.port, tmp_path / "other.pub"))

    with pytest.raises(DestinationError, match="another host key") as caught:
        at(server, location, known_hosts_file=known_hosts).put("object", file)

    assert caught.value.permanent
    assert tree(location) == []


def test_a_key_that_the_server_does_not_know_is_told(
    server: SSHServer, location: Path, tmp_path: Path
) -> None:
    sshd.make_key(tmp_path / "key")

    with pytest.raises(DestinationError, match="does not let us in") as caught:
        list(at(server, location, identity_file=tmp_path / "key").entries())

    assert caught.value.permanent


def test_a_missing_key_file_is_told(server: SSHServer, location: Path, tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="identity file is missing"):
        at(server, location, identity_file=tmp_path / "key").check()


def test_a_server_that_is_down_may_come_back(server: SSHServer, location: Path) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else can answer there
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(DestinationError, match="Connection refused") as caught:
            at(server, location, port=bound.getsockname()[1]).check()

    assert not caught.value.permanent


def test_a_server_that_says_nothing_is_given_up(
    server: SSHServer, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = tuple(o for o in rsync_command.SSH_OPTIONS if "ConnectTimeout" not in o)
    monkeypatch.setattr(rsync_command, "SSH_OPTIONS", (*hasty, "ConnectTimeout=1"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(DestinationError, match="timed out") as caught:
            at(server, location, port=silent.getsockname()[1]).check()

    assert not caught.value.permanent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exec /nonexistent/rsync", "not installed on the server"),
        ("echo Welcome to this server; exec $SSH_ORIGINAL_COMMAND", "not rsync"),
        ("echo 'Another instance of rrsync is already accessing' >&2; exit 1", "one connection"),
    ],
)
def test_a_login_that_does_something_else_is_told(
    text: str, message: str, server: SSHServer, location: Path
) -> None:
    key = script(server, "other", text)

    with pytest.raises(DestinationError, match=message):
        at(server, location, identity_file=key).check()


def test_missing_programs_are_told_with_their_packages(
    server: SSHServer, location: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rsync = sshd.program("rsync")
    assert rsync is not None
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DestinationError) as no_rsync:
        at(server, location).check()
    (tmp_path / "bin" / "rsync").symlink_to(rsync)
    with pytest.raises(DestinationError) as no_ssh:
        at(server, location).check()

    assert "package rsync" in str(no_rsync.value.hint)
    assert "openssh-client" in str(no_ssh.value.hint)


def test_a_fetched_object_leaves_nothing_behind(
    destination: RsyncDestination, tmp_path: Path, file: Path
) -> None:
    destination.work_folder = tmp_path / "work"
    destination.work_folder.mkdir()
    destination.put("backup/object", file)

    reader = destination.open("backup/object")
    assert list(destination.work_folder.iterdir()) == []
    assert read_whole(reader) == b"content"

    destination.work_folder.rmdir()
    with pytest.raises(DestinationError, match="temporary files"):
        destination.open("backup/object")
