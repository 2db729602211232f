"""Which migrations may lose data."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently, TrigramExtension
from django.db import models
from django.db.migrations import Migration, operations
from django.db.migrations.operations.base import Operation

from mipyme_backup.migrate_guard import losing_migrations


class DropSlowly(Operation):
    """One of some library, or of the project: nobody knows what it does."""


class AddFieldSlowly(operations.AddField):
    """Of a library too; it may do more than its name says."""


def losing(*given: Operation, backwards: bool = False) -> list[str]:
    migration: Any = Migration("0002_next", "shelf")
    migration.operations = given
    return [*losing_migrations([(migration, backwards)], {"shelf"})]


@pytest.mark.parametrize(
    "operation",
    [
        operations.AddField("item", "more", models.IntegerField(default=1)),
        operations.RenameField("item", "old", "new"),
        operations.CreateModel("item", []),
        AddIndexConcurrently("item", models.Index(fields=["name"], name="by_name")),
        TrigramExtension(),
        operations.SeparateDatabaseAndState(state_operations=[DropSlowly()]),
    ],
)
def test_what_only_adds_or_renames_loses_nothing(operation: Operation) -> None:
    assert losing(operation) == []


@pytest.mark.parametrize(
    "operation",
    [
        operations.RemoveField("item", "note"),
        operations.RunSQL("DELETE FROM shelf_item"),
        operations.SeparateDatabaseAndState([operations.DeleteModel("item")]),
        DropSlowly(),
        AddFieldSlowly("item", "more", models.IntegerField(default=1)),
    ],
)
def test_what_drops_or_does_nobody_knows_what_may(operation: Operation) -> None:
    assert losing(operation) == ["shelf.0002_next"]


def test_what_is_taken_back_may() -> None:
    assert losing(operations.CreateModel("item", []), backwards=True) == ["shelf.0002_next"]
