"""One file larger than memory goes to S3 and comes back from there, in bounded memory and disk.

The S3 server's own processes do not count.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mipyme_backup.operations.writing import DEPTH
from tests import services
from tests.e2e.memory import peak_of
from tests.e2e.offsite import S3, keep_on
from tests.e2e.project import Project, sqlite_project

MEBIBYTE = 2**20
GIBIBYTE = 2**30
LIMIT = 200 * 1000 * 1000
VOLUME = 256 * MEBIBYTE
PART = 16 * MEBIBYTE
"""What is larger goes to S3 in parts."""

SECONDS = 3000
JOBS = 16
"""As on a large machine: each worker wants memory of its own."""

HOLES = {"holes, not encrypted": False, "holes": True}
NOISE = {"noise, not encrypted": False, "noise": True}


@pytest.mark.rare
def test_file_of_many_volumes(workdir: Path, tell: Callable[[str], None]) -> None:
    size = 70 * MEBIBYTE
    with sqlite_project(workdir, VOLUME_SIZE=20 * MEBIBYTE, JOBS=JOBS) as project:
        write_noise(project.media, size)

        assert_saved_and_restored(project, size, 20 * MEBIBYTE, tell)


@pytest.mark.torture
@pytest.mark.parametrize("encrypted", HOLES.values(), ids=HOLES)
def test_file_of_6_gib_that_is_mostly_holes(
    workdir: Path,
    tell: Callable[[str], None],
    scaled: Callable[[int, int], int],
    encrypted: bool,
) -> None:
    size = scaled(6 * GIBIBYTE, GIBIBYTE)
    with sqlite_project(workdir, **encryption(encrypted)) as project:
        write_holes(project.media, size)

        assert_saved_and_restored(project, size, VOLUME, tell)

        assert (project.media / "large").stat().st_blocks * 512 < size / 100


@pytest.mark.torture
@pytest.mark.parametrize("encrypted", NOISE.values(), ids=NOISE)
def test_file_of_1_6_gib_that_cannot_be_compressed(
    workdir: Path,
    tell: Callable[[str], None],
    scaled: Callable[[int, int], int],
    encrypted: bool,
) -> None:
    size = scaled(1600 * MEBIBYTE, VOLUME + 16 * MEBIBYTE)
    with sqlite_project(workdir, **encryption(encrypted)) as project:
        write_noise(project.media, size)

        volumes = assert_saved_and_restored(project, size, VOLUME, tell)

        assert volumes >= math.ceil(size / VOLUME)


def assert_saved_and_restored(
    project: Project, size: int, volume_size: int, tell: Callable[[str], None]
) -> int:
    """Save to S3 alone, lose everything, restore; return how many volumes the file took."""
    file = project.media / "large"
    state = project.root / ".mipyme_backup"
    before = sha256(file)
    project.manage("migrate", "--verbosity=0")
    with services.s3() as server:
        keep_on(project, {"s3": (S3, server.options())})
        backup = peak_of(project, "backup", work=state, timeout=SECONDS)
        assert server.folder is not None
        volumes = [path.stat().st_size for path in server.folder.glob("pool/*/*")]
        left = work_files(state)
        project.destroy()
        restore = peak_of(project, "restore", "--latest", "--no-input", work=state, timeout=SECONDS)

    stored = sum(volumes)
    tell(
        f"backup of {size / MEBIBYTE:.0f} MiB, {stored / MEBIBYTE:.0f} MiB stored in"
        f" {len(volumes)} volumes: {backup}"
    )
    tell(f"restore: {restore}")
    assert file.stat().st_size == size
    assert sha256(file) == before
    assert not project.backups.exists()
    assert left == work_files(state) == []
    assert max(volumes) <= volume_size
    assert max(backup.size, restore.size) < LIMIT
    # Those that wait for the upload, the one that goes, and the one that is made.
    assert backup.disk <= (DEPTH + 1) * volume_size + 2 * PART
    assert restore.disk <= volume_size + 2 * PART
    return len(volumes)


def encryption(wanted: bool) -> dict[str, None]:
    return {} if wanted else {"ENCRYPTION": None}


def write_noise(media: Path, size: int) -> None:
    """Write the file ``large`` of `size` bytes of which none can be spared."""
    media.mkdir()
    with (media / "large").open("wb") as file:
        for _number in range(size // MEBIBYTE):
            file.write(os.urandom(MEBIBYTE))


def write_holes(media: Path, size: int) -> None:
    """Write the file ``large`` of `size` bytes, zeros but for a MiB in each GiB."""
    media.mkdir()
    with (media / "large").open("wb") as file:
        for start in range(MEBIBYTE // 2 + 1, size, GIBIBYTE):
            file.seek(start)
            file.write(os.urandom(MEBIBYTE))
        file.truncate(size)


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def work_files(state: Path) -> list[Path]:
    return [*(state / "work").iterdir()]
