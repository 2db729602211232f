"""What a backup lacks: which of it warns, which is only noted."""

from __future__ import annotations

from typing import Any

import pytest

from mipyme_backup.policy.left_out import lacks, left_out, missing_files, unreadable_count
from mipyme_backup.policy.status import findings
from tests.unit.policy.shapes import NOW, POLICY, backup, facts, found


def media(**values: Any) -> dict[str, Any]:
    return {"media.index.jsonl": {"files": 9, "bytes": 99, "left_out": 0, "missing": 0, **values}}


def fixtures(*labels: str, absent: list[str] | None = None) -> dict[str, Any]:
    return {"fixtures.jsonl": {"left_out": dict.fromkeys(labels, "why"), "absent": absent or []}}


def severities(name: str, given: dict[str, Any]) -> list[str]:
    return [severity for severity, _message in left_out(name, given)]


def test_what_could_not_be_read_or_kept_warns() -> None:
    assert severities("media", media()) == []
    assert severities("media", media(unreadable=2, left_out=2)) == ["warning"]
    assert severities("media", media(left_out=3)) == ["warning"]
    assert severities("media", media(links=2, files_behind_links=7)) == ["warning"]
    assert severities("media", media(links=2, files_behind_links=0)) == []
    assert severities("camera", {"frames": {"unreadable": 1}}) == ["warning"]


def test_models_that_the_dump_has_are_noted() -> None:
    (found_one,) = left_out("fixtures", fixtures("a.A", "b.B", "c.C", "d.D"))

    assert found_one[0] == "ok" and "(4): a.A, b.B, c.C, …" in str(found_one[1])


def test_models_without_a_table_lack_nothing() -> None:
    assert severities("fixtures", fixtures("a.A", "b.B", absent=["a.A", "b.B"])) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"x": None},
        {"x": {"unreadable": True, "left_out": -4, "missing": "many"}},
        {"x": {"left_out": ["a"], "absent": {"a": 1}}},
    ],
)
def test_facts_of_any_shape_are_read(odd: dict[str, Any]) -> None:
    assert left_out("media", odd) == []
    assert unreadable_count([("media", odd)]) == missing_files([("media", odd)]) == 0


class TestFindings:
    def test_the_newest_good_backup_is_told_of_by_source(self) -> None:
        sources = [("media", media(unreadable=4)), ("fixtures", fixtures("shop.Log"))]
        seen = facts(backup(lacks=lacks(sources)))
        texts = {one.id: str(one.message) for one in findings(POLICY, seen, NOW)}

        assert found(seen) == {"left_out:media": "warning", "left_out:fixtures": "ok"}
        assert "mipyme_backup_9" in texts["left_out:media"] and "(4)" in texts["left_out:media"]

    def test_older_backups_are_none_of_it(self) -> None:
        older = backup(8, lacks=lacks([("media", media(unreadable=4))]))

        assert found(facts(older, backup(9))) == {}

    @pytest.mark.parametrize(
        ("before", "now", "expected"),
        [
            (None, 5, {"files_missing": "ok"}),
            (5, 5, {"files_missing": "ok"}),
            (6, 5, {"files_missing": "ok"}),
            (5, 6, {"files_missing": "warning"}),
            (0, 1, {"files_missing": "warning"}),
            (5, 0, {}),
        ],
    )
    def test_only_new_names_without_a_file_warn(
        self, before: int | None, now: int, expected: dict[str, str]
    ) -> None:
        older = [] if before is None else [backup(8, missing=before)]

        assert found(facts(*older, backup(9, missing=now))) == expected
