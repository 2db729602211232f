"""Links on the way to the media folder: followed as the kernel does, but for those of others."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from django.test import override_settings

from mipyme_backup.errors import BackupError, PreflightError, RestoreError, SourceError
from mipyme_backup.sources.media import MediaTarget
from mipyme_backup.sources.media.location import located, resolved
from tests.unit.sources.forks import NOBODY, in_child
from tests.unit.sources.media_trees import media_source, save, write

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two owners")


def test_a_path_is_resolved_as_the_kernel_would(
    tmp_path: Path, torture_random: random.Random
) -> None:
    chance = torture_random
    names = ["a", "b", "c", "d"]
    for _number in range(40):
        place = tmp_path.joinpath(*chance.choices(names, k=chance.randint(1, 3)))
        if os.path.lexists(place) or not place.parent.is_dir():
            continue
        up = "../" * chance.randint(0, 3)
        target = f"{up}{'/'.join(chance.choices(names, k=chance.randint(1, 2)))}"
        if chance.random() < 0.4:
            place.mkdir()
        elif chance.random() < 0.3:
            place.symlink_to(tmp_path / target)
        else:
            place.symlink_to(target)
    for _number in range(300):
        path = tmp_path.joinpath(*chance.choices(names, k=chance.randint(1, 5)))
        try:
            path.exists()
            os.stat(path)
        except FileNotFoundError:
            pass
        except OSError:
            with pytest.raises(RestoreError, match="symbolic links"):
                resolved(path, RestoreError)
            continue
        assert str(resolved(path, RestoreError)) == os.path.realpath(path)


def test_a_file_on_the_way_and_a_missing_end_are_taken_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "file")
    (tmp_path / "link").symlink_to("missing/../other")

    assert resolved(tmp_path / "file", RestoreError) == tmp_path / "file"
    assert resolved(tmp_path / "none" / "below", RestoreError) == tmp_path / "none" / "below"
    assert resolved(tmp_path / "link" / "below", RestoreError) == tmp_path / "other" / "below"
    with pytest.raises(FileNotFoundError):
        located(tmp_path / "none", RestoreError)


@pytest.fixture
def vault(workdir: Path) -> Path:
    """A folder of root, beside a folder of another user in which the media is to be."""
    write(workdir, "vault/secret", b"secret")
    (workdir / "site").mkdir()
    os.chown(workdir / "site", NOBODY, NOBODY)
    return workdir / "vault"


def link_of(owner: int, place: Path, target: Path) -> Path:
    place.symlink_to(target)
    os.lchown(place, owner, owner)
    return place


def refusals(media: Path) -> dict[str, Callable[[], object]]:
    elsewhere = media.parent.parent / "elsewhere"
    return {
        "backup": lambda: save(media),
        "preflight": lambda: list(media_source().preflight()),
        "restore": lambda: MediaTarget.prepare(location=media, restore_id="id"),
        "new folder": lambda: MediaTarget.prepare(
            location=elsewhere, restore_id="id", to_directory=media
        ),
    }


ERRORS: dict[str, type[BackupError]] = {
    "backup": SourceError,
    "preflight": PreflightError,
    "restore": RestoreError,
    "new folder": RestoreError,
}


@as_root
@pytest.mark.parametrize("step", ERRORS)
@pytest.mark.parametrize("where", ["media", "media/below", "media/new"])
def test_root_follows_no_link_of_a_user_to_what_is_not_theirs(
    vault: Path, step: str, where: str
) -> None:
    (vault / "below").mkdir()
    link_of(NOBODY, vault.parent / "site" / "media", vault)
    media = vault.parent / "site" / where

    with override_settings(MEDIA_ROOT=str(media)), pytest.raises(ERRORS[step]) as refusal:
        refusals(media)[step]()

    assert "site/media is a link of the user with the id 65534" in str(refusal.value)
    assert f"chown -h root {vault.parent}/site/media" in str(refusal.value.hint)


@as_root
def test_root_follows_its_own_links_and_those_of_the_owner(vault: Path) -> None:
    site = vault.parent / "site"
    theirs = write(vault.parent, "theirs/file", b"theirs").parent
    os.chown(theirs, NOBODY, NOBODY)

    by_root = link_of(0, site / "by root", vault)
    by_owner = link_of(NOBODY, site / "by owner", theirs)

    assert save(by_root).facts["files"] == 1
    assert save(by_owner).facts["files"] == 1
    assert resolved(by_root, RestoreError) == vault
    assert resolved(by_owner / "new", RestoreError) == theirs / "new"


@as_root
def test_root_follows_the_links_of_the_user_whose_settings_it_runs(
    vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a deploy user, who owns the code: that user can have root read anything anyway."""
    link = link_of(NOBODY, vault.parent / "site" / "media", vault)
    file = write(vault.parent, "site/deployed.py", b"DEBUG = False")
    module = ModuleType("deployed")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "deployed", module)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "deployed")

    os.chown(file, NOBODY, NOBODY)
    assert resolved(link, RestoreError) == vault
    os.chown(file, 1234, 1234)
    with pytest.raises(RestoreError, match="site/media is a link"):
        resolved(link, RestoreError)


@as_root
def test_a_link_to_another_link_is_judged_by_where_it_leads_in_the_end(vault: Path) -> None:
    by_root = link_of(0, vault.parent / "by root", vault)
    by_user = link_of(NOBODY, vault.parent / "site" / "media", by_root)

    with pytest.raises(RestoreError, match="site/media is a link"):
        resolved(by_user, RestoreError)


@as_root
def test_other_users_follow_every_link_as_far_as_their_rights_lead(vault: Path) -> None:
    vault.parent.chmod(0o755)
    vault.chmod(0o755)
    link = link_of(1234, vault.parent / "link", vault)

    answer = in_child(lambda: str(resolved(link, RestoreError)), nobody=True)

    assert answer == str(vault)
