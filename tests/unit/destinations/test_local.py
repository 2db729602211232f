"""The local folder: private, whole or absent, and never led elsewhere by a link."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mipyme_backup.destinations import Entry, LocalDestination
from mipyme_backup.destinations.temporary import ours
from mipyme_backup.errors import DestinationError, ObjectMissingError
from mipyme_backup.testing import read_whole


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def local(location: Path) -> LocalDestination:
    destination = LocalDestination(location=location)
    destination.check()
    return destination


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return spooled(tmp_path / "spooled")


def spooled(path: Path, content: bytes = b"content", mode: int = 0o600) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system than the temporary one: nothing there can be linked."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no second file system to write to")
    folder = Path("/dev/shm") / f"mipyme_backup_test_{os.getpid()}"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "copied"])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_everything_is_private_whatever_the_umask(
    linked: bool, mode: int, tmp_path: Path, elsewhere: Path
) -> None:
    location = tmp_path / "deep" / "backups"
    local = LocalDestination(location=location)
    before = os.umask(0)
    try:
        local.check()
        local.put(
            "backup/sub/object", spooled((tmp_path if linked else elsewhere) / "s", mode=mode)
        )
    finally:
        os.umask(before)

    folders = [location.parent, location, location / "backup", location / "backup" / "sub"]
    assert [mode_of(folder) for folder in folders] == [0o700] * 4
    assert mode_of(location / "backup" / "sub" / "object") == 0o600


WATCHED = """
import os, sys
from pathlib import Path
from mipyme_backup.destinations import LocalDestination
seen = set()
def audit(event, arguments):
    if event == "open" and str(arguments[0]).startswith(sys.argv[1]) and arguments[2] & os.O_CREAT:
        seen.add("exclusive" if arguments[2] & os.O_EXCL else "open to tricks")
    if event in ("os.mkdir", "os.chmod"):
        seen.add((event, arguments[1]))
sys.addaudithook(audit)
os.umask(0)
local = LocalDestination(location=sys.argv[1])
local.check()
local.put("backup/object", Path(sys.argv[2]))
print(sorted(map(str, seen)))
"""


def test_files_are_made_private_and_not_made_so_afterwards(location: Path, elsewhere: Path) -> None:
    file = spooled(elsewhere / "spooled", mode=0o644)

    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(location), str(file)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == str(sorted([str(("os.mkdir", 0o700)), "exclusive"]))


def test_a_private_file_of_the_same_disk_is_adopted_without_a_copy(
    local: LocalDestination, location: Path, file: Path
) -> None:
    local.put("backup/object", file)

    assert (location / "backup" / "object").samefile(file)


def test_a_file_that_others_may_read_is_copied(
    local: LocalDestination, location: Path, file: Path
) -> None:
    file.chmod(0o644)

    local.put("backup/object", file)

    assert not (location / "backup" / "object").samefile(file)
    assert mode_of(location / "backup" / "object") == 0o600


def test_what_is_given_as_a_link_is_stored_as_a_file(
    local: LocalDestination, location: Path, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(file)

    local.put("backup/object", tmp_path / "link")

    assert not (location / "backup" / "object").is_symlink()
    assert read_whole(local.open("backup/object")) == b"content"


def test_a_link_in_the_place_of_an_object_is_replaced_not_followed(
    local: LocalDestination, location: Path, file: Path, tmp_path: Path
) -> None:
    victim = spooled(tmp_path / "victim", b"precious")
    (location / "backup").mkdir()
    (location / "backup" / "object").symlink_to(victim)

    local.put("backup/object", file)

    assert victim.read_bytes() == b"precious"
    assert not (location / "backup" / "object").is_symlink()


def test_a_link_is_not_read_listed_or_counted(
    local: LocalDestination, location: Path, tmp_path: Path
) -> None:
    (location / "link").symlink_to(spooled(tmp_path / "victim", b"precious"))
    (location / "folder").symlink_to(tmp_path)

    with pytest.raises(DestinationError):
        local.open("link")
    assert local.size("link") is None
    assert list(local.entries()) == []


def test_deleting_a_link_leaves_what_it_leads_to(
    local: LocalDestination, location: Path, tmp_path: Path
) -> None:
    victim = spooled(tmp_path / "victim", b"precious")
    (location / "link").symlink_to(victim)

    local.delete("link")

    assert victim.exists()
    assert not (location / "link").is_symlink()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_no_object(
    kind: str, local: LocalDestination, location: Path, file: Path
) -> None:
    if kind == "folder":
        (location / "odd" / "inside").mkdir(parents=True)
    else:
        os.mkfifo(location / "odd")

    with pytest.raises(DestinationError, match="not a regular file"):
        local.open("odd")
    assert local.size("odd") is None
    assert list(local.entries()) == []
    if kind == "folder":
        with pytest.raises(DestinationError):
            local.put("odd", file)
        with pytest.raises(DestinationError):
            local.delete("odd")
        assert (location / "odd" / "inside").is_dir()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path, file: Path) -> None:
    local = LocalDestination(location=spooled(tmp_path / "backups"))

    for call in (local.check, lambda: local.put("a", file), lambda: list(local.entries())):
        with pytest.raises(DestinationError, match="backups"):
            call()


def test_a_folder_that_is_gone_never_looks_empty(
    local: LocalDestination, location: Path, file: Path
) -> None:
    local.put("backup/object", file)
    shutil.rmtree(location)

    with pytest.raises(DestinationError, match="does not exist"):
        next(local.entries())
    with pytest.raises(DestinationError):
        local.free_space()


def test_a_folder_that_cannot_be_listed_never_looks_empty(
    local: LocalDestination, location: Path, file: Path
) -> None:
    local.put("a/object", file)
    local.put("b/object", file)

    with unreadable(location / "b"), pytest.raises(DestinationError, match="Permission denied"):
        list(local.entries())


class unreadable:  # noqa: N801 - used as a context manager
    """Takes the rights of a folder away; root, who has them anyhow, becomes somebody else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modes: dict[Path, int] = {}

    def __enter__(self) -> None:
        for path in (self._folder, *self._folder.parents):
            if path.is_relative_to("/tmp") and path != Path("/tmp"):
                self._modes[path] = mode_of(path)
                if os.geteuid() == 0:
                    path.chmod(0o755)
        self._folder.chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)

    def __exit__(self, *args: object) -> None:
        if os.getuid() == 0:
            os.seteuid(0)
        for path, mode in self._modes.items():
            path.chmod(mode)


