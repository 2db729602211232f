"""What argparse and Django say of a command's options, in the active language."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from django.core.management.base import CommandParser, DjangoHelpFormatter
from django.utils.translation import gettext

from mipyme_backup.messages import _
from mipyme_backup.translation import in_project_language, said

FOREIGN = (
    _("show this help message and exit"),
    _("Show program's version number and exit."),
    _(
        "Verbosity level; 0=minimal output, 1=normal output, 2=verbose output,"
        " 3=very verbose output"
    ),
    _(
        'The Python path to a settings module, e.g. "myproject.settings.main". If this isn\'t'
        " provided, the DJANGO_SETTINGS_MODULE environment variable will be used."
    ),
    _('A directory to add to the Python path, e.g. "/home/djangoprojects/myproject".'),
    _("Display a full stack trace on CommandError exceptions."),
    _("Don't colorize the command output."),
    _("Force colorization of the command output."),
    _("Skip system checks."),
    _("unrecognized arguments: %(arguments)s"),
    _("the following arguments are required: %(arguments)s"),
    _("argument %(name)s: expected one argument"),
    _("argument %(name)s: expected at least one argument"),
    _("argument %(name)s: ignored explicit argument %(value)s"),
    _("argument %(name)s: invalid choice: %(value)s (choose from %(known)s)"),
    _("argument %(name)s: invalid %(kind)s value: %(value)s"),
)
"""Texts of others that stand beside ours; what they will say differently stays in English."""


class Formatter(DjangoHelpFormatter):
    """Writes a command's help, with what comes first in the active language."""

    def add_usage(
        self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None
    ) -> None:
        super().add_usage(usage, actions, groups, gettext("usage: ") if prefix is None else prefix)


def translate(parser: CommandParser) -> None:
    """Have `parser` speak the active language; what it refuses is told in the project's."""
    parser.description = gettext(parser.description) if parser.description else None
    parser.formatter_class = Formatter
    parser._positionals.title = gettext("positional arguments")
    parser._optionals.title = gettext("options")
    for action in parser._actions:
        if action.help and action.help != SUPPRESS:
            action.help = said(action.help)
    parser.error = partial(_refuse, parser.error)  # type: ignore[method-assign]


def _refuse(refuse: Callable[[str], NoReturn], message: str) -> NoReturn:
    with in_project_language():
        text = said(message)
    refuse(text)
