"""``manage.py restore_drill``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from rich.markup import escape

from mipyme_backup import api
from mipyme_backup.api import DrillResult
from mipyme_backup.errors import UsageError
from mipyme_backup.management import tables
from mipyme_backup.management.base import BackupCommand, gettext_noop
from mipyme_backup.translation import project_language

FAILED = 1


class Command(BackupCommand):
    help = gettext_noop(
        "Rehearse a restore beside everything live: load, assert, time it, keep a report."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("id", nargs="?", help=_("id, unique beginning of one, or name"))
        parser.add_argument(
            "--latest", action="store_true", help=_("the newest good backup (the default)")
        )
        parser.add_argument("--from", dest="destination", metavar="DESTINATION")
        parser.add_argument(
            "--language",
            choices=("en", "es"),
            default=project_language(),
            help=_("the language of the report's page (default: that of the project)"),
        )

    def run(self, **options: Any) -> None:
        if options["id"] and options["latest"]:
            raise UsageError(_("An ID and --latest exclude each other."))
        result = api.drill(
            identifier=options["id"],
            destination=options["destination"],
            language=options["language"],
            progress=self.progress,
        )
        if self.as_json:
            self.print_json(result.to_dict())
        else:
            self._show(result)
        self.exit(0 if result.passed else FAILED)

    def _show(self, result: DrillResult) -> None:
        self.progress.pause()
        self.console.print(tables.steps_table([step.to_dict() for step in result.steps]))
        taken, allowed = tables.duration(result.seconds), tables.duration(result.rto_seconds)
        in_time = f"[green]{taken}[/]" if result.within_rto else f"[red]{taken}[/]"
        facts = [
            (_("Drill"), f"[green]{_('passed')}[/]" if result.passed else f"[red]{_('failed')}[/]"),
            (_("Backup"), escape(f"{result.backup_name} ({result.destination})")),
            (_("Took"), f"{in_time} ({_('RTO')}: {allowed})"),
            *((_("Report"), escape(str(path))) for path in result.reports),
        ]
        self.console.print(tables.facts_table(facts))