def test_a_folder_that_cannot_be_written_to_is_told(
    local: LocalDestination, location: Path, file: Path
) -> None:
    with unreadable(location):
        with pytest.raises(DestinationError, match="Permission denied") as caught:
            local.check()
        with pytest.raises(DestinationError):
            local.put("backup/object", file)

    assert "permissions" in str(caught.value.hint)
    assert caught.value.permanent


def test_a_read_only_disk_is_told(small_disk: Path, file: Path) -> None:
    local = LocalDestination(location=small_disk)
    local.put("backup/object", file)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    for call in (
        local.check,
        lambda: local.put("backup/other", file),
        lambda: local.delete("backup/object"),
    ):
        with pytest.raises(DestinationError, match="Read-only"):
            call()
    assert read_whole(local.open("backup/object")) == b"content"


def test_a_full_disk_keeps_what_was_there_and_leaves_nothing_half(
    small_disk: Path, tmp_path: Path
) -> None:
    local = LocalDestination(location=small_disk)
    local.put("backup/object", spooled(tmp_path / "small", b"old"))

    with pytest.raises(DestinationError) as caught:
        local.put("backup/object", spooled(tmp_path / "large", bytes(2_000_000)))

    assert os.strerror(errno.ENOSPC) in str(caught.value)
    assert "space" in str(caught.value.hint)
    assert caught.value.permanent
    assert read_whole(local.open("backup/object")) == b"old"
    assert [path.name for path in small_disk.rglob("*")] == ["backup", "object"]


def test_space_is_that_of_the_disk(small_disk: Path) -> None:
    destination = LocalDestination(location=small_disk)

    free, total = destination.free_space(), destination.total_space()

    assert free is not None
    assert 900_000 < free <= 2**20
    assert total == 2**20


