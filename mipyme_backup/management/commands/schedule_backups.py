"""``manage.py schedule_backups``"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mipyme_backup import api
from mipyme_backup.management import crontab, tables
from mipyme_backup.management.base import BackupCommand, gettext_noop, said, translated
from mipyme_backup.schedule import JOB_TEXTS

FAILED = 1
ACTIONS = {
    "show": gettext_noop("show what runs when, and how the last of each went (default)"),
    "run-due": gettext_noop(
        "do what is due now, once; cron and Celery beat call this every 15 minutes"
    ),
    "install-cron": gettext_noop("have the user's crontab call run-due (one marked line)"),
    "remove-cron": gettext_noop("take that line out of the crontab again"),
    "install-beat": gettext_noop("have django-celery-beat send what is due (one periodic task)"),
}


class Command(BackupCommand):
    help = gettext_noop("Run what SCHEDULE says, and have cron or Celery beat call for it.")

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "action",
            nargs="?",
            default="show",
            choices=[*ACTIONS],
            metavar="ACTION",
            help="; ".join(f"{name}: {_(text)}" for name, text in ACTIONS.items()),
        )
        parser.add_argument(
            "--print",
            action="store_true",
            dest="print_only",
            help=_("install-cron: only print the line"),
        )

    def run(self, **options: Any) -> None:
        action = {
            "show": self._show,
            "run-due": self._run_due,
            "install-cron": self._install_cron,
            "remove-cron": self._remove_cron,
            "install-beat": self._install_beat,
        }[options["action"]]
        action(**options)

    def _show(self, **options: Any) -> None:
        coming = api.coming()
        if self.as_json:
            self.print_json([one.to_dict() for one in coming])
            return
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for title in (_("Job"), _("Schedule"), _("Next"), _("Last slot"), _("How it went")):
            table.add_column(title, no_wrap=True)
        for one in coming:
            table.add_row(
                one.job,
                escape(one.expression) if one.expression else f"[dim]{escape(_('off'))}[/]",
                tables.moment(one.next_slot.isoformat() if one.next_slot else None),
                tables.moment(one.last.slot.isoformat() if one.last and one.last.at else None),
                _how_it_went(one),
            )
        self.console.print(table)
        self.console.print(escape(_("Times are in %(zone)s.") % {"zone": settings.TIME_ZONE}))
        if not crontab.is_installed():
            self.console.print(
                escape(
                    _(
                        "The crontab of this user does not call for it. Without Celery beat,"
                        " nothing does: schedule_backups install-cron"
                    )
                )
            )

    def _run_due(self, **options: Any) -> None:
        outcomes = []
        for outcome in api.run_due(progress=self.progress):
            outcomes.append(outcome)
            urgent = outcome.error or outcome.partial  # cron mails it
            if not self.as_json and (options["verbosity"] or urgent):
                self.progress.pause()
                self.console.print(escape(_outcome_text(outcome)))
        if self.as_json:
            self.print_json([outcome.to_dict() for outcome in outcomes])
        self.exit(FAILED if any(outcome.error for outcome in outcomes) else 0)

    def _install_cron(self, **options: Any) -> None:
        line = crontab.line()
        if options["print_only"]:
            self._tell(_("Add this line to a crontab:"), line=line)
            return
        crontab.install(line)
        self._tell(
            _("The crontab of this user calls for what is due, every 15 minutes:"), line=line
        )

    def _remove_cron(self, **options: Any) -> None:
        removed = crontab.remove()
        self._tell(
            _("The line is out of the crontab of this user.")
            if removed
            else _("The crontab of this user has no such line.")
        )

    def _install_beat(self, **options: Any) -> None:
        from mipyme_backup.management import beat  # needs django-celery-beat

        created = beat.install()
        self._tell(
            _("Celery beat sends what is due, every 15 minutes.")
            if created
            else _("Celery beat did so already.")
        )

    def _tell(self, text: str, *, line: str | None = None) -> None:
        if self.as_json:
            self.print_json({"message": text, "line": line})
            return
        self.console.print(escape(text))
        if line is not None:
            self.stdout.write(line)  # to be copied: never wrapped


def _how_it_went(one: api.Coming) -> str:
    if one.last is None or (one.last.done and one.last.at is None):
        return "-"
    if one.last.done:
        return f"[green]{escape(_('done'))}[/]"
    text = _("not done; attempts: %(count)d") % {"count": one.last.failed}
    return f"[red]{escape(text)}[/]"


def _outcome_text(outcome: api.Outcome) -> str:
    what = translated(JOB_TEXTS[outcome.job])
    text = {
        "done": _("%(what)s, %(slot)s: done"),
        "already_done": _("%(what)s, %(slot)s: done already"),
        "busy": _("%(what)s, %(slot)s: another process is at it"),
        "failed": _("%(what)s, %(slot)s: failed: %(reason)s"),
    }[outcome.ending]
    if outcome.partial:
        text = _("%(what)s, %(slot)s: done in part")
    error = outcome.error
    reason = f"{translated(error.message)} {translated(error.hint)}".strip() if error else ""
    slot = tables.moment(outcome.slot.isoformat())
    line = text % {"what": what, "slot": slot, "reason": reason}
    return " ! ".join([line, *map(said, outcome.warnings)])
