"""Names that follow from others: as long as a file's may be, and no two the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipyme_backup.errors import RestoreError
from mipyme_backup.sources.base import artifact_name, require_distinct
from mipyme_backup.sources.fixtures.selection import artifact_name as fixture_name
from mipyme_backup.sources.sqlite import SQLiteTarget


def test_aliases_that_begin_alike_have_artifacts_of_their_own() -> None:
    names = [artifact_name("ñ" * 100 + letter, "dump") for letter in "ab"]
    names += [fixture_name("ñ" * 20, "s" * 100 + letter) for letter in "ab"]
    names += [fixture_name("a.b", "c"), fixture_name("a", "b.c"), fixture_name("a")]
    assert len({*names}) == len(names)
    assert max(map(len, names)) < 230


def test_two_targets_that_claim_the_same_are_refused(tmp_path: Path) -> None:
    def target(name: str) -> SQLiteTarget:
        entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / name)}
        return SQLiteTarget.prepare(alias="a", settings_dict=entry, restore_id="ab12")

    require_distinct([target("a"), target("b")])
    with pytest.raises(RestoreError, match=r"by way of .*/a"):
        require_distinct([target("a"), target("a.restoring_ab12"), target("b")])
