"""``manage.py backup_status``"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from mipyme_backup import api
from mipyme_backup.errors import BackupError
from mipyme_backup.management import alert_lines, status_tables
from mipyme_backup.management.base import BackupCommand, gettext_noop
from mipyme_backup.printable import printable
from mipyme_backup.translation import project_language

logger = logging.getLogger("mipyme_backup")

EXIT_STATUSES = {"ok": 0, "warning": 1, "critical": 2}
COULD_NOT_TELL = 3
NOT_ALL_TOLD = 1


class Command(BackupCommand):
    help = gettext_noop(
        "Say whether the backups are as they should be, and what to do where they are not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--recovery-sheet",
            action="store_true",
            help=_("print the page that leads through a recovery, to be kept outside this server"),
        )
        parser.add_argument(
            "--language",
            choices=("en", "es"),
            default=project_language(),
            help=_("the language of the recovery sheet (default: that of the project)"),
        )
        parser.add_argument(
            "--alert",
            action="store_true",
            help=_("tell the channels of ALERTS what they do not know yet"),
        )
        parser.add_argument(
            "--test-alert",
            action="store_true",
            help=_("send a test message to each channel of ALERTS, and do nothing else"),
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=api.STATUS_SECONDS,
            metavar="SECONDS",
            help=_(
                "a destination that is silent for so long is unreachable (default: %(default)g)"
            ),
        )

    def run(self, **options: Any) -> None:
        if options["recovery_sheet"]:
            self._print_sheet(options)
            return
        if options["test_alert"]:
            self._test_alert()
            return
        watched = api.watch(timeout=options["timeout"]) if options["alert"] else None
        status = watched.status if watched else api.status(timeout=options["timeout"])
        if self.as_json:
            self.print_json((watched or status).to_dict())
        else:
            self.progress.pause()
            for part in status_tables.render(status, width=self.console.width):
                self.console.print(part)
            if watched:
                self._print_deliveries(watched.deliveries)
        self.exit(EXIT_STATUSES[status.level])

    def _test_alert(self) -> None:
        deliveries = api.test_alert()
        if self.as_json:
            self.print_json([delivery.to_dict() for delivery in deliveries])
        else:
            self.progress.pause()
            self._print_deliveries(deliveries)
        arrived = deliveries and not any(delivery.failed for delivery in deliveries)
        self.exit(0 if arrived else NOT_ALL_TOLD)

    def _print_deliveries(self, deliveries: Sequence[api.Delivery]) -> None:
        for line in alert_lines.render(deliveries):
            self.console.print(line)

    def _print_sheet(self, options: dict[str, Any]) -> None:
        language = options["language"]
        text = api.recovery_sheet(language=language, timeout=options["timeout"])
        if self.as_json:
            self.print_json({"language": language, "markdown": text})
        else:
            self.stdout.write(printable(text))

    def fail(self, error: BackupError) -> NoReturn:
        """Whatever kept us from looking, a monitor must take it for no state of the backups."""
        error.exit_status = COULD_NOT_TELL
        super().fail(error)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.exit = partial(_exit, parser.exit)  # type: ignore[method-assign]
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except Exception:
            logger.exception("backup_status failed")
            sys.exit(COULD_NOT_TELL)


def _exit(leave: Callable[..., NoReturn], status: int = 0, message: str | None = None) -> NoReturn:
    """End as argparse does, but not with the status that means critical."""
    leave(COULD_NOT_TELL if status else 0, message)
