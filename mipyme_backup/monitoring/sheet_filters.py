"""Template filters of the recovery sheet: values as Markdown and as a shell read them.

A value is shown and does nothing else: it becomes no element, link, cell or line of its own, and
moves no cursor where the sheet is printed on a terminal.
"""

from __future__ import annotations

import re
import shlex

from django import template

from mipyme_backup.printable import printable

register = template.Library()

MARKUP = re.compile(r"[\\`<\[\]|]")
"""What begins code, an element, a link or a cell; CommonMark takes a backslash before each."""


@register.filter
def cell(value: object) -> str:
    """Return one line of text that does not end a table's cell."""
    return MARKUP.sub(r"\\\g<0>", _line(value))


@register.filter
def code(value: object) -> str:
    """Return `value` as code, within a table's cell or anywhere else."""
    text = re.sub(r"(\\*)\|", _escaped_bar, _line(value))
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest or not text else f"`{text}`"


@register.filter
def argument(value: object) -> str:
    """Return `value` as one argument of a shell, in one line."""
    text = str(value)
    if text == printable(text) and "\n" not in text and "\t" not in text:
        return shlex.quote(text)
    quoted = "".join(_in_quotes(one) for one in text)
    return f"$'{quoted}'"


def _line(value: object) -> str:
    return printable(" ".join(str(value).split()))


def _escaped_bar(found: re.Match[str]) -> str:
    """Return a bar that ends no cell: the backslashes before it must not escape one another."""
    return found[1] + ("\\\\|" if len(found[1]) % 2 else "\\|")


def _in_quotes(one: str) -> str:
    """Return a character as it stands between ``$'`` and ``'``, for bash and zsh."""
    if one in "\\'":
        return f"\\{one}"
    if one == printable(one) and one not in "\n\t":
        return one
    return "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape"))
