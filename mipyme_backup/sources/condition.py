"""Whether a database is there, and has the tables of the project's models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, router

from mipyme_backup.policy.own_rows import is_own
from mipyme_backup.sources import postgresql, sqlite
from mipyme_backup.sources.base import OWN_APP

Condition = Literal["used", "emptied", "bare", "missing", "unknown"]
"""``missing``: the server, or the folder, has no such database. ``bare``: it has none of the
project's tables, and no migration was applied. ``emptied``: none of those that held rows has any.
``unknown``: it cannot be asked, or is of no engine that can be."""

_ENGINES: Mapping[str, Callable[..., Condition]] = {
    "postgresql": postgresql.condition_of,
    "sqlite": sqlite.condition_of,
}


def database_condition(
    alias: str, settings_dict: Mapping[str, Any], *, held: Collection[str] = ()
) -> Condition:
    """Return how the database is; never raises for one that is away.

    `held` are tables that had rows, as the facts of its artifact name them. Where it is to have no
    table, having none says nothing.
    """
    condition = _ENGINES.get(connections[alias].vendor)
    wanted = expected_tables(alias)
    if condition is None or not wanted:
        return "unknown"
    kept = frozenset(filter(is_own, held))
    return condition(alias, settings_dict, wanted=wanted, held=kept)


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
