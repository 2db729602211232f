"""A restore whose settings changed since: told while it matters, and not for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mipyme_backup import api
from tests.integration.test_state_in_containers import interrupted_restore, restored_since


@pytest.fixture
def release(backups: Path, settings: Any) -> Path:
    """The folder of a release, to which the link `current` leads that the settings name."""
    first = backups.with_name("first")
    first.mkdir()
    backups.with_name("media").rename(first / "media")
    backups.with_name("current").symlink_to(first)
    settings.MEDIA_ROOT = str(backups.with_name("current") / "media")
    return first


def deploy(release: Path) -> None:
    """Have `current` lead to another release, with media of its own."""
    second = release.with_name("second")
    (second / "media").mkdir(parents=True)
    (second / "media" / "picture").write_text("second")
    release.with_name("current").unlink()
    release.with_name("current").symlink_to(second)


def levels() -> list[str]:
    return [f.level for f in api.status().findings if f.id.startswith("state_ignored")]


def records(release: Path) -> list[Path]:
    return [*(release.with_name("state") / "restores").glob("*.json")]


def test_a_kept_restore_that_fits_no_more_is_a_warning(release: Path) -> None:
    restored_since()
    deploy(release)

    assert levels() == ["warning"]
    assert any("is ignored" in text for text in api.backup().manifest.warnings)
    assert len(records(release)) == 1


def test_an_interrupted_restore_that_fits_no_more_is_critical(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_restore(monkeypatch)
    deploy(release)

    api.backup()

    assert levels() == ["critical"]
    assert len(records(release)) == 1


def test_what_it_replaced_is_named_once_when_its_hours_are_over(
    release: Path, settings: Any
) -> None:
    restored_since()
    deploy(release)
    settings.MIPYME_BACKUP["KEEP_REPLACED_HOURS"] = 0
    replaced = [*release.glob("*before*"), *release.rglob("media/.*before*")]

    first, second = api.backup(), api.backup()

    (told,) = [text for text in first.manifest.warnings if "stays" in text]
    assert replaced and all(str(path) in told for path in replaced)
    assert second.manifest.warnings == ()
    assert records(release) == []
    assert levels() == []
    assert all(path.exists() for path in replaced)
