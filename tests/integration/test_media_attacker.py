"""The commands, run as root, beside a user who exchanges the media folders for links in a loop."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from django.core.management import CommandError, call_command

from tests.unit.sources.forks import NOBODY
from tests.unit.sources.link_swapper import SECRET, Attack, fingerprint, make_vault
from tests.unit.sources.media_trees import write

FILES = ("a/one", "a/deep/two", "b/three", "four")
TURNS = 3
COMMANDS = (
    ("restore", "--latest", "--only=media", "--no-input"),
    ("restore", "--latest", "--only=media", "--no-input", "--to-media={out}"),
    ("restore", "--undo", "--no-input"),
    ("backup", "--only=media"),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user other than ourselves")
def test_backup_and_restore_get_nothing_to_or_from_where_links_lead(
    backups: Path, settings: Any, torture_random: random.Random
) -> None:
    workdir = backups.parent
    workdir.chmod(0o755)
    site = workdir / "site"
    media = site / "media"
    settings.MEDIA_ROOT = str(media)
    settings.MIPYME_BACKUP = {**settings.MIPYME_BACKUP, "ENCRYPTION": None}
    for name in FILES:
        write(media, name, name.encode())
    for path in (site, *site.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    vault = make_vault(workdir / "vault", FILES)
    untouched = fingerprint(vault)
    call_command("backup", "--only=media", verbosity=0)
    attack = Attack(
        names=[media, media / "a", media / "a" / "deep", site / "out"],
        watched=[site, media],
        victims=[vault / "root", vault / "other", vault / "empty"],
        seed=str(torture_random.random()),
        as_nobody=True,
    )

    for _turn in range(TURNS):
        if not os.path.lexists(site / "out"):
            (site / "out").mkdir()
        with attack.under_way():
            for name, *arguments in COMMANDS:
                given = [argument.format(out=site / "out") for argument in arguments]
                with contextlib.suppress(CommandError):
                    call_command(name, *given, verbosity=0)
        assert fingerprint(vault) == untouched

    packs = list(backups.rglob("files.tar.zst*"))
    assert packs
    assert not any(SECRET in zstd.decompress(pack.read_bytes()) for pack in packs)
