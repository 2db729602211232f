"""What a manifest says was saved, and what changed since the backup before: for pages. Pure.

It reads the manifest as the catalog keeps it, which may be of any version: what is not there is
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mipyme_backup.manifest import row_counts
from mipyme_backup.messages import Message, _


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """An artifact as destinations hold it: `volumes` are (path, size in bytes, SHA-256)."""

    name: str
    path: str
    raw_size: int
    stored_size: int
    sha256: str
    volumes: Sequence[tuple[str, int, str]]


@dataclass(frozen=True, kw_only=True)
class SavedContent:
    """What one source saved: counts are None where the source has no such thing.

    `left_out` says why something was, by its name.
    """

    source: str
    engine: str
    tables: int | None
    rows: int | None
    files: int | None
    raw_size: int
    stored_size: int
    parts: Sequence[StoredPart]
    left_out: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RowDifference:
    """A table's rows in the backup before and in this one; None where it was not there."""

    table: str
    before: int | None
    after: int | None

    @property
    def change(self) -> int:
        return (self.after or 0) - (self.before or 0)


def saved_contents(manifest: Mapping[str, Any]) -> list[SavedContent]:
    """Return what each source saved; the media's size is that of its files."""
    packs = [*_parts(manifest.get("packs", ()))]
    return [_content(source, packs) for source in manifest.get("sources", ())]


def packs_of(manifest: Mapping[str, Any]) -> list[StoredPart]:
    """Return the packs of media files, which several backups share."""
    return [*_parts(manifest.get("packs", ()))]


def rows_of(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the rows by table."""
    return row_counts((source["name"], source["facts"]) for source in manifest.get("sources", ()))


def row_differences(before: Mapping[str, int], after: Mapping[str, int]) -> list[RowDifference]:
    """Return the tables whose rows changed, or that came or went; the largest change first."""
    found = [
        RowDifference(table=table, before=before.get(table), after=after.get(table))
        for table in before.keys() | after.keys()
        if before.get(table) != after.get(table)
    ]
    return sorted(found, key=lambda item: (-abs(item.change), item.table))


def _content(source: Mapping[str, Any], packs: Sequence[StoredPart]) -> SavedContent:
    name, parts = source["name"], [*_parts(source["artifacts"])]
    facts = [fact for fact in source["facts"].values() if isinstance(fact, Mapping)]
    counts = [count for fact in facts if (count := fact.get("tables", fact.get("models")))]
    is_media = any("packs" in fact for fact in facts)
    shared = {pack for fact in facts for pack in fact.get("packs", ())}
    stored = [*parts, *(pack for pack in packs if pack.path.split("/")[1] in shared)]
    return SavedContent(
        source=name,
        engine=" ".join(filter(None, (_text(facts, "engine"), _text(facts, "version")))),
        tables=sum(map(len, counts)) if counts else None,
        rows=sum(sum(count.values()) for count in counts) if counts else None,
        files=_total(facts, "files") if is_media else None,
        raw_size=_total(facts, "bytes") if is_media else sum(part.raw_size for part in parts),
        stored_size=sum(part.stored_size for part in stored),
        parts=parts,
        left_out={name: reason for fact in facts for name, reason in _left_out(fact)},
    )


def _left_out(fact: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what was left out, with the schema that it is of and its rows where that is told."""
    reasons, rows = fact.get("left_out"), fact.get("left_out_rows", {})
    for model, reason in reasons.items() if isinstance(reasons, Mapping) else ():
        name = f"{fact['schema']}: {model}" if "schema" in fact else model
        if model in rows:
            text = _("%(reason)s; %(rows)d rows are left out")
            yield name, str(Message(text, {"reason": reason, "rows": rows[model]}))
        else:
            yield name, str(reason)


def _parts(artifacts: Sequence[Mapping[str, Any]]) -> Iterator[StoredPart]:
    for artifact in artifacts:
        yield StoredPart(
            name=artifact["name"],
            path=artifact["path"],
            raw_size=artifact["raw_size"],
            stored_size=artifact["stored_size"],
            sha256=artifact["sha256"],
            volumes=[
                (f"{artifact['path']}.{number:05d}", volume["size"], volume["sha256"])
                for number, volume in enumerate(artifact["volumes"])
            ],
        )


def _text(facts: Sequence[Mapping[str, Any]], key: str) -> str:
    return next((str(fact[key]) for fact in facts if key in fact), "")


def _total(facts: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(fact[key] for fact in facts if isinstance(fact.get(key), int))
