"""Whether a backup is of what is here: by its project's name, its host and its databases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FACT = "origin"
"""Under which name the facts of an artifact say where its data came from."""

GENERIC_NAMES = frozenset(
    (
        "api",
        "app",
        "application",
        "apps",
        "backend",
        "base",
        "code",
        "conf",
        "config",
        "configuration",
        "core",
        "default",
        "django",
        "django_app",
        "django_project",
        "djangoproject",
        "dev",
        "example",
        "local",
        "main",
        "my_project",
        "my_site",
        "mysite",
        "myproject",
        "prod",
        "production",
        "project",
        "proj",
        "root",
        "server",
        "service",
        "settings",
        "site",
        "source",
        "sources",
        "src",
        "test",
        "web",
        "webapp",
        "website",
        "www",
    )
)
"""What templates and tutorials call the package of the settings: many projects have it."""


@dataclass(frozen=True, kw_only=True)
class DatabaseOrigin:
    """A database: its `name`, and the server or the folder in which it lies, "" if unknown."""

    name: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.place else self.name


def is_generic(project: str) -> bool:
    """Say whether many projects have this name, so that it does not tell them apart."""
    return project.casefold().replace("-", "_") in GENERIC_NAMES


def database_of(origin: Mapping[str, Any]) -> DatabaseOrigin | None:
    """Return the database that a fact, or a source, names; None where it names none."""
    name, place = origin.get("name"), origin.get("place")
    if not isinstance(name, str) or not name:
        return None
    return DatabaseOrigin(name=name, place=place if isinstance(place, str) else "")


def databases_of(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, DatabaseOrigin]:
    """Return the databases that a backup was made of by source, from the sources' facts.

    None for those of a version that did not note it.
    """
    found = {}
    for name, facts in sources:
        for saved in facts.values():
            origin = saved.get(FACT) if isinstance(saved, Mapping) else None
            database = database_of(origin) if isinstance(origin, Mapping) else None
            if database is not None:
                found[name] = database
    return found


def is_same_host(one: str, other: str) -> bool:
    """Say whether two host names can mean one machine: with its domain, or without."""
    first, second = one.casefold(), other.casefold()
    if "." in first and "." in second:
        return first == second
    return first.partition(".")[0] == second.partition(".")[0]
