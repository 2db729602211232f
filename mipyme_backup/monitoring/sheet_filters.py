"""Template filters of the recovery sheet: values as Markdown and as a shell read them."""

from __future__ import annotations

import shlex

from django import template

register = template.Library()


@register.filter
def cell(value: object) -> str:
    """Return one line that does not end a table's cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


@register.filter
def code(value: object) -> str:
    """Return `value` as code, within a table's cell or anywhere else."""
    text = cell(value)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


@register.filter
def argument(value: object) -> str:
    """Return `value` as one argument of a shell."""
    return shlex.quote(str(value))
