"""Which rows are a project's own: not those that `migrate`, a visitor or this software writes."""

from __future__ import annotations

from collections.abc import Mapping

REFILLED = frozenset(
    {
        "auth_permission",
        "django_admin_log",
        "django_content_type",
        "django_migrations",
        "django_session",
        "django_site",
    }
)
"""Tables in which ``migrate``, or the first visitor, puts rows again."""

CATALOG = "mipyme_backup_"


def own_tables(rows: Mapping[str, int]) -> frozenset[str]:
    """Return the tables that hold rows of the project's own; names may have alias and schema."""
    return frozenset(name for name, count in rows.items() if count and is_own(name))


def is_own(table: str) -> bool:
    bare = table.rpartition(": ")[2].rpartition(".")[2]
    return bare not in REFILLED and not bare.startswith(CATALOG)
