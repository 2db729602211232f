"""``manage.py list_backups``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from mipyme_backup import api
from mipyme_backup.management import tables
from mipyme_backup.management.base import BackupCommand, gettext_noop


class Command(BackupCommand):
    help = gettext_noop("List the backups, newest first.")

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--destination", metavar="NAME", help=_("ask this destination itself, not the catalog")
        )
        parser.add_argument(
            "--sync", action="store_true", help=_("rebuild the catalog from the destinations first")
        )

    def run(self, **options: Any) -> None:
        rows = [
            item.to_dict()
            for item in api.backups(destination=options["destination"], sync=options["sync"])
        ]
        if self.as_json:
            self.print_json(rows)
        elif rows:
            self.progress.pause()
            self.console.print(tables.backups_table(rows, width=self.console.width))
        else:
            self.console.print(_("There is no backup yet. Take one: manage.py backup"))
