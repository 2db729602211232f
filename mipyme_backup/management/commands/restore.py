"""``manage.py restore``"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from rich.markup import escape

from mipyme_backup import api
from mipyme_backup.api import RestoreResult
from mipyme_backup.errors import NoBackupError, UsageError
from mipyme_backup.management import tables
from mipyme_backup.management.base import BackupCommand, gettext_noop, translated


class Command(BackupCommand):
    help = gettext_noop(
        "Bring a backup back: loaded beside the live data, checked, then swapped in."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("id", nargs="?", help=_("id, unique beginning of one, or name"))
        parser.add_argument("--latest", action="store_true", help=_("the newest good backup"))
        parser.add_argument(
            "--at", metavar="TIME", help=_('the newest at or before "2025-01-02 15:00" (TIME_ZONE)')
        )
        parser.add_argument("--from", dest="destination", metavar="DESTINATION")
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="SOURCE",
            help=_(
                "restore only this source: database, database:ALIAS, media, fixtures (repeatable)"
            ),
        )
        parser.add_argument(
            "--plan", action="store_true", help=_("say what would be done, and stop")
        )
        parser.add_argument("--undo", action="store_true", help=_("swap back the last restore"))
        parser.add_argument("--migrate", action="store_true", help=_("run migrate afterwards"))
        parser.add_argument(
            "--no-safety-backup",
            action="store_false",
            dest="safety_backup",
            help=_("do not save the live data first"),
        )
        parser.add_argument(
            "--to-database", metavar="NAME", help=_("load into a new database; live data stays")
        )
        parser.add_argument(
            "--to-media",
            metavar="DIR",
            type=Path,
            help=_("load into an empty folder; live data stays"),
        )

        parser.add_argument(
            "--in-place",
            action="store_true",
            help=_(
                "PostgreSQL: replace what is live in one transaction, without an undo, for a role"
                " that may not create databases"
            ),
        )

        parser.add_argument(
            "--other-origin",
            action="store_true",
            help=_("restore although the backup was made of another database or on another host"),
        )

    def run(self, **options: Any) -> None:
        if options["undo"]:
            _require_nothing_else(options)
            self._undo(options)
            return
        asked = self._asked(options)
        if options["plan"]:
            self._show_plan(api.restore(**asked, plan=True))
            return
        if options["interactive"]:
            self._require_dialogue()
            planned = api.restore(**asked, plan=True)
            self._show_plan(planned)
            if not self.confirm(self._question(planned, asked)):
                self.console.print(_("Nothing was changed."))
                return
            asked["other_origin"] |= bool(planned.other_origin)  # the question told of it
            asked |= {"identifier": planned.backup_id, "latest": False, "at": None}
        self._show_result(api.restore(**asked, progress=self.progress))

    def _asked(self, options: dict[str, Any]) -> dict[str, Any]:
        identifier = options["id"]
        if not (identifier or options["latest"] or options["at"]):
            identifier = self._ask_which(options)
        return {
            "identifier": identifier,
            "latest": options["latest"],
            "at": _moment(options["at"]) if options["at"] else None,
            "destination": options["destination"],
            "only": options["only"],
            "migrate": options["migrate"],
            "safety_backup": options["safety_backup"],
            "to_database": options["to_database"],
            "to_media": options["to_media"],
            "in_place": options["in_place"],
            "other_origin": options["other_origin"],
        }

    def _ask_which(self, options: dict[str, Any]) -> str:
        if not options["interactive"] or self.as_json:
            raise UsageError(
                _("Say which backup to restore: an ID, or --latest, or --at."),
                hint=_("list_backups shows those that there are."),
            )
        listed = [
            item.row
            for item in api.backups(destination=options["destination"])
            if item.row["status"] in {"complete", "partial"}
        ]
        if not listed:
            raise NoBackupError(_("There is no backup to restore."))
        self.progress.pause()
        self.console.print(tables.backups_table(listed, width=self.console.width))
        answer = self.ask(_("Which one (ID or name, empty for none)? ")).strip()
        if not answer:
            raise NoBackupError(_("No backup was chosen; nothing was changed."))
        return answer

    def _question(self, planned: RestoreResult, asked: dict[str, Any]) -> str:
        if not planned.other_origin or asked["other_origin"]:
            return _("Restore this backup?")
        for line in planned.other_origin:
            self.console.print(f"[bold red]{escape(translated(line))}[/]")
        return _("It may be of another project. Restore it over what is here all the same?")

    def _require_dialogue(self) -> None:
        if self.as_json:
            raise UsageError(
                _("--json cannot ask whether to restore."), hint=_("Add --no-input, or --plan.")
            )

    def _undo(self, options: dict[str, Any]) -> None:
        safety_backup = options["safety_backup"]
        if options["plan"]:
            self._show_plan(api.undo_restore(plan=True, safety_backup=safety_backup))
            return
        if options["interactive"]:
            self._require_dialogue()
            self._show_plan(api.undo_restore(plan=True, safety_backup=safety_backup))
            question = _(
                "Swap back what the last restore replaced? "
                "What it brought is kept aside for a while."
            )
            if not self.confirm(question):
                self.console.print(_("Nothing was changed."))
                return
        self._show_result(api.undo_restore(safety_backup=safety_backup, progress=self.progress))

    def _show_plan(self, planned: RestoreResult) -> None:
        if self.as_json:
            self.print_json(planned.to_dict())
            return
        self.progress.pause()
        self.console.print(f"[bold]{_('Plan')}[/]")
        self.console.print(
            tables.facts_table([("•", escape(translated(line))) for line in planned.plan])
        )

    def _show_result(self, result: RestoreResult) -> None:
        if self.as_json:
            self.print_json(result.to_dict())
            return
        self.progress.pause()
        facts = [
            (_("Restore"), result.id),
            (_("Status"), tables.status(result.status)),
            (_("Backup"), escape(result.backup_name or result.backup_id)),
            (_("Safety backup"), escape(result.safety_backup or "-")),
            *(
                (_("Replaced"), f"{name} → {escape(str(kept))}")
                for name, kept in result.replaced.items()
            ),
            *((_("Not restored"), escape(name)) for name in result.left_out),
            *(
                (_("Stays"), escape(f"{name}: {_('the restore replaced nothing there')}"))
                for name in result.stays
            ),
            (_("Took"), tables.duration(result.seconds)),
            (_("Downtime"), f"{tables.number(result.downtime_seconds, places=2)} s"),
        ]
        self.console.print(tables.facts_table(facts))


def _require_nothing_else(options: dict[str, Any]) -> None:
    """Refuse what an undo would pass over: it is always that of the last restore, and at once."""
    others = (
        "id",
        "latest",
        "at",
        "destination",
        "only",
        "to_database",
        "to_media",
        "in_place",
        "other_origin",
    )
    if any(options[name] for name in others):
        raise UsageError(
            _("--undo takes no backup and no other option: it swaps back the last restore."),
            hint=_("Run: manage.py restore --undo (with --plan or --no-safety-backup at most)"),
        )


def _moment(text: str) -> datetime:
    try:
        # A day means the whole of it; `parse_datetime` alone would take its first moment.
        moment = parse_datetime(f"{text} 23:59:59") or parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise UsageError(
            _("%(text)s is no moment."), hint=_('Write it as "2025-01-02 15:00".'), text=text
        )
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)
