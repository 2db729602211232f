"""Tables and figures that a person likes to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mipyme_backup.operations.drill_report import step_title
from mipyme_backup.policy.origin import DatabaseOrigin
from mipyme_backup.translation import said, translated

WIDE = 110
STATUS_STYLES = {
    "complete": "green",
    "partial": "yellow",
    "failed": "red",
    "abandoned": "red",
    "running": "cyan",
    "damaged": "red",
    "missing": "yellow",
    "pending": "cyan",
    "pruned": "dim",
}

OTHER_WORDS = (
    gettext_noop("pre_deploy"),
    gettext_noop("keep"),
    gettext_noop("delete"),
    gettext_noop("locked"),
)
"""The words of results that stand in no model; they are translated where they are shown."""


def size(count: int) -> str:
    """Return a size in bytes for people."""
    return filesizeformat(count).replace("\xa0", " ")


def moment(text: str | None) -> str:
    """Return an ISO time in the current time zone for people."""
    if not text:
        return "-"
    return date_format(timezone.localtime(datetime.fromisoformat(text)), "Y-m-d H:i")


def duration(seconds: float) -> str:
    """Return a duration for people: tenths below a minute."""
    if seconds < 60:
        return f"{number(seconds, places=1)} s"
    return str(timedelta(seconds=round(seconds)))


def number(value: float, *, places: int | None = None) -> str:
    """Return a number as the active language writes it, thousands apart."""
    return number_format(value, decimal_pos=places, force_grouping=True).replace("\xa0", " ")


def status(text: str) -> str:
    """Return a status with its colour, as rich markup."""
    style = STATUS_STYLES.get(text, "")
    return f"[{style}]{escape(_(text))}[/]" if style else escape(_(text))


def backups_table(rows: Sequence[Mapping[str, Any]], *, width: int) -> Table:
    """Return the backups, a line each; the folder's name where `width` columns have room for it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    with_name = width >= WIDE
    table.add_column(_("ID"), no_wrap=True)
    for title in (_("Kind"), _("Status"), _("Finished")):
        table.add_column(title, no_wrap=True)
    for title in (_("Size"), _("Stored")):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(_("Copies"), overflow="fold")
    if with_name:
        table.add_column(_("Name"), overflow="fold")
    origins = [_origin(row) for row in rows]
    with_origin = len({*filter(None, origins)}) > 1
    if with_origin:
        table.add_column(_("Of"), overflow="fold")
    for row, origin in zip(rows, origins, strict=True):
        name = [escape(row["name"])] if with_name else []
        if with_origin:
            name.append(escape(origin or "-"))
        table.add_row(
            row["id"][:8] or escape(row["name"]),
            escape(_(row["kind"])),
            status(row["status"]) + (f" [cyan]{escape(_('pinned'))}[/]" if row["pinned"] else ""),
            moment(row["finished_at"]),
            size(row["raw_size"]) if row["finished_at"] else "-",
            size(row["stored_size"]) if row["finished_at"] else "-",
            _copies(row),
            *name,
        )
    return table


def _origin(row: Mapping[str, Any]) -> str:
    """Return the host and the databases that a backup is of; "" where it does not say."""
    places = [
        str(DatabaseOrigin(name=one["name"], place=one["place"]))
        for one in row["databases"].values()
    ]
    return ": ".join(filter(None, [row["host"], ", ".join(places)]))


def _copies(row: Mapping[str, Any]) -> str:
    copies = [
        escape(copy["destination"])
        + ("" if copy["status"] == "complete" else f" {status(copy['status'])}")
        for copy in row["copies"]
    ]
    return ", ".join(copies) or "-"


def facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    """Return names and values, a line each; values may hold markup."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table


def steps_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    """Return the steps of a drill, a line each, with the seconds and the problems."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(_("Step"), overflow="fold")
    table.add_column(_("Took"), justify="right", no_wrap=True)
    table.add_column(_("Result"), overflow="fold")
    for step in steps:
        outcome = (
            f"[green]{_('good')}[/]"
            if step["ok"]
            else f"[red]{escape(chr(10).join(map(said, step['problems'])))}[/]"
        )
        title = translated(step_title(step["name"]))
        table.add_row(escape(title), duration(step["seconds"]), outcome)
    return table
