"""Which tables of a database are those of the project's models."""

from __future__ import annotations

from collections.abc import Mapping

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, router

from mipyme_backup.sources.base import OWN_APP


def tables_of(alias: str, rows: Mapping[str, int]) -> dict[str, int]:
    """Return the rows by table of the database `alias`, of those that ``migrate`` makes there.

    `rows` are those of a whole backup, as `manifest.row_counts` names them.
    """
    prefix, wanted = f"{alias}: ", expected_tables(alias)
    if alias == DEFAULT_DB_ALIAS:
        named = {name: count for name, count in rows.items() if ": " not in name}
    else:
        named = {
            name.removeprefix(prefix): count
            for name, count in rows.items()
            if name.startswith(prefix)
        }
    return {name: count for name, count in named.items() if name.rpartition(".")[2] in wanted}


def expected_tables(alias: str) -> frozenset[str]:
    """Return the bare names of the tables that ``migrate`` makes in the database `alias`.

    Without the catalog's own: where they alone are there, nothing of the project is.
    """
    return frozenset(
        model._meta.db_table.rpartition('"."')[2].strip('"')
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
        and not model._meta.proxy
        and model._meta.app_label != OWN_APP
        and router.allow_migrate_model(alias, model)
    )