def test_temporary_files_of_dead_processes_are_swept(
    local: LocalDestination, location: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    process_id, host, _rest = ours().split("-")
    dead = spooled(location / f".tmp-{process.pid}-{host}-0123456789abcdef")
    alive = spooled(location / f".tmp-{process_id}-{host}-0123456789abcdef")
    elsewhere = spooled(location / f".tmp-{process.pid}-01234567-0123456789abcdef")
    long_dead = spooled(location / f".tmp-{process.pid}-89abcdef-0123456789abcdef")
    os.utime(long_dead, (0, 0))
    staged = location / ".staging" / f"{process.pid}-01234567-staged"
    staged.mkdir(parents=True)
    kept = spooled(location / ".tmp-of-somebody")

    local.probe()
    assert dead.exists()  # its process may be at work in another container

    local.check()

    assert not dead.exists() and not long_dead.exists()
    assert all(path.exists() for path in (alive, elsewhere, staged, kept))


def test_hidden_names_at_the_root_are_no_objects(
    local: LocalDestination, location: Path, file: Path
) -> None:
    (location / ".state").mkdir()
    spooled(location / ".state" / "lock")
    local.put("backup/.hidden/.object", file)

    assert list(local.entries()) == [Entry(name="backup/.hidden/.object", size=7)]
    for name in (".state/lock", ".tmp-1-a", ".x"):
        with pytest.raises(DestinationError):
            local.open(name)


def test_emptied_folders_go_but_never_the_destination_or_what_is_above(
    local: LocalDestination, location: Path, file: Path
) -> None:
    local.put("monthly/one/object", file)
    local.put("monthly/two/object", file)

    local.delete("monthly/one/object")
    assert [path.name for path in (location / "monthly").iterdir()] == ["two"]

    local.delete("monthly/two/object")
    assert [*location.iterdir()] == []
    shutil.rmtree(location)
    local.delete("monthly/two/object")
    assert location.parent.exists()


SYNCED = """
import os, sys
from pathlib import Path
from mipyme_backup.destinations import LocalDestination
calls = []
def watch(name):
    real = getattr(os, name)
    def watched(first, *rest, **named):
        place = os.readlink(f"/proc/self/fd/{first}") if name == "fsync" else str(rest[0])
        calls.append((name, Path(place).name.partition("-")[0]))
        return real(first, *rest, **named)
    setattr(os, name, watched)
watch("fsync")
watch("rename")
LocalDestination(location=sys.argv[1]).put("backup/object", Path(sys.argv[2]))
for call in calls: print(*call)
"""


def test_content_is_synced_before_its_name_and_every_folder_after(
    tmp_path: Path, elsewhere: Path
) -> None:
    location = tmp_path / "backups"
    file = spooled(elsewhere / "spooled")

    done = subprocess.run(
        [sys.executable, "-c", SYNCED, str(location), str(file)],
        capture_output=True,
        text=True,
        check=True,
    )

    calls = done.stdout.split("\n")
    renamed = calls.index("rename object")
    assert calls.index("fsync .tmp") < renamed
    assert calls.index(f"fsync {tmp_path.name.partition('-')[0]}") < renamed
    assert calls[renamed + 1 :] == ["fsync backup", "fsync backups", ""]


WRITER = """
import sys
from pathlib import Path
from mipyme_backup.destinations import LocalDestination
local = LocalDestination(location=sys.argv[1])
files = [Path(sys.argv[2]), Path(sys.argv[3])]
print("ready", flush=True)
while True:
    for file in files:
        local.put("backup/object", file)
"""


def test_a_kill_leaves_the_old_or_the_new(
    local: LocalDestination, location: Path, tmp_path: Path, elsewhere: Path
) -> None:
    contents = [b"a" * 3_000_000, b"b" * 3_000_000]
    files = [spooled(elsewhere / f"file{number}", data) for number, data in enumerate(contents)]
    local.put("backup/object", files[0])

    for turn in range(12):
        arguments = [sys.executable, "-c", WRITER, str(location), *map(str, files)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.003 * turn)
            os.kill(process.pid, signal.SIGKILL)

        assert read_whole(local.open("backup/object")) in contents
        assert [entry.name for entry in local.entries()] == ["backup/object"]

    local.check()
    assert [path.name for path in location.iterdir()] == ["backup"]


def test_an_unreadable_disk_is_an_error_of_the_destination(
    local: LocalDestination, file: Path
) -> None:
    local.put("backup/object", file)
    reader = local.open("backup/object")
    # A descriptor that only writes fails each read, as a disk with a bad block does.
    broken = os.open(os.devnull, os.O_WRONLY)
    os.dup2(broken, reader._descriptor)  # type: ignore[attr-defined]
    os.close(broken)

    with pytest.raises(DestinationError, match="backup/object"):
        reader.read(10)
    reader.close()


def test_a_missing_object_is_named_with_its_place(local: LocalDestination, location: Path) -> None:
    with pytest.raises(ObjectMissingError, match=f"{location}/backup/object"):
        local.open("backup/object")


def test_sweep_removes_the_empty_folders_of_a_killed_put_and_nothing_else(
    local: LocalDestination, tmp_path: Path
) -> None:
    local.check()
    for folder in ("monthly/killed", "pool/abc", "whole"):
        (local.location / folder).mkdir(parents=True)
    (local.location / "whole" / "object").write_bytes(b"content")

    for prefix in ("monthly/killed/", "pool/abc/files.", "whole/", "never/was/", "", "top"):
        local.sweep(prefix)

    assert [path.name for path in local.location.iterdir()] == ["whole"]
    assert [entry.name for entry in local.entries()] == ["whole/object"]


def test_two_folders_never_share_one_file(tmp_path: Path, file: Path) -> None:
    first, second = (LocalDestination(location=tmp_path / name) for name in ("first", "second"))
    first.put("backup/object", file)
    second.put("backup/object", file)
    file.unlink()

    (tmp_path / "first" / "backup" / "object").write_bytes(b"damaged")

    assert (tmp_path / "second" / "backup" / "object").read_bytes() == b"content"
