"""The history that a restore keeps: out of the database that it replaces, into the new one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Model
from django.db.models.base import ModelState

from mipyme_backup.catalog.guards import Guarded, optional, otherwise
from mipyme_backup.catalog.selection import is_current
from mipyme_backup.models import Backup, ChecklistEntry, Copy, Drill, Look, Restore, Task

Other = Restore | Drill | Look | ChecklistEntry | Task

OTHERS: tuple[type[Other], ...] = (Restore, Drill, Look, ChecklistEntry, Task)
"""What stands for itself, and is no cache of what the destinations hold."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Rows of the catalog, out of a database that is about to be replaced.

    `others` are those of `OTHERS`, in its order, of the tables that were there; the oldest first,
    so that the newest has the highest number again: a checklist counts from its last beginning.
    """

    backups: Sequence[Backup] = ()
    copies: Sequence[Copy] = ()
    others: Sequence[Other] = ()


class Handover(Guarded):
    """The rows, taken along."""

    @otherwise(History)
    def history(self) -> History:
        """Return what the live catalog knows of the past; empty where it cannot be read."""
        has_backups = _has_backups("default")
        return History(
            backups=[*Backup.objects.all()] if has_backups else (),
            copies=[*Copy.objects.select_related("backup")] if has_backups else (),
            others=[
                row
                for model in OTHERS
                if is_current(model, "default")
                for row in model._default_manager.order_by("pk")
            ],
        )

    @optional
    def add_history(self, history: History, using: str = "default") -> None:
        """Put the history into the database `using`, whose catalog is empty.

        What is newer than its tables is left out; of the backups, the destinations tell again.
        """
        with transaction.atomic(using=using):
            for model in OTHERS:
                if is_current(model, using):
                    rows = [row for row in history.others if isinstance(row, model)]
                    _add_rows(model, rows, using)
            if _has_backups(using):
                _add_rows(Backup, history.backups, using)
                _add_copies(history.copies, using)


def _has_backups(using: str) -> bool:
    return is_current(Backup, using) and is_current(Copy, using)


def _add_rows(model: type[Model], rows: Iterable[Model], using: str) -> None:
    model._default_manager.using(using).bulk_create(map(_unsaved, rows), batch_size=500)


def _add_copies(copies: Iterable[Copy], using: str) -> None:
    """Add what is known of each copy, so that a failed or damaged one is not forgotten."""
    backups = dict(Backup.objects.using(using).values_list("backup_id", "pk"))
    rows = []
    for known in copies:
        row = _unsaved(known)
        row.backup_id = backups[known.backup.backup_id]
        rows.append(row)
    Copy.objects.using(using).bulk_create(rows, batch_size=500)


def _unsaved(row: Any) -> Any:
    fresh = copy(row)
    fresh.pk = None
    fresh._state = ModelState()
    return fresh
