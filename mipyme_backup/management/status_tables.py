"""The status as a person likes to read it: what is wrong first, then how things are."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from mipyme_backup.management import tables
from mipyme_backup.management.base import translated
from mipyme_backup.monitoring.status import Status
from mipyme_backup.policy.status import age_text
from mipyme_backup.policy.status_facts import DestinationFacts

STYLES = {"ok": "cyan", "warning": "yellow", "critical": "red"}
MARKS = {"ok": "i", "warning": "!", "critical": "✗"}


def render(status: Status, *, width: int) -> Iterator[RenderableType]:
    """Yield the parts of the page, to be printed one below the other in `width` columns."""
    yield _headline(status)
    if status.findings:
        yield Padding(_findings(status), (1, 0, 0, 0))
    yield _destinations(status, width)
    yield tables.facts_table(_facts(status))


def _headline(status: Status) -> str:
    counts = {
        level: sum(finding.level == level for finding in status.findings)
        for level in ("critical", "warning")
    }
    texts = {
        "critical": ngettext("%d critical", "%d critical", counts["critical"]),
        "warning": ngettext("%d warning", "%d warnings", counts["warning"]),
    }
    said = ", ".join(texts[level] % count for level, count in counts.items() if count)
    word, style = {
        "ok": (_("FINE"), "green"),
        "warning": (_("WARNING"), "yellow"),
        "critical": (_("CRITICAL"), "red"),
    }[status.level]
    where = _("%(project)s on %(host)s") % {"project": status.project, "host": status.host}
    return f"[bold {style}]{word}[/]  {escape(where)}" + (f": {said}" if said else "")


def _findings(status: Status) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in status.findings:
        style = STYLES[finding.level]
        table.add_row(
            f"[bold {style}]{MARKS[finding.level]}[/]",
            f"[{style}]{escape(translated(finding.message))}[/]",
        )
        hint = translated(finding.hint)
        if hint:
            table.add_row("", f"[dim]→ {escape(hint)}[/]")
    return table


def _destinations(status: Status, width: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    with_place = width >= tables.WIDE
    table.add_column(_("Destination"), overflow="fold")
    table.add_column(_("Newest good backup"), no_wrap=True)
    for title in (_("Age"), _("Backups"), _("Free")):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(_("May delete"), no_wrap=True)
    if with_place:
        table.add_column(_("Where"), overflow="fold")
    for item in status.facts.destinations:
        newest = status.facts.newest_good(item.name)
        table.add_row(
            escape(item.name),
            tables.moment(newest.finished_at.isoformat()) if newest else "-",
            age_text(status.at - newest.finished_at) if newest else "-",
            str(item.backups) if item.reachable else f"[red]{_('away')}[/]",
            tables.size(item.free) if item.free is not None else "-",
            _may_delete(item),
            *([escape(item.place)] if with_place else []),
        )
    return table


def _may_delete(item: DestinationFacts) -> str:
    return "-" if item.may_delete is None else _("yes") if item.may_delete else _("no")


def _facts(status: Status) -> list[tuple[str, str]]:
    facts = status.facts
    run = facts.running or facts.last_run
    encryption = facts.encryption
    return [
        (
            _("Last run"),
            f"{escape(run.name)}  {tables.status(run.status)}" if run else "-",
        ),
        (
            _("Encryption"),
            escape(f"{encryption}, {_('key')} {facts.key_fingerprint}")
            if encryption
            else f"[yellow]{_('none')}[/]",
        ),
    ]
