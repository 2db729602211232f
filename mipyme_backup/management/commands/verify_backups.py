"""``manage.py verify_backups``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mipyme_backup import api
from mipyme_backup.errors import DamagedError, UsageError
from mipyme_backup.management.base import BackupCommand, gettext_noop, said

PARTIAL = 3


class Command(BackupCommand):
    help = gettext_noop("Read backups back, and say whether every byte is as it was written.")

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("id", nargs="*", help=_("ids, unique beginnings of ids, or names"))
        parser.add_argument("--latest", action="store_true", help=_("the newest good backup"))
        parser.add_argument("--all", action="store_true", help=_("every backup (the default)"))
        parser.add_argument("--destination", metavar="NAME")
        parser.add_argument(
            "--level",
            choices=["stored", "content"],
            default="stored",
            help=_("stored: hash every stored byte; content: decrypt and parse it all as well"),
        )

    def run(self, **options: Any) -> None:
        if sum(map(bool, (options["id"], options["latest"], options["all"]))) > 1:
            raise UsageError(_("IDs, --latest and --all exclude each other."))
        results = api.verify(
            identifiers=options["id"],
            latest=options["latest"],
            destination=options["destination"],
            level=options["level"],
            progress=self.progress,
        )
        if self.as_json:
            self.print_json([result.to_dict() for result in results])
        else:
            self.progress.pause()
            table = Table(box=SIMPLE_HEAD, pad_edge=False)
            for title in (_("Backup"), _("Destination")):
                table.add_column(title, no_wrap=True)
            table.add_column(_("Result"), overflow="fold")
            for result in results:
                outcome = (
                    f"[red]{escape(chr(10).join(map(said, result.problems)))}[/]"
                    if result.problems
                    else f"[green]{_('good')}[/]"
                )
                table.add_row(escape(result.name), escape(result.destination), outcome)
            self.console.print(table)
        if any(result.problems and not result.away for result in results):
            self.exit(DamagedError.exit_status)
        self.exit(PARTIAL if any(result.away for result in results) else 0)
