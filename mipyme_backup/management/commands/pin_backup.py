"""``manage.py pin_backup``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from rich.markup import escape

from mipyme_backup import api
from mipyme_backup.management.base import BackupCommand, gettext_noop, translated

PARTIAL = 3


class Command(BackupCommand):
    help = gettext_noop("Pin a backup, so that prune_backups never deletes it.")

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("id", help=_("id, unique beginning of one, or name"))
        parser.add_argument("--remove", action="store_true", help=_("take the pin away"))

    def run(self, **options: Any) -> None:
        result = api.pin(identifier=options["id"], pinned=not options["remove"])
        if self.as_json:
            self.print_json(result.to_dict())
        else:
            text = _("%(name)s is pinned.") if result.pinned else _("%(name)s is not pinned.")
            self.console.print(escape(text % {"name": result.name}))
            for name, error in result.copies.items():
                if error is not None:
                    self.console.print(
                        f"[red]{escape(name)}: {escape(translated(error.message))}[/]\n"
                        + escape(_("Run the same command again once that is mended."))
                    )
        self.exit(PARTIAL if result.failed else 0)
