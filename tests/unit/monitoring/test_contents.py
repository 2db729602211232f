"""What a manifest says was saved, and what changed since the backup before."""

from __future__ import annotations

from typing import Any

from mipyme_backup.monitoring.contents import (
    RowDifference,
    packs_of,
    row_differences,
    rows_of,
    saved_contents,
)


def test_what_each_source_saved() -> None:
    database, fixtures, media = saved_contents(MANIFEST)

    assert (database.tables, database.rows, database.files) == (2, 12, None)
    assert (database.engine, database.raw_size, database.stored_size) == ("postgresql 16.4", 80, 30)
    assert (fixtures.tables, fixtures.rows) == (1, 7)
    assert fixtures.left_out == {"shop.Big": "too many rows"}
    assert (media.tables, media.rows, media.files) == (None, None, 3)
    assert (media.raw_size, media.stored_size) == (5000, 9 + 700)


def test_what_fixtures_leave_out_is_told_with_schema_and_rows() -> None:
    facts = {
        "fixtures.jsonl": {"left_out": {"shop.Big": "too many"}, "left_out_rows": {"shop.Big": 9}},
        "fixtures.default.acme.jsonl": {
            "schema": "acme",
            "left_out": {"shop.Big": "too many"},
        },
    }
    source = {"name": "fixtures", "artifacts": [], "facts": facts}

    assert saved_contents({"sources": [source]})[0].left_out == {
        "shop.Big": "too many; 9 rows are left out",
        "acme: shop.Big": "too many",
    }


def test_volumes_are_named_as_they_lie_there() -> None:
    (part,) = saved_contents(MANIFEST)[0].parts

    assert part.volumes == [("b/dump.00000", 20, "aa"), ("b/dump.00001", 10, "bb")]
    assert [pack.path for pack in packs_of(MANIFEST)] == ["pool/p"]


def test_backup_without_a_manifest_saved_nothing_that_is_known() -> None:
    assert (saved_contents({}), packs_of({}), rows_of({})) == ([], [], {})


def test_rows_of_databases_alone() -> None:
    assert rows_of(MANIFEST) == {"shop_order": 10, "shop_item": 2}


def test_largest_change_comes_first_and_what_is_the_same_not_at_all() -> None:
    before = {"same": 5, "grew": 10, "lost": 100, "gone": 3}
    after = {"same": 5, "grew": 11, "lost": 0, "new": 40}

    found = row_differences(before, after)

    assert [(item.table, item.change) for item in found] == [
        ("lost", -100),
        ("new", 40),
        ("gone", -3),
        ("grew", 1),
    ]
    assert found[1] == RowDifference(table="new", before=None, after=40)


def test_table_that_came_empty_is_a_difference() -> None:
    assert [item.table for item in row_differences({}, {"new": 0})] == ["new"]


def _artifact(path: str, raw: int, *volumes: tuple[int, str]) -> dict[str, Any]:
    return {
        "name": path.rpartition("/")[2],
        "path": path,
        "raw_size": raw,
        "stored_size": sum(size for size, _sha256 in volumes),
        "sha256": "cc",
        "volumes": [{"size": size, "sha256": sha256} for size, sha256 in volumes],
    }


MANIFEST: dict[str, Any] = {
    "sources": [
        {
            "name": "database:default",
            "artifacts": [_artifact("b/dump", 80, (20, "aa"), (10, "bb"))],
            "facts": {
                "dump": {
                    "engine": "postgresql",
                    "version": "16.4",
                    "tables": {"shop_order": 10, "shop_item": 2},
                }
            },
        },
        {
            "name": "fixtures",
            "artifacts": [_artifact("b/fixtures", 60, (6, "dd"))],
            "facts": {
                "fixtures": {
                    "models": {"shop.Order": 7},
                    "left_out": {"shop.Big": "too many rows"},
                }
            },
        },
        {
            "name": "media",
            "artifacts": [_artifact("b/media.index", 40, (9, "ee"))],
            "facts": {
                "media.index": {"files": 3, "bytes": 5000, "left_out": 0, "packs": ["p"]},
            },
        },
    ],
    "packs": [_artifact("pool/p", 5120, (700, "ff"))],
}
