"""Chooses what of a dump's table of contents a role can restore."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from mipyme_backup.sources.postgresql.archive import Entry
from mipyme_backup.sources.postgresql.connection import identifier
from mipyme_backup.sources.postgresql.server import Rights

SUPERUSER_KINDS = frozenset({"EVENT TRIGGER", "FOREIGN DATA WRAPPER", "SUBSCRIPTION"})


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is restored, in the dump's order, and what is left out."""

    kept: tuple[Entry, ...]
    left_out: tuple[Entry, ...]

    def without_rows(self, tables: Collection[tuple[str, str]]) -> Selection:
        """Return it without the rows of `tables`, which are (schema, name)."""
        return self._without(lambda e: e.kind == "TABLE DATA" and (e.schema, e.tag) in tables)

    def without_kinds(self, kinds: Collection[str]) -> Selection:
        """Return it without objects of `kinds`, and what is said of them."""
        return self._without(
            lambda e: (
                e.kind in kinds
                or (e.kind == "COMMENT" and any(e.tag.startswith(f"{kind} ") for kind in kinds))
            )
        )

    def without_publications(self, names: Collection[str]) -> Selection:
        """Return it without the publications `names`, which stay as they are."""
        return self._without(
            lambda e: (
                (e.kind == "PUBLICATION" and e.tag in names)
                or (
                    e.kind.startswith("PUBLICATION ")
                    and any(e.tag.startswith(f"{name} ") for name in names)
                )
            )
        )

    def _without(self, unwanted: Callable[[Entry], bool]) -> Selection:
        left_out = tuple(entry for entry in self.kept if unwanted(entry))
        kept = tuple(entry for entry in self.kept if not unwanted(entry))
        return Selection(kept=kept, left_out=(*self.left_out, *left_out))

    def use_list(self) -> bytes:
        """Return it as ``pg_restore --use-list`` reads it: the number at the head of a line."""
        return "".join(f"{entry.id};\n" for entry in self.kept).encode()


def select(
    entries: Iterable[Entry],
    rights: Rights,
    installed: frozenset[str],
    schemas: frozenset[str] = frozenset(),
) -> Selection:
    """Return the selection for a role with `rights`.

    `installed` are extensions that are there already, `schemas` those that are, and stay as they
    are.
    """
    kept: list[Entry] = []
    left_out: list[Entry] = []
    for entry in entries:
        wanted = may_restore(entry, rights, installed) and not _makes_schema(entry, schemas)
        (kept if wanted else left_out).append(entry)
    return Selection(kept=tuple(kept), left_out=tuple(left_out))


def may_restore(entry: Entry, rights: Rights, installed: frozenset[str]) -> bool:
    """Tell whether the role can restore `entry` into a database that it owns."""
    if entry.kind == "EXTENSION":
        return entry.tag not in installed and rights.may_create_extension(entry.tag)
    if entry.kind == "COMMENT" and entry.tag.startswith("EXTENSION "):
        return _may_comment(entry.tag.removeprefix("EXTENSION "), rights, installed)
    if rights.superuser:
        return True
    match entry.kind:
        case "COMMENT":
            return not any(entry.tag.startswith(f"{kind} ") for kind in SUPERUSER_KINDS)
        case "ACL":
            # Of the system's own objects, and what others than the owner granted.
            return entry.schema != "pg_catalog" and "SET SESSION AUTHORIZATION" not in (
                entry.definition
            )
        case "DEFAULT ACL":
            return entry.owner == rights.role
        case "PUBLICATION":
            return "FOR ALL TABLES" not in entry.definition
        case "PUBLICATION TABLES IN SCHEMA":
            return False
        case kind:
            return kind not in SUPERUSER_KINDS


def _makes_schema(entry: Entry, schemas: frozenset[str]) -> bool:
    """Tell whether `entry` makes one of the schemas, or says who may use it, or comments on it."""
    if entry.kind == "SCHEMA":
        return entry.tag in schemas
    if entry.kind not in {"ACL", "COMMENT"} or not entry.tag.startswith("SCHEMA "):
        return False
    tag = entry.tag.removeprefix("SCHEMA ")
    return any(tag in {name, identifier(name)} for name in schemas)


def _may_comment(tag: str, rights: Rights, installed: frozenset[str]) -> bool:
    """Tell whether the extension that a tag names, perhaps quoted, will be there and be ours."""
    creatable = {name for name in rights.available if rights.may_create_extension(name)}
    ours = creatable if rights.superuser else creatable - installed - {"plpgsql"}
    return any(tag in {name, identifier(name)} for name in ours)
