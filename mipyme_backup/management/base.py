"""What every command shares: options, JSON, errors, progress. No decisions live here."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
from typing import IO, Any, NoReturn, cast

from django.core.checks import run_checks
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.utils.translation import gettext, gettext_noop

from mipyme_backup.errors import BackupError, ConfigurationError, UsageError, memory_shortage
from mipyme_backup.management import parsing
from mipyme_backup.management.console import SafeConsole, give_up_unwritable
from mipyme_backup.management.progress import TerminalProgress
from mipyme_backup.memory import fit_into_limit
from mipyme_backup.messages import _
from mipyme_backup.translation import in_project_language, said, translated

__all__ = ["BackupCommand", "SilentError", "gettext_noop", "said", "translated"]

YES = {"y", "yes", "s", "si", "sí"}


class BackupCommand(BaseCommand):
    """A command that calls one function of the api and renders its result.

    It speaks the language of the project, from its options to its last line. Our own checks run,
    and no others: a foreign one must not stop a restore.
    """

    requires_system_checks: list[str] = []
    requires_migrations_checks = False
    _from_command_line = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--json",
            action="store_true",
            help=gettext("print one JSON document on stdout, nothing else"),
        )
        parser.add_argument(
            "--noinput",
            "--no-input",
            action="store_false",
            dest="interactive",
            help=gettext("never ask anything"),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        _end_in_order()
        fit_into_limit()
        self.as_json: bool = options["json"]
        self.console = SafeConsole(
            file=cast("IO[str]", self.stdout._out),
            no_color=options["no_color"] or None,
            highlight=False,
            soft_wrap=False,
        )
        errors = SafeConsole(
            file=cast("IO[str]", self.stderr._out), no_color=options["no_color"] or None
        )
        logging.getLogger("mipyme_backup").setLevel(
            logging.WARNING if options["verbosity"] < 2 else logging.INFO
        )
        self.progress = TerminalProgress(errors, quiet=options["verbosity"] == 0)
        try:
            _check()
            with self.progress:
                try:
                    self.run(**options)
                finally:
                    self.stdout.flush()
        except BackupError as error:
            self.fail(error)
        except (OSError, Error) as error:
            if options["traceback"]:
                raise
            short = memory_shortage(error)
            text = " ".join(str(error).split())
            self.fail(short or BackupError("%(reason)s", reason=text))
        except Exception as error:
            short = memory_shortage(error)
            if short is None or options["traceback"]:
                raise
        else:
            return
        # Outside of the handler: what the run held is free again.
        self.fail(short)

    def run(self, **options: Any) -> None:
        """Call the api and render what it returns."""
        raise NotImplementedError

    def print_json(self, document: Any) -> None:
        self.stdout.write(json.dumps(document, indent=2, default=str))

    def fail(self, error: BackupError) -> NoReturn:
        """Report `error` in the way asked for, and end with its exit status."""
        message, hint = translated(error.message), translated(error.hint)
        if self.as_json:
            with contextlib.suppress(OSError):  # where it is stdout that failed, stderr must do
                self.print_json({"error": {"code": error.code, "message": message, "hint": hint}})
                self.stdout.flush()
                raise SilentError(message, returncode=error.exit_status)
        raise CommandError(f"{message}\n{hint}" if hint else message, returncode=error.exit_status)

    def exit(self, status: int) -> None:
        """End with an exit status that is no error of its own; 0 returns."""
        if status:
            raise SilentError("", returncode=status)

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; anything but yes is no."""
        answer = self.ask(f"{question} {gettext('[y/N]')} ")
        return answer.strip().lower() in YES

    def ask(self, question: str) -> str:
        """Ask on the terminal; raises UsageError where nobody is there to answer."""
        self.progress.pause()
        try:
            return input(question)
        except EOFError:
            raise UsageError(
                _("There is nobody to ask; nothing was changed."),
                hint=_("With --no-input nothing is asked."),
            ) from None

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # An option cut short today may mean another one tomorrow: crontabs outlive versions.
        with in_project_language():
            parser = super().create_parser(prog_name, subcommand, allow_abbrev=False, **kwargs)
            parsing.translate(parser)
        if self._from_command_line and "--json" in sys.argv:
            parser.error = self._refuse  # type: ignore[method-assign]
        return parser

    def _refuse(self, message: str) -> NoReturn:
        self.as_json = True
        try:
            with in_project_language():
                self.fail(UsageError("%(text)s", hint=_("Run it with --help."), text=message))
        except SilentError as error:
            sys.exit(error.returncode)

    def run_from_argv(self, argv: list[str]) -> None:
        self._from_command_line = True
        try:
            super().run_from_argv(argv)
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            give_up_unwritable()

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            with in_project_language():
                return super().execute(*args, **options)
        except SilentError as error:
            if not self._from_command_line:
                raise
            sys.exit(error.returncode)


class SilentError(CommandError):
    """An exit status whose reason has been printed already."""


def _check() -> None:
    """Run our own system checks; raises ConfigurationError for the first error."""
    for message in run_checks(tags=["mipyme_backup"]):
        if message.is_serious():
            raise ConfigurationError(
                "%(text)s", hint="%(advice)s", text=message.msg, advice=message.hint or ""
            )


def _end_in_order() -> None:
    """Let SIGTERM unwind the stack, so that temporary files and child processes go with us."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(143)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
