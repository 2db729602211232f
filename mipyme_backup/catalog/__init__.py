"""The only writer of the catalog's models.

The catalog is a cache and a history: where its tables are absent, older than the code, or the
database is away, every method warns once and does nothing, because no backup and no restore
may depend on it. ``list_backups --sync`` catches up.
"""

from __future__ import annotations

from django.apps import apps

from mipyme_backup.catalog.copies import Copies, Known
from mipyme_backup.catalog.facts import Facts
from mipyme_backup.catalog.guards import needed
from mipyme_backup.catalog.history import Handover, History
from mipyme_backup.catalog.looks import Looks
from mipyme_backup.catalog.manifests import Manifests
from mipyme_backup.catalog.restores import Restores
from mipyme_backup.catalog.runs import Runs

__all__ = ["Catalog", "History", "Known", "needed"]


class Catalog(Runs, Manifests, Copies, Restores, Looks, Facts, Handover):
    """Writes and reads the history of runs. Each chapter has its module; none calls another."""

    @property
    def tables(self) -> frozenset[str]:
        """The names of the catalog's own tables, whose rows no dump holds."""
        models = apps.get_app_config("mipyme_backup").get_models()
        return frozenset(model._meta.db_table for model in models)
