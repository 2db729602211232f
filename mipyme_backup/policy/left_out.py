"""What a backup says that it lacks, by the facts of its sources. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mipyme_backup.messages import Message, _

NAMES_SHOWN = 3
Severity = Literal["ok", "warning"]


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Something that a source could not save; ``ok`` where another source has it."""

    source: str
    severity: Severity
    message: Message


def lacks(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Lack]:
    """Return what a backup lacks, from the names and facts of its sources."""
    return [
        Lack(source=name, severity=severity, message=message)
        for name, facts in sources
        for severity, message in left_out(name, facts)
    ]


def left_out(name: str, facts: Mapping[str, Any]) -> list[tuple[Severity, Message]]:
    """Return what the source `name` could not save; `facts` are by artifact, of any version."""
    found: list[tuple[Severity, Message]] = []
    unreadable = unreadable_count([(name, facts)])
    if unreadable:
        text = _("items that exist but could not be read (%(count)d)")
        found.append(("warning", Message(text, {"count": unreadable})))
    skipped = _total(facts, "left_out") - unreadable
    if skipped > 0:
        text = _("items that cannot be stored: links, special files, unusual names (%(count)d)")
        found.append(("warning", Message(text, {"count": skipped})))
    behind = _total(facts, "files_behind_links")
    if behind:
        text = _("files behind links that lead out of the media folder (%(count)d)")
        found.append(("warning", Message(text, {"count": behind})))
    unsaved = _unsaved(facts)
    if unsaved:
        shown = _shown(sorted(unsaved))
        text = _("files that rows name, in storages that are not saved (%(count)d): %(fields)s")
        found.append(("warning", Message(text, {"count": sum(unsaved.values()), "fields": shown})))
    gone = _total(facts, "gone")
    if gone:
        text = _("files that rows name, missing and kept from an earlier backup (%(count)d)")
        found.append(("warning", Message(text, {"count": gone})))
    models = _models(facts)
    if models:
        # The dump of the database has their rows.
        text = _("models whose rows only the database dump holds (%(count)d): %(models)s")
        found.append(("ok", Message(text, {"count": len(models), "models": _shown(models)})))
    return found


def unreadable_count(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Return how much existed that could not be read, from the names and facts of sources."""
    return sum(
        count
        for _name, facts in sources
        for saved in facts.values()
        if isinstance(saved, Mapping)
        and type(count := saved.get("unreadable")) is int
        and count > 0
    )


def missing_files(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Return how many files did not exist that rows named."""
    return sum(_total(facts, "missing") for _name, facts in sources)


def joined(messages: Sequence[Message]) -> Message:
    """Return the messages as one, each of which is translated by itself."""
    params: dict[str, object] = {f"text{number}": one for number, one in enumerate(messages)}
    return Message("; ".join(f"%({name})s" for name in params), params)


def _total(facts: Mapping[str, Any], key: str) -> int:
    values = (saved.get(key) for saved in facts.values() if isinstance(saved, Mapping))
    return sum(value for value in values if type(value) is int and value > 0)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if names[NAMES_SHOWN:] else "")


def _unsaved(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return how many files each field names in storages that no source saves."""
    found: dict[str, int] = {}
    for saved in facts.values():
        counts = saved.get("unsaved") if isinstance(saved, Mapping) else None
        for entry in counts if isinstance(counts, list) else ():
            if isinstance(entry, Mapping) and type(entry.get("rows")) is int:
                field = str(entry.get("field"))
                found[field] = found.get(field, 0) + max(0, entry["rows"])
    return found


def _models(facts: Mapping[str, Any]) -> list[str]:
    """Return the models that were left out although their tables were there."""
    found: set[str] = set()
    for saved in facts.values():
        reasons = saved.get("left_out") if isinstance(saved, Mapping) else None
        if isinstance(reasons, Mapping):
            absent = saved.get("absent")
            found |= {*map(str, reasons)} - {*(absent if isinstance(absent, list) else ())}
    return sorted(found)
