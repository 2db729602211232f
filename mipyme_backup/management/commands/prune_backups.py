"""``manage.py prune_backups``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mipyme_backup import api
from mipyme_backup.api import PruneResult
from mipyme_backup.management import tables
from mipyme_backup.management.base import BackupCommand, gettext_noop, translated
from mipyme_backup.results import Outcome, Pruned

PARTIAL = 3
STYLES = {"keep": "green", "delete": "yellow", "locked": "cyan", "failed": "red"}


class Command(BackupCommand):
    help = gettext_noop(
        "Delete the backups that are older than RETENTION says, and tell why each stays or goes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help=_("only tell what would be deleted, and why")
        )
        parser.add_argument(
            "--destination",
            action="append",
            default=[],
            metavar="NAME",
            help=_("prune only this destination (repeatable)"),
        )

    def run(self, **options: Any) -> None:
        result = api.prune(
            destinations=options["destination"],
            dry_run=options["dry_run"],
            progress=self.progress,
        )
        if self.as_json:
            self.print_json(result.to_dict())
        else:
            self.progress.pause()
            self._show(result)
        self.exit(PARTIAL if result.failed else 0)

    def _show(self, result: PruneResult) -> None:
        if any(pruned.outcomes for pruned in result.destinations):
            self.console.print(_table(result, width=self.console.width))
        for pruned in result.destinations:
            parts = [] if pruned.error and not pruned.freed else [escape(_summary(result, pruned))]
            if pruned.error is not None:
                parts.append(f"[red]{escape(translated(pruned.error.message))}[/]")
                parts.append(escape(translated(pruned.error.hint)))
            self.console.print(f"[bold]{escape(pruned.destination)}[/]: " + "\n".join(parts))


def _table(result: PruneResult, *, width: int) -> Table:
    """Return a line for each backup; its name where `width` columns have room for it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    with_name = width >= tables.WIDE
    table.add_column(_("Destination"), no_wrap=True, max_width=16)
    table.add_column(_("ID"), overflow="fold", min_width=8, max_width=16)
    table.add_column(_("Kind"), no_wrap=True)
    table.add_column(_("Age"), justify="right", no_wrap=True)
    table.add_column(_("Decision"), no_wrap=True)
    table.add_column(_("Reason"), overflow="fold")
    if with_name:
        table.add_column(_("Name"), overflow="fold")
    for pruned in result.destinations:
        for outcome in sorted(pruned.outcomes, key=lambda one: one.age_days or 0):
            copy = outcome.decision.copy
            table.add_row(
                escape(pruned.destination),
                copy.id[:8] or ("-" if with_name else escape(copy.name)),
                escape(_(copy.kind)) if copy.kind else "-",
                _age(outcome.age_days),
                f"[{STYLES[outcome.action]}]{escape(_(outcome.action))}[/]",
                escape(_reason(outcome)),
                *([escape(copy.name)] if with_name else []),
            )
    return table


def _reason(outcome: Outcome) -> str:
    reason = translated(outcome.decision.reason)
    if outcome.action == "locked":
        return _("%(reason)s Kept by a lock, or by credentials that may not delete.") % {
            "reason": reason
        }
    return reason


def _age(days: float | None) -> str:
    if days is None:
        return "-"
    if days < 0:
        return _("in the future")
    return ngettext("%(count)d day", "%(count)d days", int(days)) % {"count": int(days)}


def _summary(result: PruneResult, pruned: Pruned) -> str:
    text = _("%(size)s would be freed") if result.dry_run else _("%(size)s freed")
    parts = [text % {"size": tables.size(pruned.freed)}]
    if pruned.waiting:
        waiting = ngettext(
            "%(count)d folder belongs to no backup, and goes after 72 hours",
            "%(count)d folders belong to no backup, and go after 72 hours",
            pruned.waiting,
        )
        parts.append(waiting % {"count": pruned.waiting})
    return "; ".join(parts)
