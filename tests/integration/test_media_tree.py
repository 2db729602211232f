"""Mounts, links, owners and unreadable media, through whole backups and restores."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from mipyme_backup import api
from mipyme_backup.errors import RestoreError
from tests.conftest import Mount
from tests.unit.sources.forks import NOBODY, in_child


@pytest.fixture
def media(backups: Path) -> Path:
    return backups.with_name("media")


def replaced_folders(media: Path) -> list[Path]:
    return sorted(media.parent.glob(".mipyme_backup_before_*"))


def expire(settings: Any) -> None:
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "KEEP_REPLACED_HOURS": 0}


def media_facts(backups: Path) -> dict[str, Any]:
    (path,) = backups.glob("manual_*/manifest.json")
    sources = json.loads(path.read_bytes())["sources"]
    facts = sources["media"]["facts"] if isinstance(sources, dict) else None
    if facts is None:
        (facts,) = [source["facts"] for source in sources if source["name"] == "media"]
    found: dict[str, Any] = facts["media.index.jsonl"]
    return found


# Mounts


@pytest.mark.parametrize("plan", [True, False], ids=["plan", "restore"])
def test_restore_is_refused_while_a_disk_is_mounted_and_nothing_changes(
    backups: Path, media: Path, mount: Mount, plan: bool
) -> None:
    (media / "a" / "disk").mkdir(parents=True)
    mount("-t", "tmpfs", "tmpfs", media / "a" / "disk")
    (media / "a" / "disk" / "precious").write_text("precious")
    made = api.backup()
    (media / "picture").write_text("since")

    with pytest.raises(RestoreError) as refusal:
        api.restore(identifier=made.manifest.id, only=["media"], plan=plan)

    assert str(media / "a" / "disk") in str(refusal.value)
    assert (media / "picture").read_text() == "since"
    assert (media / "a" / "disk" / "precious").read_text() == "precious"
    assert [path.name for path in media.parent.glob(".mipyme*")] == []
    elsewhere = media.with_name("elsewhere")
    api.restore(identifier=made.manifest.id, only=["media"], to_media=elsewhere)
    assert (elsewhere / "a" / "disk" / "precious").read_text() == "precious"


def test_expiry_leaves_what_is_mounted_in_what_was_replaced_and_says_so(
    backups: Path, media: Path, mount: Mount, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier version took a mounted share along with the folder that it replaced."""
    made = api.backup()
    api.restore(identifier=made.manifest.id, only=["media"])
    (replaced,) = replaced_folders(media)
    (replaced / "share").mkdir()
    mount("-t", "tmpfs", "tmpfs", replaced / "share")
    (replaced / "share" / "precious").write_text("precious")
    expire(settings)

    for work in (api.backup, api.prune, api.backup):
        caplog.clear()
        work()
        assert str(replaced / "share") in caplog.text
        assert (replaced / "share" / "precious").read_text() == "precious"
        assert (replaced / "picture").read_text() == "before"

    subprocess.run(["umount", replaced / "share"], check=True)
    api.backup()
    assert replaced_folders(media) == []
    assert (media / "picture").read_text() == "before"


# Links


def test_links_out_survive_backup_restore_undo_and_expiry(
    backups: Path, media: Path, settings: Any
) -> None:
    disk = media.with_name("disk")
    (disk / "album").mkdir(parents=True)
    (disk / "album" / "photo").write_text("photo")
    (media / "photos").symlink_to(disk)
    (media / "relative").symlink_to("../disk/album")
    made = api.backup()
    told = [str(text) for text in made.manifest.warnings]
    assert any("1 files of 5 bytes lie behind links" in text for text in told)
    facts = media_facts(backups)
    assert (facts["links"], facts["files_behind_links"]) == (2, 1)

    for name in ("photos", "relative"):
        (media / name).unlink()
    api.restore(identifier=made.manifest.id, only=["media"])
    assert os.readlink(media / "photos") == str(disk)
    assert os.readlink(media / "relative") == "../disk/album"
    api.undo_restore()
    assert not (media / "photos").is_symlink()
    api.restore(identifier=made.manifest.id, only=["media"])
    expire(settings)
    api.backup()

    assert replaced_folders(media) == []
    assert (media / "photos" / "album" / "photo").read_text() == "photo"


def test_links_are_verified_with_the_content(backups: Path, media: Path) -> None:
    (media / "photos").symlink_to("/nowhere")
    made = api.backup()

    (result,) = api.verify(identifiers=[made.manifest.id], level="content")

    assert result.problems == ()


# Owners


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_what_a_restore_could_not_bring_back_is_in_its_result_and_in_the_log(
    backups: Path, media: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (media / "tool").write_text("#!")
    os.chown(media / "tool", NOBODY, NOBODY)
    (media / "tool").chmod(0o4755)
    (media / "shared").mkdir()
    os.chown(media / "shared", NOBODY, 33)
    (media / "shared").chmod(0o2770)
    made = api.backup()
    (media / "shared").rmdir()

    with caplog.at_level(logging.WARNING, logger="mipyme_backup"):
        result = api.restore(identifier=made.manifest.id, only=["media"])

    assert any("set-user-ID" in str(text) and "tool" in str(text) for text in result.plan)
    assert "set-user-ID" in caplog.text
    status = (media / "shared").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (NOBODY, 33, 0o2770)
    assert (media / "tool").stat().st_mode & 0o7777 == 0o755
    assert (media / "tool").stat().st_uid == NOBODY


def test_the_facts_of_a_backup_count_what_could_not_be_read(backups: Path, media: Path) -> None:
    api.backup()

    assert media_facts(backups)["unreadable"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two owners")
def test_a_run_that_may_not_read_a_folder_says_so_in_its_manifest(
    backups: Path, media: Path, settings: Any
) -> None:
    """As another user, which the user of the site often is not."""
    api.backup()  # so that all modules are there, wherever Python lies
    (media / "private").mkdir(mode=0o700)
    (media / "private" / "file").write_text("of root")
    root = media.parent
    for name in ("state", "backups"):
        subprocess.run(["rm", "-r", root / name], check=True)
    database = Path(settings.DATABASES["default"]["NAME"])
    for path in (root, root / "passphrase", database.parent, *database.parent.iterdir()):
        os.chown(path, NOBODY, NOBODY)

    def work() -> list[str]:
        made = api.backup()
        return [str(warning) for warning in made.manifest.warnings]

    connections.close_all()
    try:
        warnings = in_child(work, nobody=True)
    finally:
        for path in (database.parent, *database.parent.iterdir()):
            os.chown(path, 0, 0)

    assert "1 media folders could not be read: private" in warnings
    facts = media_facts(backups)
    assert (facts["unreadable"], facts["missing"], facts["files"]) == (1, 0, 1)
    assert media_facts(backups)["folder"]["uid"] == 0
