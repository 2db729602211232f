"""What the last look saw, and what people did to the checklist."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mipyme_backup.catalog.guards import Guarded, needed, optional
from mipyme_backup.models import ChecklistEntry, Look
from mipyme_backup.policy.checklist import Entry


class Looks(Guarded):
    """The rows of the looks and of the checklist."""

    @optional
    def keep_look(self, project: str, at: datetime, document: Mapping[str, Any]) -> None:
        """Keep what a look at the project saw, as JSON values, in place of the one before."""
        Look.objects.update_or_create(project=project, defaults={"at": at, "document": document})

    def last_look(self, project: str) -> Mapping[str, Any] | None:
        """Return what the last look saw; None where nobody has looked.

        Raises CatalogError where the catalog cannot be read.
        """
        with needed():
            look = Look.objects.filter(project=project).first()
        return look.document if look else None

    def note_checklist(self, project: str, entry: Entry) -> None:
        """Keep what was done to the checklist; raises CatalogError where that cannot be."""
        with needed():
            ChecklistEntry.objects.create(project=project, **dataclasses.asdict(entry))
