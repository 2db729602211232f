"""``manage.py backup``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from rich.markup import escape

from mipyme_backup import api
from mipyme_backup.api import BackupResult
from mipyme_backup.errors import UsageError
from mipyme_backup.management import tables
from mipyme_backup.management.base import BackupCommand, gettext_noop, said, translated
from mipyme_backup.manifest import Manifest

PARTIAL = 3


class Command(BackupCommand):
    help = gettext_noop("Save the databases, fixtures and media as one encrypted, verified set.")

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--kind", choices=api.KINDS, default="manual", help=_("default: %(default)s")
        )
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="SOURCE",
            help=_("save only this source: database, database:ALIAS, fixtures, media (repeatable)"),
        )
        parser.add_argument(
            "--destination",
            action="append",
            default=[],
            metavar="NAME",
            help=_("save only to this destination (repeatable)"),
        )
        parser.add_argument("--label", default="", help=_("a note that is kept with the backup"))
        parser.add_argument(
            "--allow-empty",
            action="store_true",
            help=_("go on where the project's tables are gone and there are backups of them"),
        )
        parser.add_argument(
            "--complete",
            metavar="ID",
            help=_("take none: complete the copies of this one on the destinations that lack it"),
        )

    def run(self, **options: Any) -> None:
        result = self._complete(options) if options["complete"] else self._take(options)
        if self.as_json:
            self.print_json(result.to_dict())
        else:
            self.progress.pause()
            self._summarise(result)
        self.exit(PARTIAL if result.status == "partial" else 0)

    def _take(self, options: dict[str, Any]) -> BackupResult:
        return api.backup(
            kind=options["kind"],
            only=options["only"],
            destinations=options["destination"],
            label=options["label"],
            allow_empty=options["allow_empty"],
            progress=self.progress,
        )

    def _complete(self, options: dict[str, Any]) -> BackupResult:
        if options["only"] or options["label"] or options["kind"] != "manual":
            raise UsageError(
                _("--complete takes no backup: --kind, --only and --label mean nothing to it."),
                hint=_("With --destination it completes that copy alone."),
            )
        return api.complete(
            identifier=options["complete"],
            destinations=options["destination"],
            progress=self.progress,
        )

    def _summarise(self, result: BackupResult) -> None:
        manifest = result.manifest
        seconds = (manifest.finished_at - manifest.started_at).total_seconds()
        self.console.print(
            tables.facts_table(
                [
                    (_("Backup"), f"{escape(manifest.name)}  ({manifest.id})"),
                    (_("Status"), tables.status(result.status)),
                    *(
                        (name, escape(translated(summary) if summary else "✓"))
                        for name, summary in result.summaries.items()
                    ),
                    (
                        _("Size"),
                        f"{tables.size(manifest.raw_size)} → {tables.size(manifest.stored_size)} "
                        + _("stored"),
                    ),
                    (_("Encryption"), escape(_encryption_summary(manifest))),
                    (_("Took"), tables.duration(seconds)),
                    *(
                        (
                            _("Copy"),
                            f"{escape(name)}: "
                            + (
                                f"[red]{escape(translated(error.message))}[/]"
                                if error
                                else tables.status("complete")
                            ),
                        )
                        for name, error in result.copies.items()
                    ),
                ]
            )
        )
        for warning in manifest.warnings:
            self.console.print(f"[yellow]![/] {escape(said(warning))}")


def _encryption_summary(manifest: Manifest) -> str:
    if manifest.encryption is None:
        return _("none")
    return f"{manifest.encryption}, {_('key')} {manifest.key_fingerprint}"
